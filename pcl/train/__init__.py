"""Data-parallel contrastive training: a plain torch loop, and the worker that Ray Train calls it from."""
