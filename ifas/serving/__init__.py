"""The Bento: service, packaging, model card, and a client that starts and asks one."""
