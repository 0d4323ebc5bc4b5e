"""What it costs: counts of a loss, and measurements that need no Ray."""
