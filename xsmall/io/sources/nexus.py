"""What NXmx, CXI and the masters of Eiger detectors say beside their frames: times, mask, beam, geometry.

Nothing is guessed: what has no unit, or one that is not known, is left out by name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from xsmall.detector.geometry.beam import HC
from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.errors import XsmallError
from xsmall.frames.beam import ALWAYS
from xsmall.io.hdf5 import read_whole
from xsmall.io.layout import OWN_LABELS
from xsmall.io.nexus_geometry import nx_class, read_nexus_geometry
from xsmall.vocabulary import DISTANCE, EVENT, GEOMETRY, PIXEL_DIMS, PRESENT

__all__ = ["About", "about", "together"]

_PLACED: Final = (DISTANCE, *ALWAYS)

_JOULE: Final = 1.602176634e-19  # per eV, exact
_LENGTHS: Final = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "cm": 1e-2}
_ENERGIES: Final = {"ev": 1.0, "kev": 1e3, "j": 1 / _JOULE}
_WAVELENGTHS: Final = {"angstrom": 1.0, "a": 1.0, "nm": 10.0, "m": 1e10}
_CXI_GEOMETRY: Final = frozenset(
    ("x_pixel_size", "y_pixel_size", "corner_position", "corner_positions", "basis_vectors", "geometry_1")
)
_CXI_DETECTOR: Final = re.compile(r"instrument_\d+/detector_\d+$")
_NOT_AGAINST: Final = 32 | 2048 | 8192 | 16384
"""Bits of a CXI mask that hold nothing against a pixel: in a peak (32, 8192), corrected (2048, 16384)."""


@dataclass
class About:
    """What a file says of its frames; None where it says nothing."""

    labels: npt.NDArray[Any] | None = None
    pixels: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Labels of segments, rows and columns that are not numbered from 0."""
    usable: npt.NDArray[np.bool_] | None = None
    present: npt.NDArray[np.bool_] | None = None
    """(event, segment), as xsmall wrote it."""
    geometry: Geometry | None = None
    photon_energy: Any = None
    distance: float | None = None
    placed: dict[str, Any] = field(default_factory=dict)
    """How the detector stands to the beam, as xsmall wrote it: one number, or one per event."""
    lost: tuple[str, ...] = ()
    """What ``placed`` ought to say and does not: centre and tilts are written together."""
    left_out: list[str] = field(default_factory=list)

    def cut(self, events: slice, n: int) -> "About":
        """What is said of some of the ``n`` events."""
        out = replace(self, left_out=list(self.left_out))
        out.labels = None if self.labels is None else self.labels[events]
        if np.size(self.photon_energy) == n and np.ndim(self.photon_energy):
            out.photon_energy = self.photon_energy[events]
        out.placed = {name: values[events] if np.ndim(values) else values for name, values in self.placed.items()}
        return out


def together(parts: Sequence[About], sizes: Sequence[int]) -> About:
    """Join what several files say; where they contradict each other nothing is kept, and that is said."""
    first, *others = parts
    if not others:
        return first
    out = About(left_out=list(dict.fromkeys(text for part in parts for text in part.left_out)))
    if all(part.labels is not None for part in parts):
        labels = np.concatenate([part.labels for part in parts if part.labels is not None])
        if np.unique(labels).size == labels.size:
            out.labels = labels
        else:
            out.left_out.append("times: events of these files have the same ones")
    if all(part.photon_energy is not None for part in parts):
        out.photon_energy = _one_or_per_event([part.photon_energy for part in parts], sizes)
    names = {name for part in parts for name in part.placed}
    for name in sorted(names):
        if all(name in part.placed for part in parts):
            out.placed[name] = _one_or_per_event([part.placed[name] for part in parts], sizes)
        else:
            out.left_out.append(f"{name}: not in all files")
    out.lost = tuple(name for name in ALWAYS if name not in out.placed) if names else ()
    labels_of = [{dim: held.tolist() for dim, held in part.pixels.items()} for part in parts]
    if all(held == labels_of[0] for held in labels_of):
        out.pixels = first.pixels
    else:
        out.left_out.append("labels of pixels: differ between the files")
    for name in ("usable", "geometry", "distance"):
        values = [getattr(part, name) for part in parts]
        if all(np.array_equal(value, values[0]) if name == "usable" else value == values[0] for value in values):
            setattr(out, name, values[0])
        else:
            out.left_out.append(f"{name}: differs between the files")
    return out


