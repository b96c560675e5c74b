"""Runs a step as a RayJob on Kubernetes."""
