"""Mask files of other programs: psana's text, NumPy, NeXus, European XFEL."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.masks.patterns import CONVENTIONS, mask_from_array
from xsmall.detector.status_words import STATUS_CONVENTIONS, status_reasons, status_words
from xsmall.errors import DataError, FileFormatError, ParameterError
from xsmall.frames.mask import Target, flag_attrs
from xsmall.io.constants.psana import read_text_array
from xsmall.io.files import names_its_file
from xsmall.io.hdf5 import read_whole
from xsmall.io.layout import HDF5_VERSION
from xsmall.io.stores.place import write_file
from xsmall.vocabulary import COLUMN, PIXEL_DIMS, REASONS, ROW, SEGMENT, Reason

__all__ = ["open_mask", "save_mask"]

NEXUS_MASK: Final = "/entry/instrument/detector/pixel_mask"
OURS: Final = "xsmall"
_TEXT: Final = (".data", ".txt", ".dat")
_HDF5: Final = (".h5", ".hdf5", ".nxs", ".nx", ".cxi")
_KNOWN: Final = (*CONVENTIONS, OURS, *(name for name in STATUS_CONVENTIONS if name != "any"))


@names_its_file
def open_mask(
    path: str | Path,
    detector: Geometry | xr.DataArray | None = None,
    *,
    convention: str | None = None,
    dataset: str | None = None,
    dims: tuple[str, ...] | None = None,
) -> xr.DataArray:
    """Read a mask as reasons.

    Parameters
    ----------
    path
        psana text (``.data``, ``.txt``, ``.dat``), ``.npy``, or HDF5.
    detector
        Geometry or data whose pixels the mask is of; says the shape where the file does not, and gives labels.
    convention
        What the numbers mean: ``"good=1"``, ``"bad=1"``, ``"flags"`` (any bit makes the pixel bad), ``"xsmall"``,
        ``"nexus"``, ``"euxfel"``, ``"psana1"`` or ``"psana2"`` (status words). None: psana text is ``"good=1"``,
        a dataset ``pixel_mask`` is ``"nexus"``, booleans are True = use; anything else has to be named.
    dataset
        Path of the dataset in an HDF5 file; None: ``pixel_mask`` of the one NXdetector, its numbered companions too.
    dims
        Names of the axes of the file's array; a pixel is bad that is bad at any place along axes other than segment,
        row and column. None: the last three, or row and column of the one segment.

    Returns
    -------
    uint32 DataArray (segment, row, column) of reasons; ones and zeros that are bad become ``user``.

    Raises
    ------
    FileFormatError
        A file that cannot be read as that; the message names it.
    ParameterError
        Numbers without a convention.
    DataError
        Another shape than the detector's.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np, xsmall as xs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "mask.npy"
    ...     np.save(path, np.array([[0, 1], [1, 1]]))
    ...     xs.open_mask(path, convention="good=1").values
    array([[[512,   0],
            [  0,   0]]], dtype=uint32)
    """
    path = Path(path)
    _check_convention(convention)
    _check_dataset(path, dataset)
    values, default = _read_mask(path, dataset)
    target = None if detector is None else Target.of(detector)
    values = _pixel_axes(values, dims, target, path)
    flags = _reasons_of_array(values, convention or default, path)
    if target is not None:
        whole, _ = target.values_of(flags, f"the mask in {path}")
        return target.labelled(whole, REASONS, flag_attrs())
    labels = {dim: np.arange(n) for dim, n in zip(PIXEL_DIMS, flags.shape, strict=True)}
    return xr.DataArray(flags, labels, PIXEL_DIMS, REASONS, flag_attrs())


def save_mask(
    flags: xr.DataArray, path: str | Path, *, convention: str | None = None, dataset: str | None = None
) -> None:
    """Write reasons, or a boolean mask (True = use), for another program.

    Parameters
    ----------
    flags
        Reasons or a boolean mask over (segment, row, column), in any order of their labels, of the whole detector: a
        file has no labels.
    path
        ``.data`` or ``.txt`` (psana), ``.npy``, or HDF5 (``.h5``, ``.nxs``), which alone has a checksum. An HDF5 file
        may exist; the dataset must not.
    convention
        As in :func:`open_mask`; None: ``"good=1"`` for text, ``"nexus"`` for HDF5. For ``.npy`` it has to be named.
    dataset
        Path of the dataset in an HDF5 file; None: where NeXus has the mask of a detector.

    Raises
    ------
    ParameterError
        A convention that is missing or unknown, or an unknown suffix.
    DataError
        Other dims, or a part of the detector.
    FileFormatError
        The dataset is there already.
    WriteError
        The file cannot be written; a new one is complete or not there.

    Notes
    -----
    NeXus and the European XFEL have no bits for most of our reasons: what they cannot name is written as their user
    bit. Which pixels are used survives every convention.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np, xarray as xr, xsmall as xs
    >>> mask = xr.DataArray(np.array([[[True, False]]]), dims=("segment", "row", "column"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     xs.save_mask(mask, pathlib.Path(folder) / "mask.data")
    ...     (xs.open_mask(pathlib.Path(folder) / "mask.data") == 0).values
    array([[[ True, False]]])
    """
    path = Path(path)
    _check_convention(convention)
    _check_dataset(path, dataset)
    if set(flags.dims) != set(PIXEL_DIMS):
        raise DataError("a mask file holds one mask", found=f"dims {flags.dims}", expected=PIXEL_DIMS)
    if flags.dtype == np.bool_:
        flags = flags.copy(data=np.where(flags.values, 0, int(Reason.USER)))
    words = _flags_in_order(flags).transpose(*PIXEL_DIMS).values.astype(np.uint32)
    default = "good=1" if path.suffix in _TEXT else "nexus" if path.suffix in _HDF5 else None
    values = _words(words, _named_convention(convention or default, f"a {path.suffix} file"))
    try:
        _write(path, values, dataset or NEXUS_MASK)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be written", found=error) from None


# ---- reading ------------------------------------------------------------------------------------------------------


def _read_mask(path: Path, dataset: str | None) -> tuple[npt.NDArray[Any], str | None]:
    """Array of the file and the convention that the file itself implies."""
    try:
        if path.suffix in _TEXT:
            values = read_text_array(path)
            if not (np.array_equal(values, np.round(values)) and (np.abs(values) < 1 << 62).all()):
                raise FileFormatError(f"{path}: these are not the integers of a mask", found=f"{values.ravel()[:4]}")
            return values.astype(np.int64), "good=1"
        if path.suffix == ".npy":
            return np.array(np.load(path, mmap_mode="r", allow_pickle=False)), None
        with h5py.File(path, "r") as file:
            return _read_hdf5(file, dataset, path)
    except (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} cannot be read as a mask", found=str(error)[:200]) from None


def _read_hdf5(file: Any, dataset: str | None, path: Path) -> tuple[npt.NDArray[Any], str | None]:
    if dataset is not None:
        if dataset not in file or not isinstance(file[dataset], h5py.Dataset):
            raise FileFormatError(f"{path}: there is no dataset {dataset!r}")
        return read_whole(file[dataset], path), "nexus" if dataset.rsplit("/", 1)[-1].startswith("pixel_mask") else None
    found: list[str] = []
    file.visit(lambda name: found.append(name) if name.rsplit("/", 1)[-1] == "pixel_mask" else None)
    if len(found) != 1:
        others: list[str] = []
        file.visit(lambda name: others.append(name) if name.rsplit("/", 1)[-1].lower().endswith("mask") else None)
        raise FileFormatError(
            f"{path}: which dataset is the mask?",
            found=", ".join((found or others)[:8]) or "none that is called pixel_mask",
            fix=f'dataset="{(found or others or ["path/to/it"])[0]}"',
        )
    group = file[found[0]].parent
    numbered = [n for n in group if n.startswith("pixel_mask_") and n.removeprefix("pixel_mask_").isdigit()]
    values = read_whole(group["pixel_mask"], path)
    for name in numbered:
        values = values | read_whole(group[name], path)
    return values, "nexus"


def _pixel_axes(
    values: npt.NDArray[Any], dims: tuple[str, ...] | None, target: Target | None, path: Path
) -> npt.NDArray[Any]:
    """Bring the array to (..., segment, row, column)."""
    if dims is None and target is not None and values.ndim == 2 and values.size == np.prod(target.shape):
        values = values.reshape(target.shape)  # stacks are written as long lists of rows too
    if dims is None:
        dims = {2: (ROW, COLUMN), 3: PIXEL_DIMS}.get(values.ndim, ())
    if len(dims) != values.ndim or len(set(dims)) != len(dims) or not {ROW, COLUMN} <= set(dims):
        raise DataError(
            f"{path}: the axes of the mask are not known",
            found=f"shape {values.shape}, dims {dims}",
            fix='dims=("row", "column", "memory_cell"), a name for each axis',
        )
    labelled = xr.DataArray(values, dims=dims)
    if SEGMENT not in dims:
        labelled = labelled.expand_dims(SEGMENT)
    out: npt.NDArray[Any] = labelled.transpose(..., *PIXEL_DIMS).values
    return out


def _reasons_of_array(values: npt.NDArray[Any], convention: str | None, path: Path) -> npt.NDArray[np.uint32]:
    """Reasons (segment, row, column) of an array (..., segment, row, column)."""
    if values.dtype == np.bool_ or convention in ("good=1", "bad=1"):
        good = mask_from_array(values, convention=convention if values.dtype != np.bool_ or convention else None)
        flags = np.where(good, 0, int(Reason.USER)).astype(np.uint32)
    elif convention == OURS:
        flags = values.astype(np.uint32)
    else:
        named = _named_convention(convention, str(path))
        flags = status_reasons(values, convention="any" if named == "flags" else named)
    lead = tuple(range(flags.ndim - 3))
    return np.bitwise_or.reduce(flags, axis=lead) if lead else flags


def _check_convention(convention: str | None) -> None:
    if convention is not None and convention not in _KNOWN:
        raise ParameterError("unknown convention of a mask", found=convention, expected=", ".join(_KNOWN))


def _check_dataset(path: Path, dataset: str | None) -> None:
    if path.suffix not in (*_TEXT, ".npy", *_HDF5):
        raise ParameterError(
            f"unknown kind of mask file {path.name!r}", found=path.suffix, expected=", ".join((*_TEXT, ".npy", *_HDF5))
        )
    if dataset is not None and path.suffix not in _HDF5:
        raise ParameterError(f"a {path.suffix} file has no datasets", found=f"dataset={dataset!r}", fix="leave it out")


def _named_convention(convention: str | None, what: str) -> str:
    if convention is None:
        raise ParameterError(
            f"{what} does not say what the numbers of the mask mean",
            expected="the convention by name: " + ", ".join(_KNOWN),
            fix='convention="good=1"',
        )
    return convention


# ---- writing ------------------------------------------------------------------------------------------------------


def _words(flags: npt.NDArray[np.uint32], convention: str) -> npt.NDArray[Any]:
    if convention == "good=1":
        return np.asarray(flags == 0, dtype=np.uint8)
    if convention == "bad=1":
        return np.asarray(flags != 0, dtype=np.uint8)
    return flags if convention in (OURS, "flags") else status_words(flags, convention=convention)


def _flags_in_order(flags: xr.DataArray) -> xr.DataArray:
    """Segments, rows and columns by their labels, for a file has none: refused where it would number them anew."""
    for dim in PIXEL_DIMS:
        labels = flags.indexes.get(dim)
        if labels is None:
            continue
        if sorted(labels) != list(range(len(labels))):
            raise DataError(
                "a mask file has no labels, and this is a part of the detector",
                found=f"{dim} {labels[0]} ... {labels[-1]} ({len(labels)})",
                expected="all of them, from 0 on",
                fix=f"the mask of the whole detector, or flags.drop_vars({dim!r}) where the part stands for itself",
            )
        flags = flags.isel({dim: np.argsort(np.asarray(labels))})
    return flags


def _write(path: Path, values: npt.NDArray[Any], dataset: str) -> None:
    if path.suffix in _TEXT:
        header = [f"DTYPE {values.dtype}", f"NDIM {values.ndim}", *(f"DIM:{i} {n}" for i, n in enumerate(values.shape))]
        text = io.StringIO()
        np.savetxt(text, values.reshape(-1, values.shape[-1]), fmt="%2d", header="\n".join(header))
        write_file(path, lambda draft: draft.write_text(text.getvalue(), encoding="utf-8"), overwrite=True)
    elif path.suffix == ".npy":
        write_file(path, lambda draft: np.save(draft, values, allow_pickle=False), overwrite=True)
    elif not path.exists():
        write_file(path, lambda draft: _add_dataset(draft, values, dataset), overwrite=False)
    else:
        _add_dataset(path, values, dataset)


def _add_dataset(path: Path, values: npt.NDArray[Any], dataset: str) -> None:
    with h5py.File(path, "a", libver=HDF5_VERSION) as file:
        if dataset in file:
            raise FileFormatError(f"{path} has a dataset {dataset!r} already", fix="dataset='/another/path'")
        file.create_dataset(dataset, data=values, compression="gzip", shuffle=True, fletcher32=True)
