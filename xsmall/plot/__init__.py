"""Figures of frames and of calibrations."""
