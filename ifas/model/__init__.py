"""The model of I-FAS (arXiv 2501.01720): vision tower, globally aware connector, causal language model.

`connector` holds the GAC equations, `loss` the lopsided loss, `judge` the answers of a trained model.
"""
