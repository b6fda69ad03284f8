"""Geometry on labelled data, and quantities of its pixels: assigned as coordinates, right on slices."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask import delayed

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.pixel import pixel_array, pixel_array_once, position_array
from xsmall.detector.part import Part
from xsmall.errors import GeometryError
from xsmall.events.labels import Labelled
from xsmall.frames.beam import BEAM_COORDS, beam_moves, beam_of, check_range, measured_energies
from xsmall.frames.positions import check_positions
from xsmall.frames.small import is_lazy
from xsmall.vocabulary import (
    AREA,
    CENTER_X,
    CENTER_Y,
    EVENT,
    GEOMETRY,
    LONG_NAME,
    PHOTON_ENERGY,
    PIXEL_DIMS,
    POSITION,
    RULE,
    SEGMENT,
    UNITS,
    UNITS_OF,
    Q,
)

__all__ = ["assign_geometry", "geometry_of", "pixel"]


def assign_geometry(obj: Labelled, geometry: Geometry, *, partial: bool = False) -> Labelled:
    """Give an array the positions of its pixels.

    Parameters
    ----------
    obj
        DataArray or Dataset with dims ``segment``, ``row``, ``column`` (any others too). Integer labels on these dims
        say which pixels of the detector they are; where there are none the array has to be the whole detector.
    geometry
        Of the whole detector.
    partial
        Rows and columns that count from 0 and stop before those of the geometry are the first ones of this very
        detector. Unless that is said they are taken for a smaller detector, and refused.

    Returns
    -------
    The same data with a scalar coordinate ``geometry`` (value: token, attribute ``rule``: JSON), integer labels, and
    lazy float32 coordinates ``x``, ``y``, ``z`` in m. Nothing is computed; the graph grows by a few kB.

    Raises
    ------
    GeometryError
        Where shape or labels do not fit the geometry.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(2, 3))
    >>> data = xr.DataArray(np.zeros((1, 2, 3)), dims=("segment", "row", "column"))
    >>> data = xs.assign_geometry(data, xs.Geometry.from_panels([panel]))
    >>> (data.x.isel(segment=0, row=1).values * 1000).round(3)
    array([0. , 0.1, 0.2], dtype=float32)
    """
    if not isinstance(geometry, Geometry):
        raise GeometryError("not a geometry", found=type(geometry).__name__, fix="xs.open_geometry(path)")
    if not any(dim in obj.dims for dim in PIXEL_DIMS):
        raise GeometryError("data without pixels", found=f"dims {tuple(obj.dims)}", expected=f"dims {PIXEL_DIMS}")
    coords: dict[str, Any] = dict(_missing_labels(obj, geometry))
    if not partial:
        _check_whole_detector(obj, geometry)
    labelled = obj.assign_coords(coords)
    part = part_of(labelled, geometry)
    token = xr.Variable((), np.int64(geometry.token), {RULE: geometry.to_json(), LONG_NAME: repr(geometry)})
    for name in POSITION:
        array = _cut_part(_lazy_position(geometry, name), part, labelled)
        dims = [dim for dim in PIXEL_DIMS if dim in labelled.dims]
        coords[name] = (dims, array, {UNITS: UNITS_OF[name], LONG_NAME: f"{name} of the pixel centre"})
    return labelled.assign_coords({name: coords[name] for name in POSITION} | {GEOMETRY: token})


def geometry_of(obj: xr.DataArray | xr.Dataset) -> Geometry | None:
    """Geometry that an array carries, of the whole detector also where the array is a slice; None where it has none.

    Raises
    ------
    GeometryError
        Where the rule of the coordinate cannot be read or does not belong to its token.

    Examples
    --------
    >>> import xarray as xr
    >>> from xsmall.frames.pixels import geometry_of
    >>> geometry_of(xr.DataArray(0.0)) is None
    True
    """
    if GEOMETRY not in obj.coords:
        return None
    coord = obj.coords.variables[GEOMETRY]
    if RULE not in coord.attrs or coord.ndim:
        raise GeometryError(
            f"the coordinate {GEOMETRY!r} has lost its rule",
            found=f"dims {coord.dims}, attributes {sorted(map(str, coord.attrs))}",
            expected="a scalar with the rule in its attributes",
            fix="assign_geometry(...) again",
        )
    geometry = Geometry.from_json(coord.attrs[RULE])
    if not is_lazy(coord) and int(coord.values) != geometry.token:
        raise GeometryError("the rule of the geometry is not the one of its token", fix="assign_geometry(...) again")
    return geometry


def pixel(
    obj: xr.DataArray | xr.Dataset, name: str, *, plane: float | None = None, fraction: float | None = None
) -> xr.DataArray:
    """One number per pixel of an array, from its geometry and beam.

    Parameters
    ----------
    obj
        Data with a geometry (:func:`assign_geometry`), whole or sliced; quantities beyond x, y, z, area, radius and
        azimuth need a beam too (:func:`~xsmall.frames.beam.assign_beam`).
    name
        ``x``, ``y``, ``z``, ``radius`` (m), ``azimuth``, ``two_theta`` (degrees), ``q`` (1/angstrom), ``solid_angle``
        (sr), ``polarization``, ``area`` (m2); formulas in :func:`xsmall.detector.geometry.pixel.pixel_array`.
    plane, fraction
        For ``polarization``.

    Returns
    -------
    float64 DataArray over those of ``segment``, ``row``, ``column`` that ``obj`` has, in memory. Where photon energies
    differ from event to event, ``q`` is lazy and has the dim ``event`` too; where distance, centre or tilts do, so has
    all that depends on the beam, made anew for each event (20 ns per pixel); NaN where one of them is.

    Raises
    ------
    GeometryError
        Where there is no geometry, or pixels have lost their labels.
    ParameterError
        For an unknown name, or where the beam lacks a value.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, 1e-2, 0), fast=(1e-2, 0, 0), shape=(2, 3))
    >>> data = xr.DataArray(np.zeros((1, 2, 3)), dims=("segment", "row", "column"))
    >>> data = xs.assign_geometry(data, xs.Geometry.from_panels([panel]))
    >>> xs.pixel(data.isel(row=1, column=slice(0, 2)), "azimuth").values.round(1)
    array([[90., 45.]])
    """
    geometry = need_geometry(obj)
    if name not in (*POSITION, AREA) and beam_moves(obj):
        return _per_event(obj, geometry, name, plane, fraction)
    beam = beam_of(obj)
    energies = obj.coords[PHOTON_ENERGY] if name == Q and PHOTON_ENERGY in obj.coords else None
    if energies is not None and energies.ndim and (beam is None or beam.photon_energy is None):
        return _q_per_event(obj, geometry, beam or Beam(), energies)
    whole = pixel_array(geometry, beam, name, plane=plane, fraction=fraction)
    return _labelled_pixels(obj, geometry, whole, name)


def need_geometry(obj: xr.DataArray | xr.Dataset) -> Geometry:
    """Geometry of ``obj``, or the error that says how to give it one."""
    geometry = geometry_of(obj)
    if geometry is None:
        raise GeometryError(
            "these data have no geometry",
            found="none was assigned, or two arrays of different geometries were combined, which drops it",
            fix=".sd.assign_geometry(xs.open_geometry(path))",
        )
    check_pixels(obj, geometry)
    return geometry


# ---- labels -------------------------------------------------------------------------------------------------------


def _missing_labels(obj: xr.DataArray | xr.Dataset, geometry: Geometry) -> dict[str, npt.NDArray[np.int64]]:
    """Labels that are missing, for dims that are whole."""
    made: dict[str, npt.NDArray[np.int64]] = {}
    for dim, size in zip(PIXEL_DIMS, geometry.shape, strict=True):
        if dim in obj.coords:
            _check_pixel_labels(dim, obj.coords.variables[dim], size)
        elif dim not in obj.dims:
            raise GeometryError(
                f"data without {dim!r}",
                found=f"dims {tuple(obj.dims)}",
                expected=f"dims {PIXEL_DIMS}; where one was selected its label stays as a scalar coordinate",
            )
        elif obj.sizes[dim] != size:
            raise GeometryError(
                "the geometry is of another detector, or the data are a part without labels",
                found=f"{dim} of {obj.sizes[dim]}",
                expected=f"{size}: the geometry is {dict(zip(PIXEL_DIMS, geometry.shape, strict=True))}",
                fix="assign the geometry before cutting, or give integer coordinates on segment, row and column",
            )
        else:
            made[dim] = np.arange(size)
    return made


def _check_whole_detector(obj: xr.DataArray | xr.Dataset, geometry: Geometry) -> None:
    """Refuse the geometry of a larger detector: rows 0 to n - 1 are as likely a whole smaller one as a slice."""
    if geometry_of(obj) == geometry:
        return
    for dim, size in zip(PIXEL_DIMS, geometry.shape, strict=True):
        known = obj.coords[dim].values if dim in obj.dims and dim in obj.coords and dim != SEGMENT else np.empty(0)
        if 1 < known.size < size and np.array_equal(known, np.arange(known.size)):
            raise GeometryError(
                "the geometry is of a larger detector, or the data are the first part of it",
                found=f"{dim} 0 to {known.size - 1}",
                expected=f"{size} {dim}s, as the geometry has",
                fix="assign the geometry before cutting, or .sd.assign_geometry(geometry, partial=True) for a part",
            )


def check_pixels(obj: xr.DataArray | xr.Dataset, geometry: Geometry) -> None:
    """Raise where labels of pixels are none of this geometry's, or lack, or positions are not those of the geometry."""
    for dim, size in zip(PIXEL_DIMS, geometry.shape, strict=True):
        if dim in obj.coords:
            _check_pixel_labels(dim, obj.coords.variables[dim], size)
        elif dim in obj.dims and obj.sizes[dim] != size:
            raise GeometryError(
                f"a part of a detector has lost its labels along {dim!r}",
                found=f"{obj.sizes[dim]} of {size}, without a coordinate {dim!r}",
                expected="integer labels that say which part it is",
                fix=f"keep the coordinate {dim!r}: drop_vars({dim!r}) and reset_index lose it",
            )
    check_positions(obj, geometry)


