"""The sources: each turns the entries of one kind of place into jobs. None imports another."""
