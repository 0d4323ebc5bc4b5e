"""Configuration: schema, merging, checks, and what results are a function of."""
