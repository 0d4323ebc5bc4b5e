"""How good the learned conditionals are: retrieval, classification, and the gap to the theory."""
