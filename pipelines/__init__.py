"""One folder per pipeline, and how a pipeline runs here or on a cluster."""
