"""Fixtures of the tests of plugins."""

collect_ignore = ["mine.py"]  # a plugin registers what it holds as it is imported
