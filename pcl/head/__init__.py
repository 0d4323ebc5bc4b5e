"""The head: it finds what is to be done in storage, and gets it done by jobs of the cluster."""
