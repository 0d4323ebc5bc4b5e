"""The library: training on arrays in memory, in this process."""
