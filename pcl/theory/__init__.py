"""Trained encoders against what the theory says they should be."""