def _check_pixel_labels(dim: str, labels: xr.Variable, size: int) -> None:
    values = labels.values
    whole_numbers = np.issubdtype(values.dtype, np.integer)
    if not whole_numbers or labels.ndim > 1 or (values.size and (values.min() < 0 or values.max() >= size)):
        found = f"dtype {values.dtype}"
        if whole_numbers and values.size:
            found = f"{values.min()} to {values.max()}"
        raise GeometryError(
            f"labels of {dim} do not fit the geometry",
            found=found,
            expected=f"integers from 0 to {size - 1}",
            fix=None if whole_numbers else "image() or a mean per bin of q instead of coarsen(): pixels have no halves",
        )


def part_of(obj: xr.DataArray | xr.Dataset, geometry: Geometry) -> Part:
    """Which pixels of the detector of ``geometry`` these are."""
    for dim in PIXEL_DIMS:
        if dim not in obj.coords and dim not in obj.dims:
            raise GeometryError(
                f"the pixels have lost their {dim}",
                found=f"dims {tuple(obj.dims)}",
                expected=f"a label on {dim}",
                fix=f"ask before averaging or selecting over {dim}",
            )
    return Part.of(obj).within(geometry.shape)


def _cut_part(whole: Any, part: Part, obj: xr.DataArray | xr.Dataset) -> Any:
    """The part out of an array (segment, row, column) of the whole detector, over those of these dims that it has."""
    array = part.take(whole)
    return array[tuple(slice(None) if dim in obj.dims else 0 for dim in PIXEL_DIMS)]


