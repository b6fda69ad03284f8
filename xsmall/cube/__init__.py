"""Cubes: bins, moments, merging."""

from xsmall.calls import method_of_this_name

method_of_this_name(__name__, "small.sd.cube")
