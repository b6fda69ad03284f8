"""Frames for other programs: CXI for CrystFEL, NXmx for DIALS, both HDF5 for anybody: :func:`save_frames`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall import vocabulary as v
from xsmall.detector.geometry.beam import HC, Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.status_words import status_words
from xsmall.errors import DataError, ParameterError
from xsmall.events.join import of_the_events
from xsmall.events.labels import check_labels, in_utc
from xsmall.frames.beam import ALWAYS, beam_moves, beam_of, measured_energies
from xsmall.frames.describe import describe, usable_segments
from xsmall.io.layout import FRAMES_LAYOUT, FRAMES_NUMBER, OWN_LABELS
from xsmall.io.nexus_geometry import add_nexus_geometry, check_writable, nexus_group
from xsmall.io.stores.write import write

__all__ = ["save_frames"]

JOULE: Final = 1.602176634e-19  # per eV, exact


@dataclass(frozen=True)
class _FrameLayout:
    """Where a format has its frames and masks."""

    data: str
    mask: str
    pixel_mask: str
    convention: str


_CXI: Final = _FrameLayout("/entry_1/data_1", "/entry_1/data_1", "/entry_1/instrument_1/detector_1", "cxi")
_NXMX: Final = _FrameLayout("/entry/data", "/entry/data", "/entry/instrument/detector", "nexus")
_FORMATS: Final[Mapping[str, _FrameLayout]] = {"cxi": _CXI, "nxmx": _NXMX}
_ENDINGS: Final = {".cxi": "cxi", ".nxs": "nxmx", ".nx": "nxmx", ".h5": "nxmx", ".hdf5": "nxmx"}


def save_frames(
    frames: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    mask: xr.DataArray | None = None,
    fill: float | None = None,
    format: str | None = None,  # noqa: A002 # the word that users know
    overwrite: bool = False,
    compress: bool | str = True,
) -> Path:
    """Write raw or calibrated frames, with masks per event, for CrystFEL (CXI), DIALS (NXmx) and whoever reads HDF5.

    Parameters
    ----------
    frames
        Frames (event, segment, row, column), lazy ones are computed once, piece by piece.
    path
        The ending says the format: ``.cxi``, or ``.nxs`` and ``.h5`` (NXmx).
    mask
        Which pixels may be used, True = use, or reasons such as :func:`xsmall.trust` gives (0 = use): (segment, row,
        column) for all events, or (event, segment, row, column), joined by event. What is missing or not finite is
        masked in any case, and so is what the frames' ``usable`` says.
    fill
        Number to write in the place of what may not be used, for programs that read no mask per event. Default: the
        values as they are; NaN stays NaN.
    format
        ``"cxi"`` or ``"nxmx"``, where the ending does not say it.
    overwrite, compress
        As for :func:`xsmall.save`; ``compress`` is True, False or ``"zlib"``.

    Returns
    -------
    The path. Frames are (event, segment, row, column), a chunk each, under ``/entry_1/data_1/data`` (CXI)
    or ``/entry/data/data`` (NXmx). A mask per event, uint32, 0 = use, stands beside them as ``mask``, in the
    bits of the format; the mask that holds for all events is the ``mask`` of the detector (CXI) or its ``pixel_mask``.
    Segments, rows and columns are written in the order of their labels; those of a part come back by
    :func:`~xsmall.open_frames`.
    Times, photon energy (per event too), distance and, in NXmx, the geometry as modules with the beam go along. What
    CXI has no place for, geometry and beam, is written in a group of its own for :func:`~xsmall.open_frames`.

    Raises
    ------
    ParameterError
        An unknown ending or format; something is there and is not to be replaced.
    DataError
        No frames, a mask of other pixels or events, or a part of a detector for NXmx.
    ParameterError
        A beam whose centre or tilts got lost; or, for NXmx with geometry, differ from event to event.
    GeometryError
        Hexagonal pixels, which NXmx cannot say.
    WriteError
        As for :func:`xsmall.save`.

    Notes
    -----
    For CrystFEL write the geometry beside it: ``xs.save_geometry(geometry, "detector.geom", beam=beam)`` fits this
    layout; add ``mask = /entry_1/data_1/mask`` and ``mask_good = 0x0``. DIALS reads the ``pixel_mask`` for all events
    and takes NaN, and what is below ``underload_value`` (written with ``fill``), as not measured.
    Sources: NXmx application definition; Maia, Nature Methods 9, 854 (2012) for CXI.

    Examples
    --------
    >>> import pathlib, tempfile, xsmall as xs
    >>> raw = xs.simulate(6, shape=(2, 32, 64)).run["jungfrau/raw"]
    >>> path = xs.save_frames(raw, pathlib.Path(tempfile.mkdtemp()) / "run42.cxi")
    >>> xs.open_frames(path).shape
    (6, 2, 32, 64)
    """
    frames = _frames_in_order(frames)
    known = describe(frames)
    target = Path(path)
    name = _ENDINGS.get(target.suffix) if format is None else format
    if name is None or name not in _FORMATS:
        raise ParameterError(
            "unknown format of frames",
            found=target.name if format is None else repr(format),
            expected=f"an ending of {', '.join(_ENDINGS)}, or format= of {', '.join(_FORMATS)}",
            fix=f"{target.stem}.cxi",
        )
    layout = _FORMATS[name]
    geometry = known.geometry
    beam = _whole_beam(frames, per_event=name == "cxi" or geometry is None)
    if name == "nxmx" and geometry is not None:
        check_writable(geometry)
        if geometry.shape != frames.shape[1:]:
            raise DataError(
                "these frames are a part of the detector, whose modules they would not fit",
                found=f"{frames.shape[1:]} of {geometry.shape} pixels",
                fix='frames.drop_vars("geometry"), or the whole detector',
            )
    static, per_event = _masks(frames, mask)
    data = frames if fill is None else _filled_unusable(frames, static, per_event, fill)
    nodes = {"/": xr.Dataset(attrs={v.SOURCE: frames.attrs[v.SOURCE]} if v.SOURCE in frames.attrs else {})}
    units = {v.UNITS: str(frames.attrs[v.UNITS])} if v.UNITS in frames.attrs else {}
    _put(nodes, layout.data, "data", xr.Variable(v.FRAME_DIMS, data.data, units))
    if static is not None:
        words = status_words(static.astype(np.uint32), convention=layout.convention)
        _put(nodes, layout.pixel_mask, "mask" if name == "cxi" else "pixel_mask", xr.Variable(v.PIXEL_DIMS, words))
    if per_event is not None:
        words = xr.apply_ufunc(
            partial(status_words, convention=layout.convention),
            per_event.astype(np.uint32),
            dask="parallelized",
            output_dtypes=[np.dtype(np.uint32)],
        )
        _put(nodes, layout.mask, "mask", words.variable)
    about = _FrameLabels(frames, geometry, beam, fill)
    add = about.add_cxi if name == "cxi" else about.add_nxmx
    return write(
        nodes,
        target,
        layout=f"{FRAMES_LAYOUT} {FRAMES_NUMBER}",
        marks={},
        overwrite=overwrite,
        compress=compress,
        whole_events=True,
        chunk_events=1,
        add=add,
    )


def _frames_in_order(frames: xr.DataArray) -> xr.DataArray:
    """Bring segments, rows and columns to the order of their labels, as other programs know places only; times to UTC.

    Raises
    ------
    DataError
        Labels of events that a file of frames has no form for.
    """
    if frames.dims != v.FRAME_DIMS:
        return frames
    if v.EVENT in frames.coords:
        events = in_utc(xr.Dataset(coords={v.EVENT: frames[v.EVENT].variable}))
        check_labels(events, "frames")
        held = events[v.EVENT].values
        held = held.astype("U") if held.dtype.kind == "O" and all(isinstance(x, str) for x in held) else held
        if held.dtype.kind not in "MiufU":
            raise DataError(
                "frames cannot be saved with these labels of events",
                found=held.dtype,
                expected="times, numbers or text",
                fix=f"frames.drop_vars({v.EVENT!r})",
            )
        frames = frames.assign_coords({v.EVENT: held})
    labels = {dim: frames[dim].values for dim in v.PIXEL_DIMS if dim in frames.coords}
    turned = {dim: np.argsort(held) for dim, held in labels.items() if not (np.diff(held) > 0).all()}
    return frames.isel(turned) if turned else frames


def _whole_beam(frames: xr.DataArray, *, per_event: bool) -> Beam:
    """The beam; ``per_event`` says whether there is a place for centres and tilts of each event.

    Raises
    ------
    ParameterError
        Centre or tilts got lost: whoever opens the file would take them for 0.
    """
    beam = beam_of(frames) or Beam()
    moving = {n for n in ALWAYS if n in frames.coords and frames.coords[n].dims == (v.EVENT,)} if per_event else set()
    Beam(lost=tuple(n for n in beam.lost if n not in moving)).need_all()
    return beam


def _put(nodes: dict[str, xr.Dataset], where: str, name: str, x: xr.Variable) -> None:
    nodes[where] = nodes.get(where, xr.Dataset()).assign({name: x})


# ---- masks ----------------------------------------------------------------------------------------------------------


def _masks(frames: xr.DataArray, mask: xr.DataArray | None) -> tuple[npt.NDArray[Any] | None, xr.DataArray | None]:
    """Reasons that hold for all events (segment, row, column), and those of each event; None where there are none."""
    static: npt.NDArray[Any] | None = None
    per_event: xr.DataArray | None = None
    if v.USABLE in frames.coords:
        static = np.where(frames[v.USABLE].values, 0, int(v.Reason.USER)).astype(np.uint32)
    bare = xr.DataArray(frames.data, dims=v.FRAME_DIMS)
    if frames.dtype.kind == "f":
        per_event = _either(np.isfinite(bare), np.uint32(0), np.uint32(v.Reason.NOT_FINITE))
    there = usable_segments(frames)
    if there is not None:
        missing = np.where(there, 0, int(v.Reason.MISSING)).astype(np.uint32)
        gone = xr.DataArray(missing, dims=(v.EVENT, v.SEGMENT))
        whole = xr.zeros_like(bare, dtype=np.uint32) | gone
        per_event = whole if per_event is None else per_event | whole
    if mask is not None:
        flags = _reasons_of_mask(mask, frames)
        if v.EVENT in flags.dims:
            per_event = flags if per_event is None else per_event | flags
        else:
            static = flags.values if static is None else static | flags.values
    if per_event is not None:
        per_event = per_event.transpose(*v.FRAME_DIMS)
        if static is not None:
            per_event = per_event | xr.DataArray(static, dims=v.PIXEL_DIMS)
    return static, per_event


def _reasons_of_mask(mask: xr.DataArray, frames: xr.DataArray) -> xr.DataArray:
    """Bring a mask to the events and pixels of the frames, as reasons, without labels."""
    dims = v.FRAME_DIMS if v.EVENT in mask.dims else v.PIXEL_DIMS
    if set(mask.dims) != set(dims) or mask.dtype.kind not in "biu":
        raise DataError(
            "this is no mask of frames",
            found=f"{mask.dtype} over {mask.dims}",
            expected=f"bool (True = use) or reasons over {v.PIXEL_DIMS} or {v.FRAME_DIMS}",
        )
    for dim in v.PIXEL_DIMS:
        labelled = dim in mask.coords and dim in frames.coords
        if labelled and set(mask[dim].values) == set(frames[dim].values):
            mask = mask.sel({dim: frames[dim]})
        if mask.sizes[dim] != frames.sizes[dim] or (labelled and not np.array_equal(mask[dim], frames[dim])):
            raise DataError(
                f"the mask has other pixels along {dim!r}", found=mask.sizes[dim], expected=frames.sizes[dim]
            )
    if v.EVENT in mask.dims:
        mask = of_the_events(mask, frames, "the mask")
        if mask.sizes[v.EVENT] != frames.sizes[v.EVENT]:
            raise DataError("the mask has other events", found=mask.sizes[v.EVENT], expected=frames.sizes[v.EVENT])
    bare = xr.DataArray(mask.transpose(*dims).data, dims=dims)
    return _either(bare, np.uint32(0), np.uint32(v.Reason.USER)) if bare.dtype == bool else bare.astype(np.uint32)


def _either(condition: Any, one: Any, other: Any) -> xr.DataArray:
    result: xr.DataArray = xr.where(condition, one, other)  # type: ignore[no-untyped-call]
    return result


def _filled_unusable(
    frames: xr.DataArray, static: npt.NDArray[Any] | None, per_event: xr.DataArray | None, fill: float
) -> xr.DataArray:
    """Put a number where a pixel may not be used."""
    value = np.asarray(fill).astype(frames.dtype)
    if float(value) != float(fill):
        raise ParameterError("the frames cannot hold this number", found=f"fill={fill}", expected=str(frames.dtype))
    bad = per_event if per_event is not None else None if static is None else xr.DataArray(static, dims=v.PIXEL_DIMS)
    bare = xr.DataArray(frames.data, dims=v.FRAME_DIMS)
    return bare if bad is None else _either(bad == 0, bare, value).transpose(*v.FRAME_DIMS)


# ---- what the formats say beside frames -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _FrameLabels:
    """What is known of the frames beside their values."""

    frames: xr.DataArray
    geometry: Geometry | None
    beam: Beam
    fill: float | None

    @property
    def energies(self) -> npt.NDArray[np.float64] | None:
        """Photon energy in eV: one number, or one per event, NaN where it was not measured."""
        if v.PHOTON_ENERGY not in self.frames.coords:
            return None
        values = measured_energies(self.frames[v.PHOTON_ENERGY])
        return values if np.isfinite(values).any() else None

    def add_labels(self, file: Any) -> None:
        """Labels of the events: times as CXI files of LCLS have them, anything else in a place of ours; as are the
        labels of pixels that are a part of the detector."""
        for dim in v.PIXEL_DIMS:
            held = self.frames[dim].values  # numbers from 0 where there are no labels
            if held.dtype.kind in "iu" and not np.array_equal(held, np.arange(held.size)):
                file[f"{OWN_LABELS}/{dim}"] = held
        there = usable_segments(self.frames)
        if there is not None:
            file[f"{OWN_LABELS}/{v.PRESENT}"] = there
        if v.EVENT not in self.frames.coords:
            return
        labels = self.frames[v.EVENT].values
        if labels.dtype.kind == "M":
            ns = labels.astype("M8[ns]").astype(np.int64)
            file["LCLS/machineTime"] = ns // 10**9
            file["LCLS/machineTimeNanoSeconds"] = ns % 10**9
        else:
            file[f"{OWN_LABELS}/{v.EVENT}"] = labels.astype(object) if labels.dtype.kind == "U" else labels

    def add_place(self, file: Any) -> None:
        """Where the pixels and the beam are, in a place of ours: the formats have none for all of it."""
        if self.geometry is not None:
            file[f"{OWN_LABELS}/{v.GEOMETRY}"] = self.geometry.to_json()
        for name in (v.DISTANCE, *ALWAYS):
            if name in self.frames.coords:
                file[f"{OWN_LABELS}/{name}"] = np.asarray(self.frames[name].values, np.float64)

    def add_cxi(self, file: Any) -> None:
        """What CXI has: the link to the detector, distance, pixel size, energy in J."""
        self.add_labels(file)
        self.add_place(file)
        file["cxi_version"] = np.int64(150)
        detector = file.require_group("entry_1/instrument_1/detector_1")
        detector["data"] = h5py.SoftLink("/entry_1/data_1/data")
        distance = self.beam.distance if self.beam.distance is not None else self.geometry and self.geometry.distance
        if distance and not beam_moves(self.frames):
            detector["distance"] = float(distance)
        if self.geometry is not None:
            panel = self.geometry.asics()[0]
            detector["x_pixel_size"] = float(np.linalg.norm(panel.fast))
            detector["y_pixel_size"] = float(np.linalg.norm(panel.slow))
        if self.energies is not None:
            file["LCLS/photon_energy_eV"] = self.energies
            file["entry_1/instrument_1/source_1/energy"] = self.energies * JOULE

    def add_nxmx(self, file: Any) -> None:
        """What NXmx asks for: classes, geometry as modules, beam, sample."""
        self.add_labels(file)
        entry = nexus_group(file, "entry", "NXentry")
        entry["definition"] = "NXmx"
        data = nexus_group(entry, "data", "NXdata")
        data.attrs["signal"] = "data"
        instrument = nexus_group(entry, "instrument", "NXinstrument")
        detector = nexus_group(instrument, "detector", "NXdetector")
        detector["description"] = str(self.frames.attrs.get(v.DETECTOR_TYPE, "area detector"))
        if self.fill is not None:
            detector["underload_value"] = float(np.nextafter(np.float32(self.fill), np.float32(np.inf)))
        if self.geometry is not None:
            has_beam = v.DISTANCE in self.frames.coords or v.CENTER_X in self.frames.coords
            add_nexus_geometry(file, self.geometry, self.beam if has_beam else None)
        else:
            self.add_place(file)
        beam = nexus_group(instrument, "beam", "NXbeam")
        energies = self.energies
        if energies is not None:
            for name, values, unit in (
                ("incident_energy", energies, "eV"),
                ("incident_wavelength", HC / energies, "angstrom"),
            ):
                if name in beam:
                    del beam[name]
                beam[name] = values
                beam[name].attrs["units"] = unit
        sample = nexus_group(entry, "sample", "NXsample")
        sample["depends_on"] = "."
