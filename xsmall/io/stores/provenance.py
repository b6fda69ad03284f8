"""Where a result came from: versions, parameters, input and time, kept in one attribute of every file."""

import json
import os
import platform
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import xarray as xr

from xsmall._version import __version__
from xsmall.errors import DataError
from xsmall.vocabulary import LOST, PARAMETERS, PROVENANCE, SOURCE

__all__ = ["origin", "provenance", "version_of"]

_PACKAGES: Final = ("numpy", "xarray", "dask", "distributed", "numba", "zarr", "netcdf4", "h5py")


def provenance(obj: xr.Dataset | xr.DataArray | xr.DataTree) -> dict[str, Any]:
    """Tell what a result was made with: versions, parameters, input, time.

    Parameters
    ----------
    obj
        What was opened from a file that :func:`xsmall.save` wrote; or a result that is not saved yet: then what
        would be written now.

    Returns
    -------
    A dict with ``xsmall``, ``packages``, ``python``, ``time`` (UTC), ``parameters``, ``input``, ``lost`` (what
    the source had lost, with counts) and, where the result was saved before, ``history``, oldest first.

    Raises
    ------
    DataError
        Nothing is known about it, or the file says it in a form that cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile, xarray as xr, xsmall as xs
    >>> path = xs.save(xr.Dataset({"i0": ("event", [1.0, 2.0])}), pathlib.Path(tempfile.mkdtemp()) / "small.h5")
    >>> xs.provenance(xr.open_dataset(path))["xsmall"] == xs.__version__
    True
    """
    attrs = attributes_of(obj)
    text = attrs.get(PROVENANCE)
    if text is None and any(name in attrs for name in (PARAMETERS, SOURCE)):
        return origin(obj)
    if text is None:
        raise DataError(
            "nothing is said about where this came from",
            found=f"no attribute {PROVENANCE!r}, {PARAMETERS!r} or {SOURCE!r}",
            expected="what calibrate, reduce, cube or xs.save returned",
            fix="xs.save writes it",
        )
    return _read_provenance(obj, text)


def attributes_of(obj: Any) -> dict[Any, Any]:
    """Attributes of an object of xarray; raise of anything else, and say how a file is opened."""
    if not isinstance(obj, xr.Dataset | xr.DataArray | xr.DataTree):
        fix = "give what calibrate, reduce or cube returned"
        if isinstance(obj, str | os.PathLike):
            fix = f"xs.open_result({os.fspath(obj)!r}) opens it"
        raise DataError(
            "only objects of xarray know how they were made",
            found=repr(obj)[:80],
            expected="a Dataset, DataArray or DataTree",
            fix=fix,
        )
    return dict(obj.attrs)


def _read_provenance(obj: xr.Dataset | xr.DataArray | xr.DataTree, text: Any, target: object = None) -> dict[str, Any]:
    """Read the attribute of a file, which may be damaged, or somebody else's.

    Raises
    ------
    DataError
        It is no JSON of a table; the file is named where it is known.
    """
    try:
        told = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        told = error
    if isinstance(told, dict) and isinstance(told.get("history", []), list):
        return told
    path = obj.encoding.get("source") or obj.attrs.get(SOURCE) or "this result"
    raise DataError(
        f"{path}: what it says of where it came from cannot be read" + (f", saving to {target}" if target else ""),
        found=told if isinstance(told, Exception) else f"{PROVENANCE} = {str(text)[:80]}",
        expected="the JSON that xs.save writes",
        fix=f"copy the file again, or forget it: del result.attrs[{PROVENANCE!r}]",
    )


def origin(obj: xr.Dataset | xr.DataArray | xr.DataTree, target: object = None) -> dict[str, Any]:
    """What is known about where ``obj`` came from, and with what it is written, to ``target``."""
    told: dict[str, Any] = {
        "xsmall": __version__,
        "packages": {p: version_of(p) for p in _PACKAGES},
        "python": platform.python_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": _decoded_json(obj.attrs.get(PARAMETERS)),
        "input": obj.attrs.get(SOURCE),
        "lost": _decoded_json(obj.attrs.get(LOST)),
    }
    if PROVENANCE in obj.attrs:
        before = _read_provenance(obj, obj.attrs[PROVENANCE], target)
        told["history"] = [*before.pop("history", []), before]
    return told


@cache  # a process keeps what it has imported
def version_of(package: str) -> str | None:
    """Version of a package that is installed, else None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _decoded_json(value: Any) -> Any:
    """Parameters as they were, where they are JSON, in all depths."""
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return _decoded_json(json.loads(value))
        except ValueError:
            return value
    if isinstance(value, dict):
        return {k: _decoded_json(v) for k, v in value.items()}
    return value
