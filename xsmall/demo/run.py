"""The demo from end to end, told on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import xsmall as xs
from xsmall import vocabulary as v
from xsmall.demo.analysis import Findings, bin_run, calibrate, find, reduce_run
from xsmall.errors import DataError
from xsmall.io.stores.runs import write_run

if TYPE_CHECKING:
    import xarray as xr
from dask.diagnostics import ProgressBar

__all__ = ["run_demo"]

FEWEST_EVENTS = 120
"""With fewer, bins of the delay stay empty and a fit finds too few points, or none."""


def run_demo(
    out: str | Path = "xsmall-demo",
    *,
    events: int = 1500,
    seed: int = 0,
    shape: tuple[int, int, int] = (4, 128, 256),
    figures: bool = True,
    progress: bool = True,
) -> Findings:
    """Simulate a pump-probe run on disk, analyse it as one would a real one, and compare with the truth.

    Parameters
    ----------
    out
        Folder for everything that is written: ``run.zarr``, ``constants.zarr``, ``truth.zarr``, ``small.zarr``,
        ``cube.zarr``, ``cube.h5`` and ``figures/``; those of an earlier demo are replaced.
    events
        Events of the run; some hundred are needed for the fits.
    seed
        Which run; see :func:`xsmall.simulate`.
    shape
        Segments, rows and columns of the detector.
    figures
        Whether to draw the figures.
    progress
        Whether to show progress bars and the report on the terminal.

    Returns
    -------
    :class:`~xsmall.demo.analysis.Findings`: the fits with their error bars, beside the truth.

    Raises
    ------
    DataError
        Too few events for a fit.

    Notes
    -----
    Takes a quarter of a minute on two cores, half a minute more where kernels are compiled for the first time, and
    0.5 GB of disk.

    Examples
    --------
    >>> import tempfile
    >>> from xsmall.demo import run_demo
    >>> found = run_demo(tempfile.mkdtemp(), events=500, shape=(4, 64, 128), figures=False, progress=False)
    >>> abs(found.delay_curve.values["t0"] - 0.3) < 0.1
    True
    """
    if events < FEWEST_EVENTS:
        raise DataError(
            "too few events for the fits of the demo",
            found=events,
            expected=f"{FEWEST_EVENTS} at least",
            fix="xsmall demo --events 1500",
        )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    tell = _Teller(progress)
    simulation = xs.simulate(events, shape=shape, seed=seed, scan="fly")

    with tell.step(f"simulate {events} events of {' x '.join(map(str, shape))} pixels, and write them"):
        write_run(simulation.run, folder / "run.zarr", overwrite=True)
        xs.save(simulation.constants, folder / "constants.zarr", overwrite=True)
        xs.save(simulation.truth, folder / "truth.zarr", overwrite=True)

    with tell.step("open the run, assign geometry and beam, calibrate: all lazy"):
        run = xs.open_run(folder / "run.zarr")
        cal = calibrate(run.children["jungfrau"].dataset["raw"], simulation)

    with tell.step("reduce: azimuthal integral, region, droplets, projection, in one pass"):
        small = reduce_run(cal, simulation).compute()
        xs.save(small, folder / "small.zarr", overwrite=True)

    with tell.step("bin by delay and laser: spectra and images"):
        cube = bin_run(small, cal, simulation).compute()

    with tell.step("save the cube as Zarr and as HDF5"):
        xs.save(cube, folder / "cube.zarr", overwrite=True)
        xs.save(cube, folder / "cube.h5", overwrite=True)

    found = find(cube, small, cal, simulation)
    if figures:
        from xsmall.demo.figures import draw

        with tell.step("draw figures"):
            draw(folder / "figures", found, cube, small)
    tell.report(folder, found, small, cube, figures)
    return found


class _Teller:
    """Says on the terminal what happens, or nothing."""

    def __init__(self, speaks: bool) -> None:
        self._speaks = speaks
        self._step = 0
        self._start = time.perf_counter()

    def say(self, text: str = "") -> None:
        """Write one line."""
        if self._speaks:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Tell what is done now, how far it is and how long it took."""
        self._step += 1
        self.say(f"{self._step}. {what}")
        with ProgressBar(out=sys.stdout) if self._speaks else nullcontext():
            yield

    def report(self, folder: Path, found: Findings, small: xr.Dataset, cube: xr.Dataset, figures: bool) -> None:
        """Compare with the truth, and say where everything is."""
        self.say()
        self.say(f"{'found':>46}{'error':>11}{'truth':>10}   deviation / error")
        for name, value, error, truth in found.table():
            self.say(f"{name:<32}{value:>14.6f}{error:>11.6f}{truth:>10.5g}{(value - truth) / error:>+12.1f}")
        energy, error = found.line.values["energy"], found.line.errors["energy"]
        self.say(
            f"Droplets peak at {energy:.3f} +- {error:.3f} keV, photons have {found.truth['line [keV]']:g} keV: what a"
        )
        self.say("photon leaves below the lower threshold is not in its droplet.")
        off, on = (int(cube["count"].sel({v.LASER_ON: on}).sum()) for on in (False, True))
        self.say(f"Events: {small.sizes[v.EVENT]}, of which the cube holds {on} with laser and {off} without.")
        self.say()
        self.say(f"In {folder.resolve()} there are")
        for name, what in (
            ("run.zarr", "the raw run: xs.open_run(...)"),
            ("constants.zarr", "pedestals, gains, noise, status"),
            ("truth.zarr", "what was simulated: rings, delays, pulse energies, bad pixels"),
            ("small.zarr", "per event: azimuthal integrals, region, droplets, projections; xarray opens it"),
            ("cube.zarr", "bins of delay and laser: spectra and images with errors"),
            ("cube.h5", "the same as HDF5"),
            *((("figures/", "average image, difference against delay, droplet spectrum"),) if figures else ()),
        ):
            self.say(f"  {name:<16}{what}")
        self.say(
            f"All of it took {time.perf_counter() - self._start:.0f} s. `xsmall info FILE` says what is in a file."
        )
