"""Small runs on disk, and recipes for them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xsmall as xs
from xsmall.io.stores.runs import write_run
from xsmall.run.state import RunState

SHAPE = (2, 16, 32)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run 12 of 700 events, its constants and geometry; nobody writes to it."""
    folder = tmp_path_factory.mktemp("site")
    sim = xs.simulate(700, shape=SHAPE, seed=3, chunks=64)
    write_run(sim.run, folder / "raw0012.zarr", chunk_events=32)
    xs.save(sim.constants, folder / "constants.zarr")
    xs.save_geometry(sim.geometry, folder / "geometry.json", format="xsmall")
    return folder


def recipe_of(site: Path, **detector: Any) -> dict[str, Any]:
    """A recipe of three reductions for the runs of a folder; ``detector`` says what is different."""
    jungfrau = {
        "constants": str(site / "constants.zarr"),
        "reductions": {
            "rows": {"kind": "projection", "onto": "row"},
            "drops": {"kind": "droplet", "threshold": "4 keV"},
            "spot": {"kind": "roi", "places": {"segment": 0, "row": [4, 12], "column": [8, 24]}},
        },
        **detector,
    }
    return {"source": str(site / "raw{run:04d}.zarr"), "detectors": {"jungfrau": jungfrau}}


@pytest.fixture
def recipe(site: Path) -> dict[str, Any]:
    """The recipe of :func:`recipe_of` as it is."""
    return recipe_of(site)


@pytest.fixture
def copy_of_run(site: Path, tmp_path: Path) -> Callable[[], Path]:
    """Copy the folder of runs, to be damaged."""
    import shutil

    def copy() -> Path:
        return Path(shutil.copytree(site, tmp_path / "site"))

    return copy


def made(recipe: Any, out: Path, **options: Any) -> RunState:
    """Produce run 12 as a recipe says."""
    [state] = xs.produce(recipe, 12, out, **options)
    return state


def files_of(folder: str | Path) -> dict[str, str]:
    """Hash of each file of a store."""
    where = Path(folder)
    found = [where] if where.is_file() else sorted(f for f in where.rglob("*") if f.is_file())
    return {str(f.relative_to(where)): hashlib.sha256(f.read_bytes()).hexdigest() for f in found}
