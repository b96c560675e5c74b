"""Where Ray is: a Ray of this machine alone, or the cluster that this process is a job of. `connection` is the door."""
