"""Spoof-aware captioning and filtering (SCF, I-FAS Algorithm 1): every picture gets the text the model learns."""
