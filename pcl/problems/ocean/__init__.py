"""Currents of a tile over a window of time against drifters released in it."""
