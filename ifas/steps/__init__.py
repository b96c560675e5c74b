"""One module per step of the DAG. A step composes rooms; it holds no logic of its own."""
