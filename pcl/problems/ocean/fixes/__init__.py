"""Fixes of drifters, from files of other people: read, understood, cleaned, counted."""
