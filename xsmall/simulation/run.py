"""The simulated run as labelled data: :func:`simulate` and what it returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall import vocabulary as v
from xsmall.calibration.constants import constants
from xsmall.engine.flagged import flagged
from xsmall.errors import ParameterError
from xsmall.io.run_tree import RunTree
from xsmall.simulation.detector import Tables, geometry_of, layout, tables
from xsmall.simulation.frames import SimulatedFrames, counts_of_photons, photons_of
from xsmall.simulation.recipe import (
    REPETITION_RATE,
    SimulatedEvents,
    SimulatedScan,
    event_variables,
    profile,
    response_to,
)

if TYPE_CHECKING:
    from xsmall.detector.geometry.beam import Beam
    from xsmall.detector.geometry.geometry import Geometry

__all__ = ["DETECTOR", "MOTOR", "Simulation", "simulate"]

DETECTOR: Final = "jungfrau"  # name of the node, and type of the detector
MOTOR: Final = v.SCAN_PREFIX + "laser_delay"
CHUNK_BYTES: Final = 32 * 2**20
_FAULTS: Final = (v.Reason.DEAD, v.Reason.HOT, v.Reason.BAD_GAIN_CODE)  # of its pixels; words of status are reasons


@dataclass(frozen=True, repr=False)
class Simulation:
    """A simulated run and the truth it was made from; see :func:`simulate`.

    Attributes
    ----------
    recipe
        All numbers of the simulation.
    chunks
        Events per dask chunk of the raw frames.
    """

    recipe: SimulatedScan
    chunks: int

    def __repr__(self) -> str:
        recipe = self.recipe
        pixels = " x ".join(map(str, recipe.shape))
        return (
            f"<Simulation: {recipe.n_events} events of {pixels} pixels, {recipe.scan} scan, seed {recipe.seed}; "
            "has .run, .constants, .geometry, .beam, .truth>"
        )

    @cached_property
    def _events(self) -> SimulatedEvents:
        return event_variables(self.recipe, 0, self.recipe.n_events)

    @cached_property
    def run(self) -> xr.DataTree:
        """The run as a reader would give it: nodes ``events`` and ``jungfrau``, the frames lazy."""
        events = self._event_dataset()
        raw = self._raw().assign_coords({name: events[name] for name in events.data_vars})
        return RunTree.from_dict({f"/{v.EVENTS_NODE}": events, f"/{DETECTOR}": raw.to_dataset(name=v.RAW)})

    @cached_property
    def constants(self) -> xr.Dataset:
        """Constants over (gain_stage, segment, row, column): ``pedestal``, ``noise``, ``gain``, ``offset``, ``status``.

        They are the true ones; ``status`` is set in every gain stage of a dead, hot or bad-code pixel.
        """
        table, shape = self._tables, (3, *self.recipe.shape)
        out = constants(
            DETECTOR,
            table.pedestal.reshape(shape),
            noise=table.noise.reshape(shape),
            gain=table.gain.reshape(shape),
            offset=np.zeros(shape, np.float32),
            status=np.broadcast_to(table.reasons.reshape(self.recipe.shape), shape),
            source="simulation",
        )
        out[v.STATUS].attrs |= {
            v.FLAG_MASKS: [int(reason) for reason in _FAULTS],
            v.FLAG_MEANINGS: " ".join(v.reason_names(sum(_FAULTS))),
        }
        return out

    @cached_property
    def geometry(self) -> Geometry:
        """Where the pixels are."""
        return geometry_of(self.recipe)

    @cached_property
    def beam(self) -> Beam:
        """Photon energy, distance and centre of the beam."""
        from xsmall.detector.geometry.beam import Beam

        return Beam(photon_energy=self.recipe.photon_energy, distance=layout(self.recipe).distance, center=(0.0, 0.0))

    @cached_property
    def truth(self) -> xr.Dataset:
        """What is behind the data.

        Rings: ``ring_q``, ``ring_width`` (1/angstrom), ``ring_photons`` (per pixel at the top for ``i0`` = 1),
        ``ring_change`` and ``ring_shift`` (for a response of 1). Events: true ``delay``, ``jitter``, ``i0``,
        ``response``, ``n_photons`` (event, segment) of single photons. Pixels: ``reasons``, the bad pixels as flags.
        All numbers of the recipe are attributes.
        """
        events, recipe = self._events, self.recipe
        rings = {
            name: (v.RING, np.array([getattr(ring, field) for ring in recipe.rings], dtype=np.float64))
            for name, field in (
                (v.RING_Q, "q"),
                (v.RING_WIDTH, "width"),
                (v.RING_PHOTONS, "photons"),
                (v.RING_CHANGE, "change"),
                (v.RING_SHIFT, "shift"),
            )
        }
        return xr.Dataset(
            {
                **rings,
                v.DELAY: (v.EVENT, events.true_delay, {v.UNITS: v.PICOSECOND}),
                v.JITTER: (v.EVENT, events.jitter, {v.UNITS: v.PICOSECOND}),
                v.I0: (v.EVENT, events.pulse),
                v.RESPONSE: (v.EVENT, events.response),
                v.N_PHOTONS: ((v.EVENT, v.SEGMENT), counts_of_photons(recipe, 0, events.pulse)),
                v.REASONS: (v.PIXEL_DIMS, self._tables.reasons.reshape(recipe.shape)),
            },
            coords={v.EVENT: self._times(), **self._labels()},
            attrs={name: value for name, value in vars(recipe).items() if name not in ("rings", "spots")},
        )

    def profile(self, q: npt.ArrayLike, response: float = 0.0) -> npt.NDArray[np.float64]:
        """Return the true mean of a pixel at ``q`` in keV, for a pulse energy of 1.

        Parameters
        ----------
        q
            Momentum transfer in 1/angstrom, any shape.
        response
            Response of the sample to the laser, as :meth:`response` or ``truth["response"]`` give it.

        Returns
        -------
        Powder pattern and fluorescence, of the shape of ``q``; Bragg spots come on top of it.

        Examples
        --------
        >>> import xsmall as xs
        >>> xs.simulate(10).profile(0.8).round(1)
        np.float64(434.7)
        """
        mean, change = profile(self.recipe, q)
        photons = mean + response * change
        fluorescence = self.recipe.line_density * self.recipe.line_energy
        return (photons * self.recipe.photon_energy + fluorescence) * 1e-3

    def response(self, delay: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the true response of the sample at a delay in ps, of the shape of ``delay``.

        A step at ``t0`` that decays with ``decay``, convolved with a Gaussian of rms ``rise`` (all in ps).

        Examples
        --------
        >>> import xsmall as xs
        >>> xs.simulate(10).response([-1.0, 0.3, 1.8]).round(3)
        array([0.   , 0.474, 0.369])
        """
        return response_to(self.recipe, delay)

    def photons(self, event: int) -> xr.Dataset:
        """Return the single photons of one event: ``segment``, and ``row``, ``column`` in pixels from its corner.

        A photon at row 3.5 fell onto the middle of row 3. Photons that met a missing segment are listed as well.

        Parameters
        ----------
        event
            Number of the event.

        Returns
        -------
        Dataset over ``photon``: ``segment`` int64, ``row`` and ``column`` float64.
        """
        segment, place = photons_of(self.recipe, range(self.recipe.n_events)[event])
        return xr.Dataset(
            {
                v.SEGMENT: (v.PHOTON, segment),
                v.ROW: (v.PHOTON, place[:, 0]),
                v.COLUMN: (v.PHOTON, place[:, 1]),
            },
            attrs={v.PHOTON_ENERGY: self.recipe.line_energy},
        )

    @property
    def _tables(self) -> Tables:
        return tables(self.recipe)

    def _labels(self) -> dict[str, npt.NDArray[np.int64]]:
        return {dim: np.arange(n) for dim, n in zip(v.PIXEL_DIMS, self.recipe.shape, strict=True)}

    def _times(self) -> npt.NDArray[np.datetime64]:
        period = round(1e9 / REPETITION_RATE)
        return self.recipe.start + (self._events.number * period).astype("timedelta64[ns]")

    def _raw(self) -> xr.DataArray:
        source = SimulatedFrames(self.recipe)
        lazy = da.from_array(
            source,
            chunks=(self.chunks, *self.recipe.shape),
            name=f"simulated-{self.recipe.token}-{self.chunks}",
            asarray=False,
            meta=np.empty((0,) * 4, dtype=source.dtype),
        )
        return xr.DataArray(
            flagged(lazy, self._events.present, None),
            dims=v.FRAME_DIMS,
            coords={
                v.EVENT: self._times(),
                v.PRESENT: ((v.EVENT, v.SEGMENT), self._events.present),
                **self._labels(),
            },
            attrs={v.DETECTOR_TYPE: DETECTOR, v.UNITS: v.ADU, v.DETECTOR_SHAPE: list(self.recipe.shape)},
        )

    def _event_dataset(self) -> xr.Dataset:
        events = self._events
        values: dict[str, npt.NDArray[Any]] = {
            v.I0: events.i0,
            v.LASER_ON: events.laser_on,
            v.XRAY_ON: events.xray_on,
            v.DELAY: events.delay,
            v.TT_POSITION: events.tt_position,
            v.TT_AMPLITUDE: events.tt_amplitude,
            v.TT_FWHM: events.tt_fwhm,
            MOTOR: events.nominal,
            v.STEP: events.step,
        }
        units = {**v.UNITS_OF, MOTOR: v.PICOSECOND, v.I0: v.DIMENSIONLESS}
        data = {n: (v.EVENT, x, {v.UNITS: units[n]} if n in units else {}) for n, x in values.items()}
        data[v.DELAY][2][v.TIME_TOOL] = v.TT_POSITION  # corrected
        return xr.Dataset(data, coords={v.EVENT: self._times()})


