"""Runs in raw Zarr, as :func:`~xsmall.io.stores.runs.write_run` writes them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import XsmallError
from xsmall.io.descriptions import DESCRIPTION, check_descriptions
from xsmall.io.files import Identity, identify
from xsmall.io.layout import quiet
from xsmall.io.sources.source import RunSource, RunSpec
from xsmall.io.sources.stored import RUN_IN_WORDS, UNREAD, StoredGroups, check_layout, is_run, not_opened, stored_tree
from xsmall.io.sources.stored_array import StoredArray
from xsmall.io.sources.zarr_array import ZarrArray, open_array

__all__ = ["ZarrRun", "zarr_groups"]


class ZarrRun(RunSource):
    """A folder with a Zarr group of format 3."""

    name = "zarr"
    title = "raw run in Zarr"

    def recognises(self, spec: RunSpec) -> bool:
        """Go by the layout that the root group names; one that cannot be read is left to :meth:`open`."""
        if spec.path is None or not (spec.path / DESCRIPTION).is_file():
            return False
        try:
            return is_run(_layout(spec.path))
        except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
            return True

    def open(self, spec: RunSpec, *, chunks: int | str | None, verify: bool = False) -> xr.DataTree:
        """Read what is small; frames are read when they are computed, or ``verify`` reads them once to check them."""
        assert spec.path is not None
        with zarr_groups(spec.path) as groups:
            check_layout(spec.path, groups.nodes["/"].attrs.get(v.LAYOUT))
            return stored_tree(groups, chunks, verify=verify)

    def heading(self, spec: RunSpec) -> str:
        """Name the layout too."""
        assert spec.path is not None
        return f"{RUN_IN_WORDS}, layout {_layout(spec.path)}"

    def identity(self, spec: RunSpec) -> tuple[Identity, ...]:
        """Go by the description of the root group: another run has another one."""
        return tuple(identify(path / DESCRIPTION) for path in spec.paths)


def _layout(path: Path) -> Any:
    return json.loads((path / DESCRIPTION).read_bytes())["attributes"].get(v.LAYOUT)


class _Groups(StoredGroups):
    """Groups of a Zarr store."""

    def __init__(self, path: Path, nodes: Mapping[str, xr.Dataset]) -> None:
        self.path, self.nodes = path, nodes
        self.identity = identify(path / DESCRIPTION)

    def array(self, name: str, x: xr.Variable) -> ZarrArray:
        about = open_array(self.identity, name)
        return ZarrArray(self.identity, name, x.shape, _dtype(about, x), about.shards or about.chunks)

    def stored_events(self, x: xr.Variable) -> int:
        return int(x.encoding["chunks"][0])

    def stored_bytes(self, array: StoredArray) -> int:
        folder = self.path / array.name.strip("/")
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _dtype(about: Any, x: xr.Variable) -> np.dtype[Any]:
    """The type in the file, which decoding may change; text has none that NumPy knows."""
    return about.dtype if isinstance(about.dtype, np.dtype) else x.dtype


@contextmanager
def zarr_groups(path: Path) -> Iterator[StoredGroups]:
    """Open the groups of a store; whatever stumbles over damage becomes an error that names it."""
    check_descriptions(path)
    try:
        with quiet(), xr.open_datatree(path, engine="zarr", consolidated=False, **UNREAD) as tree:
            yield _Groups(path, {n.path: n.to_dataset(inherit=False) for n in tree.subtree})
    except XsmallError:
        raise
    except Exception as error:  # of zarr, xarray or json
        raise not_opened(path, error, lambda: _labels(path)) from error


def _labels(path: Path) -> Iterator[ZarrArray]:
    identity = identify(path / DESCRIPTION)
    for file in sorted(path.rglob(DESCRIPTION)):
        if json.loads(file.read_bytes())["node_type"] == "array":
            name = str(file.parent.relative_to(path))
            about = open_array(identity, name)
            if about.ndim == 1:
                yield ZarrArray(identity, name, about.shape, about.dtype, about.shards or about.chunks)
