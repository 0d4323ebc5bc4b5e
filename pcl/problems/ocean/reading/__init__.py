"""Ocean files as they are: names, axes, units, times, depths, missing values."""
