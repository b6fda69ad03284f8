"""Runs in raw Zarr, as :func:`~xsmall.io.stores.runs.write_run` writes them."""

import json
from pathlib import Path
from typing import Any

import xarray as xr
from dask.base import tokenize

from xsmall import vocabulary as v
from xsmall.io.files import Identity, identify
from xsmall.io.layout import event_bytes, quiet
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.source import RunSource, RunSpec
from xsmall.io.sources.stored import RUN_IN_WORDS, check_layout, is_run, stored_tree

__all__ = ["ZarrRun"]

_GROUP = "zarr.json"


class ZarrRun(RunSource):
    """A folder with a Zarr group of format 3."""

    name = "zarr"
    title = "raw run in Zarr"

    def recognises(self, spec: RunSpec) -> bool:
        """Go by the layout that the root group names; one that cannot be read is left to :meth:`open`."""
        if spec.path is None or not (spec.path / _GROUP).is_file():
            return False
        try:
            return is_run(_layout(spec.path))
        except (OSError, ValueError, AttributeError, RecursionError):
            return True

    def open(self, spec: RunSpec, *, chunks: int | str | None) -> xr.DataTree:
        """Read what is small; frames are read when they are computed."""
        assert spec.path is not None
        return _open(spec.path, chunks)

    def heading(self, spec: RunSpec) -> str:
        """Name the layout too."""
        assert spec.path is not None
        return f"{RUN_IN_WORDS}, layout {_layout(spec.path)}"

    def identity(self, spec: RunSpec) -> tuple[Identity, ...]:
        """Go by the description of the root group: another run has another one."""
        return tuple(identify(path / _GROUP) for path in spec.paths)


def _layout(path: Path) -> Any:
    return json.loads((path / _GROUP).read_bytes())["attributes"].get(v.LAYOUT)


def _open(path: Path, chunks: int | str | None) -> xr.DataTree:
    with quiet(), xr.open_datatree(path, engine="zarr", consolidated=False, chunks=None) as tree:
        check_layout(path, tree.attrs.get(v.LAYOUT))
        nodes = {n.path: n.to_dataset(inherit=False) for n in tree.subtree}

        written = (path / _GROUP).stat().st_mtime_ns  # another run may come to lie at this path

        def lazy(group: str, name: str, x: xr.Variable) -> Any:
            n = events_per_chunk(event_bytes(x), chunks, x.encoding["chunks"][0])
            token = tokenize(str(path.resolve()), written, group, name, n)
            return x.chunk({v.EVENT: n}, name=f"zarr-{name}-{token}").data

        return stored_tree(nodes, lazy)
