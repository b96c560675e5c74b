"""Where a step runs when it does not run here: a RayJob on Kubernetes."""
