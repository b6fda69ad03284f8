"""What runs are read from, one format each."""
