"""The review page: a candidate with all that speaks for and against it, and the decision, in a browser."""
