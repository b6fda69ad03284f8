"""Runs to learn with, like ``xarray.tutorial``: simulated on the spot, nothing is downloaded.

Examples
--------
>>> import xsmall as xs
>>> run = xs.tutorial.open_run("powder")
>>> cal = run["jungfrau"]["raw"].sd.calibrate(xs.tutorial.open_constants("powder"))
>>> cal.sizes["event"]
200
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calls import tells_its_names
from xsmall.detector.calibrants import calibrant_q
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.panel import Panel
from xsmall.errors import ParameterError, alike
from xsmall.frames.beam import assign_beam
from xsmall.frames.pixels import assign_geometry
from xsmall.simulation.recipe import SimulatedRing, SimulatedScan
from xsmall.simulation.run import DETECTOR, Simulation, simulate
from xsmall.vocabulary import CALIBRATED, EVENT, EVENTS_NODE, FRAME_DIMS, I0, KILOELECTRONVOLT, RAW, UNITS

__all__ = ["open_constants", "open_run", "truth"]

F = TypeVar("F", bound=Callable[..., Any])
Name = Literal["pump-probe", "powder", "speckle"]

_OFF: Final = (3.5e-4, -2.5e-4)  # m by which the beam of the powder run is not where it is thought to be
_PHOTON: Final = 9.5  # keV
_MODES, _TAU, _SHOTS, _SHAPE = 2, 30.0, 300, (96, 96)
_PER_PIXEL, _NOISE, _CLOUD = 0.03, 0.25, 0.1  # photons; keV; pixels


def _in_the_tutorial(function: F) -> F:
    return tells_its_names(function, folder="tutorial.")


def _unknown_here(name: str) -> Any:
    """Say which function may be meant by a name that is none."""
    near = [] if name.startswith("_") else alike(name, __all__)
    told = f": did you mean xs.tutorial.{near[0]}?" if near else ""
    raise AttributeError(f"xs.tutorial has no {name!r}{told}")


__getattr__ = _unknown_here


@_in_the_tutorial
def open_run(name: Name) -> xr.DataTree:
    """Open a run to learn with.

    Parameters
    ----------
    name
        ``"pump-probe"``: 1500 events of powder rings, Bragg spots and single photons of a JUNGFRAU-like detector while
        a laser is scanned. ``"powder"``: 200 events of rings of LaB6, the beam 0.4 mm from where it is thought to be.
        ``"speckle"``: 300 frames of single photons, of speckle of 2 modes that decays within 30 shots.

    Returns
    -------
    DataTree as :func:`xsmall.open_run` gives it, with a node ``events`` and one of the detector, whose frames have a
    geometry and a beam: ``run["jungfrau"]["raw"]``; of the speckle ``run["epix"]["calibrated"]``, in keV.
    :func:`open_constants` has the constants of the raw frames, :func:`truth` what is behind them.

    Raises
    ------
    ParameterError
        Another name.

    Notes
    -----
    Cost: none, the frames are made when they are computed; of the speckle run a second.

    Examples
    --------
    >>> import xsmall as xs
    >>> list(xs.tutorial.open_run("pump-probe").children)
    ['events', 'jungfrau']
    """
    if _checked_name(name) == "speckle":
        return _speckle()[0]
    sim = _simulation(name)
    beam = sim.beam.replace(center=_OFF) if name == "powder" else sim.beam
    raw = assign_beam(assign_geometry(sim.run.children[DETECTOR].dataset[RAW], sim.geometry), beam)
    events = sim.run.children[EVENTS_NODE].to_dataset()
    return xr.DataTree.from_dict({f"/{EVENTS_NODE}": events, f"/{DETECTOR}": raw.to_dataset(name=RAW)})


@_in_the_tutorial
def open_constants(name: Name) -> xr.Dataset:
    """Open the constants of a run to learn with.

    Parameters
    ----------
    name
        ``"pump-probe"`` or ``"powder"``; the frames of the speckle run are calibrated.

    Returns
    -------
    Dataset over (gain_stage, segment, row, column), for :func:`xsmall.calibrate`.

    Raises
    ------
    ParameterError
        Another name.

    Examples
    --------
    >>> import xsmall as xs
    >>> sorted(xs.tutorial.open_constants("powder").data_vars)
    ['gain', 'noise', 'offset', 'pedestal', 'status']
    """
    if _checked_name(name) == "speckle":
        raise ParameterError(
            "the speckle run needs no constants", found=repr(name), expected="a run of raw words",
            fix='run["epix"]["calibrated"] is in keV',
        )  # fmt: skip
    return _simulation(name).constants


@_in_the_tutorial
def truth(name: Name) -> xr.Dataset:
    """What is behind a run to learn with.

    Parameters
    ----------
    name
        As for :func:`open_run`.

    Returns
    -------
    Of simulated runs as :func:`xsmall.simulate` gives it; of the speckle ``photons`` (event, row, column), with the
    number of modes and the decay, in shots, as attributes.

    Raises
    ------
    ParameterError
        Another name.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.tutorial.truth("speckle").attrs
    {'modes': 2, 'tau': 30.0, 'photon_energy': 9500.0}
    """
    return _speckle()[1] if _checked_name(name) == "speckle" else _simulation(name).truth


def _checked_name(name: str) -> str:
    if name not in get_args(Name):
        raise ParameterError(
            "no such run to learn with", found=repr(name), expected=" or ".join(map(repr, get_args(Name))),
            fix='xs.tutorial.open_run("pump-probe")',
        )  # fmt: skip
    return name


@lru_cache(maxsize=4)
def _simulation(name: str) -> Simulation:
    if name == "pump-probe":
        return simulate(1500, shape=(4, 128, 256), seed=15)
    q = calibrant_q("LaB6", 2.4)
    rings = tuple(SimulatedRing(float(at), 0.02, photons) for at, photons in zip(q, (40.0, 25.0), strict=False))
    recipe = SimulatedScan(
        n_events=200, shape=(4, 128, 256), seed=16, rings=rings, spots=(), laser_off_every=0, n_steps=1
    )
    return Simulation(recipe, 50)


@lru_cache(maxsize=1)
def _speckle() -> tuple[xr.DataTree, xr.Dataset]:
    """Photons of a speckle pattern that moves, in a detector that shares their charge."""
    rng = np.random.default_rng(8)
    fields = rng.normal(size=(_MODES, 2, *_SHAPE))
    keep = float(np.exp(-1 / _TAU))
    i0 = rng.gamma(16.0, 1 / 16.0, _SHOTS)
    frames, counts = np.empty((_SHOTS, *_SHAPE), np.float32), np.empty((_SHOTS, *_SHAPE), np.int32)
    for i in range(_SHOTS):
        if i:
            fields = keep * fields + np.sqrt(1 - keep**2) * rng.normal(size=fields.shape)
        light = (fields**2).sum(axis=1).mean(axis=0) / 2
        counts[i] = rng.poisson(light * _PER_PIXEL * i0[i])
        frames[i] = _charge(rng, counts[i]) + rng.normal(0, _NOISE, _SHAPE)
    times = np.datetime64("2026-05-01T08:00:00", "ns") + np.arange(_SHOTS) * np.timedelta64(8_333_333, "ns")
    data = xr.DataArray(
        frames[:, None], {EVENT: times, I0: (EVENT, i0)}, FRAME_DIMS, name=CALIBRATED, attrs={UNITS: KILOELECTRONVOLT}
    )
    half = 0.5 * 50e-6 * (_SHAPE[0] - 1)
    panel = Panel(origin=(half, half, 5.0), slow=(0, -50e-6, 0), fast=(-50e-6, 0, 0), shape=_SHAPE)
    placed = assign_beam(
        assign_geometry(data.chunk({EVENT: 50}), Geometry.from_panels([panel])),
        photon_energy=1e3 * _PHOTON,
        distance=5.0,
    )
    events = xr.Dataset({I0: (EVENT, i0)}, {EVENT: times})
    run = xr.DataTree.from_dict({f"/{EVENTS_NODE}": events, "/epix": placed.to_dataset(name=CALIBRATED)})
    behind = xr.Dataset(
        {"photons": ((EVENT, "row", "column"), counts)}, {EVENT: times},
        attrs={"modes": _MODES, "tau": _TAU, "photon_energy": 1e3 * _PHOTON},
    )  # fmt: skip
    return run, behind


def _charge(rng: np.random.Generator, counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """What pixels collect of clouds of charge around photons that fell anywhere on these pixels, in keV."""
    from scipy.special import ndtr

    row, column = (np.repeat(i.ravel(), counts.ravel()) for i in np.indices(_SHAPE))
    place = rng.uniform(-0.5, 0.5, (2, row.size))
    borders = np.array([-9.0, -0.5, 0.5, 9.0])
    down, right = (np.diff(ndtr((borders - p[:, None]) / _CLOUD), axis=1) for p in place)
    frame = np.zeros((_SHAPE[0] + 2, _SHAPE[1] + 2))
    for i in range(3):
        for j in range(3):
            np.add.at(frame, (row + i, column + j), _PHOTON * down[:, i] * right[:, j])
    return frame[1:-1, 1:-1]
