"""Figures of frames and of calibrations."""

from xsmall.calls import method_of_this_name

method_of_this_name(__name__, "data.sd.plot")
