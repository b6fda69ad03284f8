"""Labelled frames in space: pixels, beam, masks, images, and the way back from points in space."""
