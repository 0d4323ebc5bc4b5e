"""Flows on the torus against the path of one particle in each (THEORY 6.4)."""
