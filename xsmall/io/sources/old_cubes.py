"""Cubes that smalldata_tools wrote, of LCLS-I and LCLS-II: :func:`open_cube`.

Their files hold sums over the events of a bin and how many events there were, without attributes. A sum left out what
was not finite, and the number of events did not: of a sum of small data no mean can be made that is right for certain.
"""

import os
from pathlib import Path
from typing import Any, Final

import dask.array as da
import h5py
import numpy as np
import xarray as xr
from dask.base import tokenize

from xsmall import vocabulary as v
from xsmall.errors import FileFormatError
from xsmall.io.files import identify, names_its_file
from xsmall.io.hdf5 import check_filters, open_hdf5, read_whole
from xsmall.io.sources.hdf5_array import Hdf5Array
from xsmall.io.sources.source import RunSpec

__all__ = ["open_cube"]

_ENTRIES: Final = "nEntries"
_STEP: Final = "step_value"
_LAZY: Final = 64 * 2**20
_BIN, _ROW = "bin", "row_of_label"


@names_its_file
def open_cube(path: str | os.PathLike[str]) -> xr.DataTree:
    """Open a cube of smalldata_tools: ``Cube_*.h5`` of LCLS-I, or ``cube_*.h5`` of LCLS-II.

    Parameters
    ----------
    path
        The file. Cubes of xsmall are opened with :func:`xsmall.open_result`, or plain xarray.

    Returns
    -------
    DataTree. LCLS-I: the root over ``bin`` (labelled by the lower border), or over a dim for each variable that was
    binned by; LCLS-II: the root over ``step_value``, and a node for each label, such as ``laser_on``.
    ``count`` (bin): events in it. ``<name>_sum``: sums of small data, as they stand in the file. ``<detector>``: mean
    of the images, NaN without events, beside ``<detector>_count`` (LCLS-I, where images are counted by themselves).
    ``bin_mean`` is the mean of the variable that was binned by, ``<name>_std`` a spread that the file has. Images are
    lazy. ``config/<detector>`` holds what the file knows of the detector.

    Raises
    ------
    FileFormatError
        No such file, or no cube.

    Notes
    -----
    Errors of a mean are not in these files. Where small data were missing in some events, the sum over ``count`` is too
    small: the files do not say how often. In cubes of LCLS-II a label that had no event in some step has fewer rows
    than there are steps, and the file does not say which: its dim is then ``row_of_label``, without labels.

    Examples
    --------
    >>> import h5py, numpy as np, pathlib, tempfile, xsmall as xs
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "Cube_xpp_Run0007_delay_on.h5"
    >>> with h5py.File(path, "w") as file:
    ...     file["binVar_bins"], file["nEntries"] = [0.0, 0.1], [4, 2]
    ...     file["ipm2__sum"] = [8.0, 3.0]
    >>> cube = xs.open_cube(path).to_dataset()
    >>> (cube["ipm2__sum_sum"] / cube["count"]).values.tolist()
    [2.0, 1.5]
    """
    spec = RunSpec.of(path)
    if spec.path is None:
        raise FileFormatError(f"{spec.given}: a cube is one file", found=f"{len(spec.paths)} paths")
    if spec.path.is_dir():
        raise _no_cube(spec.path, "a folder")
    with open_hdf5(spec.path) as file:
        if _ENTRIES in file:
            nodes = _lcls1(file, spec.path)
        elif _STEP in file:
            nodes = _lcls2(file, spec.path)
        else:
            raise _no_cube(spec.path, ", ".join(sorted(file)[:8]) or "an empty file")
    nodes["/"].attrs[v.SOURCE] = str(spec.path)
    return xr.DataTree.from_dict(nodes)


def _no_cube(path: Path, found: str) -> FileFormatError:
    return FileFormatError(
        f"{path}: this is no cube of smalldata_tools",
        found=found,
        expected="an HDF5 file with nEntries (LCLS-I) or step_value (LCLS-II)",
        fix=f"xs.open_result({str(path)!r}) for cubes of xsmall; `xsmall info {path.name}`",
    )


