"""What is asked for a run: recipe, input, versions; two jobs with the same request make the same output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from xsmall.io.files import identify
from xsmall.io.sources.source import RunSpec, source_of
from xsmall.io.stores.provenance import origin
from xsmall.run.recipe import as_json
from xsmall.run.reductions import FUNCTION, file_of, steps_of
from xsmall.run.tables import RunRecipe

__all__ = ["difference", "request_of"]


def request_of(recipe: RunRecipe, source: str, folder: Path) -> dict[str, Any]:
    """Say what is asked for, as JSON.

    Parameters
    ----------
    recipe
        The settings of this run.
    source
        The run.
    folder
        Folder of the recipe.

    Returns
    -------
    ``recipe``, ``source``, ``files`` (path, size, time of change or hash of all that is read), ``versions``.

    Raises
    ------
    FileFormatError
        The run, or a file that the recipe names, is not there.
    """
    spec = RunSpec.of(source)
    told = origin(xr.Dataset())
    files: dict[str, Any] = {one.path: [one.size, one.mtime_ns] for one in source_of(spec).identity(spec)}
    for _, path in recipe.files():
        files[path] = _identity_of_path(Path(path))
    files |= {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in _modules(recipe, folder)}
    versions = {"xsmall": told["xsmall"], "python": told["python"], **told["packages"]}
    return {"recipe": json.loads(as_json(recipe)), "source": str(source), "files": files, "versions": versions}


def _modules(recipe: RunRecipe, folder: Path) -> Iterator[Path]:
    """Files beside the recipe that hold functions of users."""
    for detector in recipe.detectors.values():
        for table in detector.reductions.values():
            for step in steps_of(table):
                file = file_of(str(step[FUNCTION]), folder) if FUNCTION in step else None
                if file is not None:
                    yield file


def _identity_of_path(path: Path) -> Any:
    """Which bytes a file or folder has, as far as sizes and times tell; None for what is no path."""
    if path.is_file():
        one = identify(path)
        return [one.size, one.mtime_ns]
    if not path.is_dir():
        return None
    files = (
        [path / "zarr.json"] if (path / "zarr.json").is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    )
    told = "".join(f"{p.relative_to(path)} {p.stat().st_size} {p.stat().st_mtime_ns}\n" for p in files)
    return hashlib.sha256(told.encode()).hexdigest()


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what differs between two requests, a line for each value; none where they are the same."""
    return [
        line for key in dict.fromkeys([*before, *now]) for line in _changed_values(key, before.get(key), now.get(key))
    ]


def _changed_values(where: str, before: Any, now: Any) -> Iterator[str]:
    if before == now:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from _changed_values(f"{where}.{key}", before.get(key), now.get(key))
    else:
        yield f"{where}: {_short_json(before)} before, {_short_json(now)} now"


def _short_json(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
