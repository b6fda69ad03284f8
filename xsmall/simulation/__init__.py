"""A simulated pump-probe run with known truth: what documentation, tests and benchmarks stand on."""

from xsmall.simulation import tutorial
from xsmall.simulation.recipe import Recipe, Ring, Spot
from xsmall.simulation.run import Simulation, simulate

__all__ = ["Recipe", "Ring", "Simulation", "Spot", "simulate", "tutorial"]
