"""A prior of currents: a Gaussian law whose covariance is learned, and its posterior given measurements."""
