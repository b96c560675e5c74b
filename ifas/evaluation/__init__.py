"""How good is the model: scores, a frozen threshold, PAD metrics by slice with n and interval, and the report."""