# ---- LCLS-I ---------------------------------------------------------------------------------------------------------


def _lcls1(file: Any, path: Path) -> dict[str, xr.Dataset]:
    count = read_whole(file[_ENTRIES], path)
    axes, coords, left_out = _bin_axes(file, path, count.shape)
    variables = {v.COUNT: xr.Variable(axes, count)}
    detectors = [n.removesuffix(f"_{_ENTRIES}") for n in file if n.endswith(f"_{_ENTRIES}")]
    images = {f"{d}_data": d for d in detectors if f"{d}_data" in file}
    for name, item in file.items():
        if not isinstance(item, h5py.Dataset) or name in (_ENTRIES, "binVar", "binVar_bins"):
            continue
        if name.startswith("bins_") or name.endswith(f"_{_ENTRIES}"):
            continue
        if item.dtype.kind not in "iuf" or item.shape[: count.ndim] != count.shape:
            if name != "cubeSelection":
                left_out.append(f"{name}: {item.dtype} {item.shape}")
            continue
        dims = (*axes, *(f"{name}_{k}" for k in range(item.ndim - count.ndim)))
        if name in images:
            number = read_whole(file[f"{images[name]}_{_ENTRIES}"], path)
            data, detector = _lazy_values(item, path), images[name]
            counts = number.reshape(number.shape + (1,) * (item.ndim - number.ndim))
            mean = data / np.where(counts > 0, counts, np.nan)
            variables[detector] = xr.Variable(dims, mean, {v.LONG_NAME: f"mean of {detector}"})
            variables[f"{detector}{v.COUNT_SUFFIX}"] = xr.Variable(dims[: number.ndim], number)
        elif any(name.startswith(f"{d}_") for d in images.values()):
            variables[name] = xr.Variable(
                dims, _lazy_values(item, path), {v.LONG_NAME: "made of the sum of the images"}
            )
        elif name.startswith("std_"):
            variables[f"{name.removeprefix('std_')}{v.STD_SUFFIX}"] = xr.Variable(dims, _lazy_values(item, path))
        else:
            variables[f"{name}_{v.SUM}"] = xr.Variable(dims, _lazy_values(item, path))
    if "binVar" in file and file["binVar"].shape == count.shape:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = read_whole(file["binVar"], path) / np.where(count > 0, count, np.nan)
            variables[f"{_BIN}{v.MEAN_SUFFIX}"] = xr.Variable(axes, mean)
    attrs = {v.LEFT_OUT: "; ".join(left_out)} if left_out else {}
    selection = file.get("cubeSelection")
    if isinstance(selection, h5py.Dataset):
        attrs["selection"] = "; ".join(_text_lines(selection[()]))
    nodes = {"/": xr.Dataset(variables, coords, attrs)}
    for detector in images.values():
        group = file.get(f"{detector}_cfg")
        if isinstance(group, h5py.Group):
            kept = {n: x for n, x in group.items() if isinstance(x, h5py.Dataset) and x.dtype.kind in "biuf"}
            made = {n: ([f"{n}_{k}" for k in range(x.ndim)], read_whole(x, path)) for n, x in kept.items()}
            nodes[f"/{v.CONFIG_NODE}/{detector}"] = xr.Dataset(made)
    return nodes


def _text_lines(value: Any) -> list[str]:
    return [x.decode(errors="replace") if isinstance(x, bytes) else str(x) for x in np.atleast_1d(value).ravel()]


