"""Noisy values of a Gaussian process against its leading coefficients, where the exact answer is known (THEORY 6.2)."""