def _labelled_pixels(
    obj: xr.DataArray | xr.Dataset, geometry: Geometry, whole: npt.NDArray[Any], name: str
) -> xr.DataArray:
    """Pixels of ``obj`` out of an array of the whole detector, with labels and units."""
    values = _cut_part(whole, part_of(obj, geometry), obj)
    dims = [dim for dim in PIXEL_DIMS if dim in obj.dims]
    coords = {dim: obj.coords[dim] for dim in PIXEL_DIMS} | {GEOMETRY: obj.coords[GEOMETRY]}
    return xr.DataArray(values, dims=dims, coords=coords, name=name, attrs={UNITS: UNITS_OF[name]})


# ---- values -------------------------------------------------------------------------------------------------------


def _position(rule: str, name: str) -> npt.NDArray[np.float32]:
    """x, y or z of all pixels, from the JSON of a geometry: dask would take a dataclass of tuples apart."""
    return position_array(Geometry.from_json(rule), name)


def _lazy_position(geometry: Geometry, name: str) -> da.Array:
    """One chunk whose name says detector and coordinate, so that xarray finds two of them equal without computing."""
    key = f"xsmall-{name}-{geometry.token:016x}"
    task = delayed(_position, pure=True, traverse=False)(geometry.to_json(), name, dask_key_name=f"{key}-rule")
    return da.from_delayed(task, geometry.shape, dtype=np.float32, name=key)


