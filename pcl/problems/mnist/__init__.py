"""Images of digits against their labels (THEORY 6.3)."""
