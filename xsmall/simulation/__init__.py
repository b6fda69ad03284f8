"""A simulated pump-probe run with known truth: what documentation, tests and benchmarks stand on."""

from xsmall.simulation import tutorial
from xsmall.simulation.recipe import SimulatedRing, SimulatedScan, Spot
from xsmall.simulation.run import Simulation, simulate

__all__ = ["SimulatedRing", "SimulatedScan", "Simulation", "Spot", "simulate", "tutorial"]
