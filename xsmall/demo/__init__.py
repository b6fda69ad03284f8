"""The demo: a pump-probe run from raw frames on disk to figures, compared with the truth it was simulated from."""

from xsmall.demo.analysis import Findings
from xsmall.demo.run import run_demo

__all__ = ["Findings", "run_demo"]