def _one_or_per_event(values: Sequence[Any], sizes: Sequence[int]) -> Any:
    """One number where all are the same, else one per event."""
    joined = np.concatenate([np.broadcast_to(x, n) for x, n in zip(values, sizes, strict=True)])
    return float(joined[0]) if np.unique(joined).size == 1 else joined


def about(file: Any, path: Path, name: str, shape: tuple[int, ...]) -> About:
    """Collect what an open file says of the frames of a dataset, whose shape is (event, segment, row, column)."""
    found = About()
    cxi = "entry_1" in file
    detector = _detector_group(file, name, found)
    _event_labels(file, path, shape[0], found)
    _pixel_labels(file, path, shape[1:], found)
    _energy_of_events(file, path, shape[0], found, cxi=cxi)
    _own(file, path, shape, found)
    if detector is not None:
        _file_mask((detector, file[name.rsplit("/", 1)[0] or "/"]), path, shape, found, cxi=cxi)
        _distance(detector, found, cxi=cxi)
        if not cxi:
            _file_geometry(detector, path, shape, found)
        elif found.geometry is None and set(detector) & _CXI_GEOMETRY:
            found.left_out.append("geometry: CXI does not say where all pixels are, give it with .sd.assign_geometry")
    return found


def _detector_group(file: Any, name: str, found: About) -> Any:
    """The group of the detector: the one that holds the frames, or the only one."""
    groups: list[Any] = []

    def note(where: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and (nx_class(item) == "NXdetector" or _CXI_DETECTOR.search(where)):
            groups.append(item)

    file.visititems(note)
    frames = file[name]
    holding = [group for group in groups if frames.parent == group or ("data" in group and group["data"] == frames)]
    chosen = holding or groups
    if len(chosen) > 1:
        names = ", ".join(group.name for group in chosen)
        found.left_out.append(f"mask, distance and geometry: the file does not say which of {names} the frames are of")
    return chosen[0] if len(chosen) == 1 else None


def _unit_of_field(item: Any) -> str:
    unit = item.attrs.get("units", "")
    return (unit.decode() if isinstance(unit, bytes) else str(unit)).strip().lower()


# ---- events ---------------------------------------------------------------------------------------------------------


def _event_labels(file: Any, path: Path, n: int, found: About) -> None:
    """Times that CXI files of LCLS carry: seconds and nanoseconds of each event; or labels that xsmall wrote."""
    own = file.get(f"{OWN_LABELS}/{EVENT}")
    if isinstance(own, h5py.Dataset) and own.shape == (n,):
        labels = read_whole(own, path)
        labels = np.array([text.decode() for text in labels]) if labels.dtype.kind == "O" else labels
        if np.unique(labels).size == n:
            found.labels = labels
        else:
            found.left_out.append(f"{own.name}: labels are repeated")
        return
    seconds, rest = file.get("LCLS/machineTime"), file.get("LCLS/machineTimeNanoSeconds")
    if seconds is None or rest is None or seconds.shape != (n,) or rest.shape != (n,):
        return
    times = read_whole(seconds, path).astype(np.int64) * 10**9 + read_whole(rest, path).astype(np.int64)
    if np.unique(times).size == n:
        found.labels = times.astype("M8[ns]")
    else:
        found.left_out.append("LCLS/machineTime: times are repeated")


def _pixel_labels(file: Any, path: Path, shape: tuple[int, ...], found: About) -> None:
    """Labels of pixels that xsmall wrote since the frames are a part of a detector."""
    for dim, n in zip(PIXEL_DIMS, shape, strict=True):
        own = file.get(f"{OWN_LABELS}/{dim}")
        if isinstance(own, h5py.Dataset) and own.shape == (n,) and own.dtype.kind in "iu":
            found.pixels[dim] = read_whole(own, path)


def _own(file: Any, path: Path, shape: tuple[int, ...], found: About) -> None:
    """Geometry, beam and lost segments that xsmall wrote since the format has no place for them."""
    there = file.get(f"{OWN_LABELS}/{PRESENT}")
    if isinstance(there, h5py.Dataset) and there.shape == shape[:2] and there.dtype == bool:
        found.present = read_whole(there, path)
    rule = file.get(f"{OWN_LABELS}/{GEOMETRY}")
    if isinstance(rule, h5py.Dataset):
        try:
            found.geometry = Geometry.from_json(rule.asstr()[()])
        except (XsmallError, TypeError) as error:
            found.left_out.append(f"{rule.name}: {str(error).splitlines()[0]}")
    for name in _PLACED:
        own = file.get(f"{OWN_LABELS}/{name}")
        if isinstance(own, h5py.Dataset) and own.shape in ((), shape[:1]) and own.dtype.kind == "f":
            found.placed[name] = read_whole(own, path)[()]
    if any(f"{OWN_LABELS}/{name}" in file for name in _PLACED):
        found.lost = tuple(name for name in ALWAYS if name not in found.placed)
        found.left_out += [f"{name}: the file has lost it" for name in found.lost]


def _energy_of_events(file: Any, path: Path, n: int, found: About, *, cxi: bool) -> None:
    """Photon energy in eV, one number or one per event."""
    places: list[tuple[str, dict[str, float], str]] = [("LCLS/photon_energy_eV", _ENERGIES, "ev")]
    if cxi:
        places.append(("entry_1/instrument_1/source_1/energy", _ENERGIES, "j"))
    else:
        beams: list[str] = []
        file.visititems(lambda where, item: beams.append(where) if nx_class(item) == "NXbeam" else None)
        if len(beams) > 1:
            found.left_out.append(f"photon energy: of several beams, {', '.join(beams)}")
        for beam in beams if len(beams) == 1 else ():
            places += [(f"{beam}/incident_energy", _ENERGIES, ""), (f"{beam}/incident_wavelength", _WAVELENGTHS, "")]
    for name, units, usual in places:
        item = file.get(name)
        if not isinstance(item, h5py.Dataset):
            continue
        values = np.atleast_1d(read_whole(item, path).astype(np.float64)).ravel()
        factor = units.get(_unit_of_field(item) or usual)
        if factor is None or values.size not in (1, n):
            found.left_out.append(f"{name}: unit {_unit_of_field(item)!r}, {values.size} values")
            continue
        with np.errstate(divide="ignore"):
            energies = values * factor if units is _ENERGIES else HC / (values * factor)
        if found.photon_energy is None:
            found.photon_energy = float(energies[0]) if np.unique(energies).size == 1 else energies
        elif not _agree(energies, found.photon_energy):
            found.left_out.append(f"{name}: {_numbers(energies)} eV, where {_numbers(found.photon_energy)} eV was read")


def _agree(some: npt.NDArray[np.float64], others: Any) -> bool:
    """Whether energies agree to a thousandth: of each event, or one number with the median of the events."""
    if some.size != np.size(others):
        some, others = np.atleast_1d(np.nanmedian(some)), np.nanmedian(others)
    return bool(np.allclose(some, others, rtol=1e-3, equal_nan=True))


def _numbers(values: Any) -> str:
    """One number, or the first and last of several."""
    flat = np.ravel(values)
    return f"{flat[0]:g}" if np.unique(flat).size == 1 else f"{flat[0]:g} ... {flat[-1]:g}"


# ---- pixels ---------------------------------------------------------------------------------------------------------


def _file_mask(groups: Sequence[Any], path: Path, shape: tuple[int, ...], found: About, *, cxi: bool) -> None:
    """The mask of all events, in the group of the detector or, as CXI has it too, beside the frames."""
    names = ("mask",) if cxi else ("pixel_mask", "detectorSpecific/pixel_mask")
    items = [group[name] for group in groups for name in names if isinstance(group.get(name), h5py.Dataset)]
    if not items:
        return
    fitting = [item for item in items if item.size == int(np.prod(shape[1:])) and item.dtype.kind in "iu"]
    if not fitting:
        item = items[0]
        text = f"{item.name}: {item.dtype} {item.shape}, no integers of {shape[1:]}"
        if item.ndim > 2 and item.shape[0] == shape[0]:  # (event, row, column)
            text += f"; masks per event open with xs.open_frames({str(path)!r}, dataset={item.name!r})"
        found.left_out.append(text)
        return
    item = fitting[0]
    bits = read_whole(item, path).reshape(shape[1:])
    found.usable = (bits & ~bits.dtype.type(_NOT_AGAINST)) == 0 if cxi else bits == 0


def _distance(detector: Any, found: About, *, cxi: bool) -> None:
    for name in ("distance", "detector_distance"):
        item = detector.get(name)
        if isinstance(item, h5py.Dataset) and item.size == 1:
            factor = _LENGTHS.get(_unit_of_field(item) or ("m" if cxi else ""))
            if factor is None:
                found.left_out.append(f"{name}: unit {_unit_of_field(item)!r}")
                continue
            found.distance = float(np.ravel(item[()])[0]) * factor
            return


def _file_geometry(detector: Any, path: Path, shape: tuple[int, ...], found: About) -> None:
    """Geometry of NXdetector_module groups, or of one flat panel whose orientation an Eiger master names."""
    if any(isinstance(item, h5py.Group) and nx_class(item) == "NXdetector_module" for item in detector.values()):
        try:
            geometry, beam = read_nexus_geometry(path, detector=detector.name)
        except XsmallError as error:
            found.left_out.append(f"geometry: {str(error).splitlines()[0]}")
            return
        found.distance = beam.distance if beam.distance is not None else found.distance
    else:
        panel = _flat_panel(detector, found, shape)
        if panel is None:
            return
        geometry = Geometry.from_panels([panel])
    if geometry.shape == shape[1:]:
        found.geometry = geometry
    else:
        found.left_out.append(f"geometry: of {geometry.shape} pixels, the frames have {shape[1:]}")


def _flat_panel(detector: Any, found: About, shape: tuple[int, ...]) -> Panel | None:
    """One panel across the beam: orientation, pixel sizes, beam centre and distance have to be there, with units."""
    turn = detector.get("geometry/orientation/value")
    sizes = [detector.get(f"{axis}_pixel_size") for axis in "xy"]
    centre = [detector.get(f"beam_center_{axis}") for axis in "xy"]
    if found.distance is None or not all(isinstance(x, h5py.Dataset) for x in (*sizes, *centre)):
        return None
    if not isinstance(turn, h5py.Dataset) or turn.size != 6 or shape[1] != 1:
        found.left_out.append("geometry: the file does not say how the detector is turned")
        return None
    pixel = [float(np.ravel(s[()])[0]) * _LENGTHS.get(_unit_of_field(s), np.nan) for s in sizes]
    at = [float(np.ravel(c[()])[0]) for c in centre]
    if not np.isfinite(pixel).all() or any(_unit_of_field(c) not in ("pixel", "pixels", "") for c in centre):
        found.left_out.append("geometry: pixel sizes or the beam centre have a unit that is not known")
        return None
    fast, slow = np.reshape(turn[()], (2, 3)).astype(float)
    steps = fast * pixel[0], slow * pixel[1]
    # the centre counts from the outer corner of the first pixel
    first = np.array([0.0, 0.0, found.distance]) - (at[0] - 0.5) * steps[0] - (at[1] - 0.5) * steps[1]
    return Panel(origin=tuple(first), slow=tuple(steps[1]), fast=tuple(steps[0]), shape=(shape[2], shape[3]))