def _bin_axes(file: Any, path: Path, shape: tuple[int, ...]) -> tuple[tuple[str, ...], dict[str, Any], list[str]]:
    """Dims of the bins and their labels; where sizes do not tell which axis is which, there are none."""
    if len(shape) == 1:
        name = "binVar_bins" if "binVar_bins" in file else next((n for n in file if n.startswith("bins_")), None)
        values = None if name is None else read_whole(file[name], path)
        known = values is not None and values.shape == shape
        return (_BIN,), {_BIN: (_BIN, values, {v.LONG_NAME: "lower border of the bin"})} if known else {}, []
    labels = {n: read_whole(file[n], path) for n in file if n.startswith("bins_") and file[n].ndim == 1}
    axes, coords, left_out = [], {}, []
    for k, n in enumerate(shape):
        fit = [name for name, values in labels.items() if values.size == n]
        if len(fit) == 1 and shape.count(n) == 1:
            dim = fit[0].removeprefix("bins_").replace("/", "_")
            coords[dim] = (dim, labels[fit[0]], {v.LONG_NAME: f"{fit[0]} of the file"})
        else:
            dim = f"{_BIN}_{k}"
            left_out.append(f"labels of {dim}: {' or '.join(sorted(fit)) or 'none'}, the file does not say which")
        axes.append(dim)
    return tuple(axes), coords, left_out


# ---- LCLS-II --------------------------------------------------------------------------------------------------------


def _lcls2(file: Any, path: Path) -> dict[str, xr.Dataset]:
    steps = read_whole(file[_STEP], path).reshape(-1)
    order = np.argsort(steps, kind="stable")  # the file has them in the order in which they were done
    root = {}
    for name, item in file.items():
        if isinstance(item, h5py.Dataset) and item.shape[:1] == steps.shape and item.size == steps.size:
            root[name] = xr.Variable(_STEP, read_whole(item, path).reshape(-1)[order])
    unique = np.unique(steps).size == steps.size
    label = {_STEP: root.pop(_STEP)}
    nodes = {"/": xr.Dataset(root, label if unique else {})}
    for name, group in file.items():
        if isinstance(group, h5py.Group):
            nodes[f"/{name}"] = _sums_of_label(group, path, steps.size, order, label if unique else {})
    return nodes


def _sums_of_label(group: Any, path: Path, n: int, order: Any, label: dict[str, Any]) -> xr.Dataset:
    """Sums of one label, in the order of the steps where it has a row for each."""
    items: dict[str, Any] = {}
    group.visititems(lambda name, x: items.update({name: x}) if isinstance(x, h5py.Dataset) else None)
    rows = {x.shape[0] for x in items.values() if x.shape}
    whole = rows == {n}
    dim = _STEP if whole else _ROW
    variables, left_out = {}, []
    for name, item in items.items():
        if item.dtype.kind not in "biuf" or not item.shape or (not whole and len(rows) > 1):
            left_out.append(f"{name}: {item.dtype} {item.shape}")
            continue
        flat, data = name.replace("/", "_"), _lazy_values(item, path)
        data = data[order] if whole else data
        if flat.endswith(f"_{v.COUNT}"):
            variables[flat] = xr.Variable(dim, np.asarray(data).reshape(-1))
        else:
            dims = (dim, *(f"{flat}_{k}" for k in range(item.ndim - 1)))
            variables[f"{flat}_{v.SUM}"] = xr.Variable(dims, data)
    attrs = {v.LEFT_OUT: "; ".join(left_out)} if left_out else {}
    if not whole:
        attrs["rows"] = f"{sorted(rows)} rows for {n} steps: the file does not say which are missing"
    return xr.Dataset(variables, label if whole else {}, attrs)


def _lazy_values(item: Any, path: Path) -> Any:
    """Values, lazy where they are large."""
    if item.size * item.dtype.itemsize <= _LAZY:
        return read_whole(item, path)
    check_filters(item, path)
    array = Hdf5Array(identify(path), item.name, item.shape, item.dtype, item.chunks)
    meta = np.empty((0,) * item.ndim, array.dtype)
    return da.from_array(array, (1, *item.shape[1:]), name=f"cube-{tokenize(array)}", meta=meta)