def _per_event(
    obj: xr.DataArray | xr.Dataset,
    geometry: Geometry,
    name: str,
    plane: float | None,
    fraction: float | None,
) -> xr.DataArray:
    """A quantity made anew for the beam of each event; lazy, a block of events at a time."""
    beam = beam_of(obj)
    if beam is not None:
        Beam(lost=tuple(n for n in beam.lost if n not in obj.coords)).need_all()
    names = [n for n in BEAM_COORDS if n in obj.coords]
    n_events = obj.sizes[EVENT]
    beams = np.stack([np.broadcast_to(obj.coords[n].values.astype(np.float64), n_events) for n in names], axis=1)
    one = _labelled_pixels(obj, geometry, np.broadcast_to(0.0, geometry.shape), name)
    block = max(1, (1 << 26) // max(1, one.nbytes))
    data = da.map_blocks(
        _of_beams,
        da.from_array(beams, chunks=(block, -1)),
        rule=geometry.to_json(),
        names=names,
        quantity=(name, plane, fraction),
        part=part_of(obj, geometry),
        kept=tuple(slice(None) if dim in obj.dims else 0 for dim in PIXEL_DIMS),
        dtype=np.float64,
        drop_axis=1,
        new_axis=list(range(1, 1 + one.ndim)),
        chunks=((*(block,) * (n_events // block), *((n_events % block,) if n_events % block else ())), *one.shape),
        meta=np.empty((0,) * (1 + one.ndim)),
    )
    coords: dict[Any, Any] = dict(one.coords)
    if EVENT in obj.coords:
        coords[EVENT] = obj.coords[EVENT]
    return xr.DataArray(data, dims=(EVENT, *one.dims), coords=coords, name=name, attrs=one.attrs)


def _of_beams(
    beams: npt.NDArray[np.float64],
    *,
    rule: str,
    names: list[str],
    quantity: tuple[str, float | None, float | None],
    part: Part,
    kept: tuple[Any, ...],
) -> npt.NDArray[np.float64]:
    geometry = Geometry.from_json(rule)
    pictures = []
    for row in beams:
        values: dict[str, Any] = {n: float(v) for n, v in zip(names, row, strict=True)}
        if np.isnan(row).any():
            pictures.append(np.full(part.shape, np.nan)[kept])
            continue
        center = (values.pop(CENTER_X, 0.0), values.pop(CENTER_Y, 0.0))
        pictures.append(part.take(pixel_array_once(geometry, Beam(center=center, **values), *quantity))[kept])
    return np.stack(pictures)


def _q_per_event(
    obj: xr.DataArray | xr.Dataset, geometry: Geometry, beam: Beam, energies: xr.DataArray
) -> xr.DataArray:
    """q of each event: q of 1 keV, made once, times the energy; lazy, a block of events at a time."""
    if energies.chunks is None:
        measured = measured_energies(energies)
        if np.isnan(measured).all():
            check_range(PHOTON_ENERGY, np.asarray(energies.values, dtype=np.float64))
        energies = energies.copy(data=measured)
    at_1_kev = pixel_array(geometry, beam.replace(photon_energy=1000.0), Q)
    q = _labelled_pixels(obj, geometry, at_1_kev, Q)
    lazy = q.copy(data=da.from_array(q.values, chunks=q.shape, name=False))
    block = max(1, (1 << 26) // max(1, q.nbytes))
    relative = (energies.astype(np.float64) / 1000.0).drop_vars(PHOTON_ENERGY).chunk({EVENT: block})
    per_event = (relative * lazy).transpose(EVENT, ...).rename(Q)
    per_event.attrs = {UNITS: UNITS_OF[Q]}
    return per_event
