"""Kinds of pairs: each gives its settings, its source, its own encoders, and what its evaluation adds.

Those that come with the package are registered as soon as any of this is imported.
"""

import pcl.problems.registry  # noqa: F401
