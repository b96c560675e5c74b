"""The trigger service: signed CloudEvents in, at most one run for each, and every decision kept."""
