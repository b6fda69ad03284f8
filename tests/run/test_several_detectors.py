"""Functions of several detectors in a recipe: what the same function gives in a notebook."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.run.conftest import made, recipe_of
from xsmall.errors import ParameterError
from xsmall.run.recipe import Recipe

MODULE = """
import numpy as np
import xsmall as xs


def ratio(frame, epix, i0):
    return {"ratio": np.nansum(frame) / np.nansum(epix) / i0, "both": (frame > 1).sum() + (epix > 1).sum()}


@xs.record(outputs={"total": "f8"})
def total(frame, second):
    return {"total": np.nansum(frame) + np.nansum(second)}


@xs.record(outputs={"total": "f8"})
def fails(frame, epix):
    raise ValueError("no")
"""


@pytest.fixture(scope="module")
def two(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a fast detector and one with every third event, in chunks of its own; and the functions."""
    folder = tmp_path_factory.mktemp("two")
    run = xs.open_run(site / "raw0012.zarr")
    raw = run["jungfrau"]["raw"].load()
    slow = xs.simulate(700, shape=(1, 8, 16), seed=9).run["jungfrau"]["raw"].load()
    slow = slow.drop_vars([c for c in slow.coords if c not in ("event", "segment", "row", "column", "present")])
    slow = slow.assign_coords(event=raw["event"])[1::3]
    tree = {"jungfrau": raw.to_dataset().chunk(event=50), "epix": slow.to_dataset().chunk(event=40),
            "events": run["events"].to_dataset().load()}  # fmt: skip
    xs.save(xr.DataTree.from_dict(tree), folder / "raw0012.zarr")
    xs.save(xs.simulate(4, shape=(1, 8, 16), seed=9).constants, folder / "epix.zarr")
    (folder / "mine.py").write_text(MODULE)
    return folder


def recipe(site: Path, two: Path, **reductions: Any) -> Recipe:
    tables = recipe_of(site, reductions={"rows": {"kind": "projection", "onto": "row"}, **reductions})
    tables["detectors"]["epix"] = {"constants": str(two / "epix.zarr")}
    return Recipe(tables | {"source": str(two / "raw{run:04d}.zarr")}, two)


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "function", "function": f"mine:{name}", **more}


def test_it_is_what_a_notebook_finds(site: Path, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(two)
    import mine  # type: ignore[import-not-found]

    given = recipe(
        site, two, ratio=function("ratio", beside=["epix", "i0"]), total=function("total", beside={"second": "epix"}),
        fails=function("fails", beside=["epix"]),
    )  # fmt: skip
    state = made(given, tmp_path / "out")
    assert state.state == "done", state.why
    small = xr.open_zarr(state.output).load()
    run = xs.open_run(two / "raw0012.zarr")
    cal, epix = (
        run[name]["raw"].sd.calibrate(xs.open_constants(path))
        for name, path in (("jungfrau", site / "constants.zarr"), ("epix", two / "epix.zarr"))
    )
    i0 = run["events"]["i0"]
    expected = xs.apply(mine.ratio, frame=cal, epix=epix, i0=i0).compute()
    for name in ("ratio", "both"):
        np.testing.assert_array_equal(small[f"jungfrau_ratio_{name}"], expected[name])
    called = expected["missing"].values == ""
    assert 180 < called.sum() < 700 / 3
    missing = small["jungfrau_ratio_missing"].values
    np.testing.assert_array_equal(missing == "", called)
    assert [name for name in ("epix", "i0") if name in " ".join(missing)] == ["epix"]
    np.testing.assert_array_equal(np.isfinite(small["jungfrau_total_total"].values), called)
    np.testing.assert_array_equal(small["jungfrau_fails_failed"].values, called)
    np.testing.assert_array_equal(small["jungfrau_rows_projection"], cal.sd.projection("row")["projection"])


def test_chunks_of_the_other_detector_are_not_read_again_for_every_event(
    site: Path, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xsmall.engine import blocks

    read: list[tuple[int, int]] = []
    before = blocks.Unopened.read

    def counted(self: Any, start: int, stop: int) -> Any:
        if self.event_shape == (1, 8, 16):
            read.append((start, stop))
        return before(self, start, stop)

    monkeypatch.setattr(blocks.Unopened, "read", counted)
    state = made(recipe(site, two, ratio=function("ratio", beside=["epix", "i0"])), tmp_path / "out")
    assert state.state == "done", state.why
    assert 0 < len(read) < 40


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (function("ratio", beside="epix"), ["no list of names", 'beside = ["epix", "i0"]']),
        (function("ratio", beside=[]), ["no list of names"]),
        (function("ratio", beside={"epix": 3}), ["no list of names"]),
    ],
)
def test_names_are_checked_before_anything_is_read(
    site: Path, two: Path, given: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ParameterError) as raised:
        xs.open_recipe(recipe(site, two, mine=given))
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (function("ratio", beside=["epxi", "i0"]), ["is called 'epxi'", '"epix"']),
        (function("ratio", beside=["jungfrau"]), ["is called 'jungfrau'"]),
        (function("total", variance=True), ["a record says already", "leave variance out"]),
    ],
)
def test_what_the_run_does_not_have_is_told(
    site: Path, two: Path, tmp_path: Path, given: dict[str, Any], words: list[str]
) -> None:
    state = made(recipe(site, two, mine=given), tmp_path / "out")
    assert state.state == "failed"
    for word in words:
        assert word in state.why


def test_memory_of_the_other_detector_is_planned(site: Path, two: Path) -> None:
    value, frames = (
        xs.forecast(recipe(site, two, total=function("total", beside={"second": name})), 12).peak_bytes
        for name in ("i0", "epix")
    )
    assert frames - value == 2 * 233 * 8 * 16 * 2  # all of its words, twice


def test_a_run_without_the_other_detector_says_so(site: Path, two: Path, tmp_path: Path) -> None:
    given = recipe(site, two, mine=function("ratio", beside=["epix", "i0"])).given
    state = made(Recipe(given | {"source": str(site / "raw{run:04d}.zarr")}, two), tmp_path / "out")
    assert state.state == "failed"
    assert "a function takes the detector 'epix'" in state.why
