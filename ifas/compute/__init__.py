"""The connection to Ray: one started on this machine, or the cluster that this process is a job of."""
