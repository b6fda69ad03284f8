"""Measurements that start processes, environments and signals of their own: run by a person, one at a time."""
