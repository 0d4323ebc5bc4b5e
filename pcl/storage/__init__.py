"""Places, local or in object storage, and the files that lie there."""
