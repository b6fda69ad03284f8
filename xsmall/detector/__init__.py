"""Value objects of a detector: geometry, beam, masks, constants. Frozen, small, hashable."""
