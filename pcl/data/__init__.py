"""From raw files to batches of pairs: one module a source, shards with their manifest, and the lane loader."""
