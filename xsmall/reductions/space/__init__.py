"""Pixels and images in space: beam, masks, positions, assembled and remapped images."""
