"""What xsmall runs on: versions, threads, memory, and what is missing for what."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final

from xsmall._version import __version__
from xsmall.io.stores.provenance import version_of
from xsmall.kernels.jit import cache_folder

__all__ = ["Versions", "show_versions"]

_CORE: Final = (
    "numpy", "xarray", "dask", "distributed", "zarr", "numcodecs", "numba", "llvmlite", "scipy", "netcdf4", "h5py",
    "matplotlib", "pandas", "pydantic",
)  # fmt: skip
_EXTRAS: Final = (
    ("psana", "psana", "constants from psana's database"),
    ("pyFAI", "pyfai", "geometry of pyFAI"),
    ("hdf5plugin", "hdf5", "compressed frames of others (Eiger, EuXFEL)"),
    ("fabio", "images", "single images (CBF, TIFF)"),
    ("extra-geom", "extra", "geometry of EXtra-geom"),
    ("flox", "groupby", "xarray's own groupby, faster"),
    ("ipympl", "notebook", "tools for the mouse in notebooks"),
    ("awkward", "awkward", "lists per event as awkward arrays"),
)
"""Package, extra, and what it is for."""


@dataclass(frozen=True, repr=False)
class Versions:
    """Lines of (name, text); prints as a table."""

    lines: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.lines)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in self.lines)


def show_versions() -> Versions:
    """Say what xsmall runs on: put this into a report of a fault.

    Returns
    -------
    Versions of Python and packages, threads, memory, where compiled code is kept, sources of other packages, and which
    optional packages are missing, each with what it is for. It prints as a table.

    Examples
    --------
    >>> import xsmall as xs
    >>> dict(xs.show_versions().lines)["xsmall"] == xs.__version__
    True
    """
    import dask
    from dask.system import CPU_COUNT

    lines = [("xsmall", __version__), ("python", sys.version.split()[0]), ("system", platform.platform())]
    lines += [(name, version_of(name) or "not installed") for name in _CORE]
    lines += [
        ("cores", f"{CPU_COUNT} of {os.cpu_count()} for this process"),
        ("dask", f"{version_of('dask')}, scheduler {dask.config.get('scheduler', None) or 'threads'}"),
        ("memory", _memory()),
        ("compiled code", str(cache_folder() or "not kept: every session compiles again")),
        ("sources", ", ".join(sorted(e.name for e in entry_points(group="xsmall.sources"))) or "those of xsmall"),
    ]
    for name, extra, purpose in _EXTRAS:
        found = version_of(name)
        missing = f"missing, for {purpose}: python -m pip install 'xsmall[{extra}]'"
        lines.append((name, missing if found is None else f"{found}, for {purpose}"))
    return Versions(tuple(dict(lines).items()))


def _memory() -> str:
    from dask.utils import format_bytes
    from distributed.system import MEMORY_LIMIT

    return f"{format_bytes(MEMORY_LIMIT)} for this process"