def simulate(
    n_events: int = 1000,
    *,
    shape: tuple[int, int, int] = (4, 128, 256),
    seed: int = 0,
    scan: Literal["step", "fly"] = "step",
    delay_range: tuple[float, float] = (-2.0, 5.0),
    n_steps: int | None = None,
    laser_off_every: int = 3,
    xray_off_every: int = 50,
    delay_jitter: float = 0.1,
    i0_jitter: float = 0.12,
    photon_energy: float = 9500.0,
    line_density: float = 0.002,
    missing: float = 0.005,
    chunks: int | None = None,
) -> Simulation:
    """Simulate a pump-probe run of a JUNGFRAU-like detector, lazily, with its truth.

    Powder rings, some Bragg spots and single photons of a weaker energy fall onto a detector with pedestals, noise,
    three gain stages that switch, dead, hot and bad-code pixels and missing segments. The rings change with the delay
    of a laser that is off in some shots. Pulse energy and arrival time jitter; a time tool measures the latter, and
    fails at times.

    Parameters
    ----------
    n_events
        Number of events, 0 or more.
    shape
        Segments, rows and columns; the detector of a whole experiment is (8, 512, 1024).
    seed
        Which of all possible runs; the same seed gives the same bits, however the run is cut or computed. Runs of
        other seeds are taken on other days.
    scan
        ``"step"``: ``n_steps`` delays one after the other; ``"fly"``: one sweep of the delay forth and back.
    delay_range
        First and last delay in ps.
    n_steps
        Steps of a step scan, 15 where nothing is said.
    laser_off_every
        Every how many events the laser is off; 0: never, 1: always.
    xray_off_every
        Every how many events there are no X-rays; 0: never.
    delay_jitter
        Arrival jitter of the laser in ps, rms.
    i0_jitter
        Relative jitter of the pulse energy, rms.
    photon_energy
        Photon energy in eV.
    line_density
        Single photons of 6.4 keV per pixel, for a pulse energy of 1.
    missing
        Chance of a segment to be missing in an event.
    chunks
        Events per dask chunk; by default chunks of about 32 MB.

    Returns
    -------
    :class:`Simulation` with ``run`` (DataTree with the nodes ``events`` and ``jungfrau``), ``constants``,
    ``geometry``, ``beam`` and ``truth``.

    Raises
    ------
    ParameterError
        An invalid number.

    Notes
    -----
    Costs a few ms and the event variables, about 150 bytes per event; frames are made when computed, at some
    90 million pixels per second and core. Above 8 photons per pixel Poisson numbers come from their Cornish-Fisher
    expansion; below, they are exact. Single photons are spread by a Gaussian charge cloud of 0.12 pixels.

    Examples
    --------
    >>> import xsmall as xs
    >>> simulation = xs.simulate(100, shape=(2, 64, 128), seed=1)
    >>> raw = simulation.run["jungfrau"]["raw"]
    >>> raw.shape, str(raw.dtype)
    ((100, 2, 64, 128), 'uint16')
    >>> int(raw[3].max().compute()) > 3000
    True
    """
    if scan == "fly" and n_steps is not None:
        raise ParameterError("a fly scan has no steps", found=f"n_steps={n_steps}", fix="leave n_steps out")
    recipe = SimulatedScan(
        n_events=n_events,
        shape=tuple(shape),  # type: ignore[arg-type]
        seed=seed,
        scan=scan,
        delay_range=tuple(delay_range),  # type: ignore[arg-type]
        n_steps=15 if n_steps is None else n_steps,
        laser_off_every=laser_off_every,
        xray_off_every=xray_off_every,
        delay_jitter=delay_jitter,
        i0_jitter=i0_jitter,
        photon_energy=photon_energy,
        line_density=line_density,
        missing=missing,
    )
    _check_scan(recipe, chunks)
    if chunks is None:
        chunks = max(1, CHUNK_BYTES // (2 * recipe.pixels))
    return Simulation(recipe, max(1, min(chunks, max(n_events, 1))))


def _check_scan(recipe: SimulatedScan, chunks: int | None) -> None:
    """Refuse invalid numbers."""
    whole = {
        "n_events": (recipe.n_events, 0),
        "n_steps": (recipe.n_steps, 1),
        "laser_off_every": (recipe.laser_off_every, 0),
        "xray_off_every": (recipe.xray_off_every, 0),
        "chunks": (1 if chunks is None else chunks, 1),
        **{f"shape[{i}]": (n, 1) for i, n in enumerate(recipe.shape)},
    }
    for name, (number, least) in whole.items():
        if isinstance(number, bool | str) or number != int(number) or number < least:
            raise ParameterError(
                f"{name} has to be a whole number",
                found=repr(number),
                expected=f"an int >= {least}",
                fix="shape=(4, 128, 256)" if "[" in name else f"{name}={1000 if name == 'n_events' else 8}",
            )
    if len(recipe.shape) != 3:
        raise ParameterError(
            "shape is not that of a detector",
            found=recipe.shape,
            expected="segments, rows, columns",
            fix="shape=(4, 128, 256)",
        )
    if recipe.scan not in ("step", "fly"):
        raise ParameterError("unknown kind of scan", found=repr(recipe.scan), expected='"step" or "fly"')
    low, high = recipe.delay_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ParameterError("delay_range is not a range", found=recipe.delay_range, expected="(first, last) in ps")
    if not 1000.0 <= recipe.photon_energy <= 100e3:
        raise ParameterError(
            "photon_energy is out of range",
            found=recipe.photon_energy,
            expected="1000 to 100000 eV",
            fix="give it in eV, such as photon_energy=9500",
        )
    small = {"delay_jitter": recipe.delay_jitter, "i0_jitter": recipe.i0_jitter, "line_density": recipe.line_density}
    for name, value in {**small, "missing": recipe.missing}.items():
        limit = 1.0 if name != "delay_jitter" else 1000.0
        if not 0.0 <= value <= limit:
            raise ParameterError(f"{name} is out of range", found=value, expected=f"0 to {limit:g}")
