"""Kinds of pairs: each gives its settings, its source, its own encoders, and what its evaluation adds."""
