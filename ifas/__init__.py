"""ifas: retrain, judge and ship an interpretable face anti-spoofing model."""

__version__ = "0.1.0"
