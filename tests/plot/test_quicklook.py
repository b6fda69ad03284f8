"""The first look at a run: what it draws is the mean of what it says, and little is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.cli import main
from xsmall.io.stores.runs import write_run
from xsmall.plot import quicklook as module

mpl.use("Agg")


@pytest.fixture
def run() -> xr.DataTree:
    return xs.simulate(40, shape=(2, 32, 64), seed=1).run


def close() -> None:
    import matplotlib.pyplot as plt

    plt.close("all")


def titles(figure: Any) -> list[str]:
    found = [ax.get_title() for ax in figure.axes if ax.get_title()]
    close()
    return found


def test_the_mean_is_that_of_the_events_that_are_there(run: xr.DataTree) -> None:
    raw = run["jungfrau"]["raw"].compute()
    raw = raw.assign_coords(present=raw.present.copy(data=np.ones(raw.present.shape, bool)))
    raw.present[3, 1] = False
    raw[3, 1] = 0  # as sources give it
    few = module._mean_of_few(raw, 40)
    adc = (raw & 0x3FFF).astype(float).where(raw.present)
    np.testing.assert_allclose(few.mean, adc.mean("event"), rtol=1e-12)
    assert (few.n, few.missing) == (40, 1)


def test_few_events_are_taken_from_all_over_the_run(run: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = run["jungfrau"]["raw"].chunk(event=1)
    marked = xr.DataArray(np.arange(40.0), dims="event").broadcast_like(raw).chunk(event=1).transpose(*raw.dims)
    few = module._mean_of_few(marked, 10)
    assert float(few.mean.mean()) == pytest.approx(np.mean([0, 1, 9, 10, 19, 20, 28, 29, 38, 39]))
    monkeypatch.setattr(module, "_BYTES", 4 * raw.nbytes // 40)
    assert module._mean_of_few(raw, 10).n == 4


def test_a_run_makes_one_figure(run: xr.DataTree) -> None:
    assert titles(run.sd.quicklook(events=20)) == [
        "jungfrau: mean of 20 of 40 events",
        "intensity",
        "scan_laser_delay",
    ]


def test_with_a_geometry_it_is_drawn_in_the_lab(run: xr.DataTree) -> None:
    sim = xs.simulate(40, shape=(2, 32, 64), seed=1)
    placed = run.copy()
    node = placed["jungfrau"].to_dataset()
    node = node.assign(raw=node["raw"].sd.assign_geometry(sim.geometry))
    placed["jungfrau"] = xr.DataTree(node)
    figure = placed.sd.quicklook(events=4)
    assert figure.axes[0].get_xlabel() == "x (mm)"
    close()


@pytest.mark.parametrize("drop", [["i0"], ["laser_on"], ["scan_laser_delay", "delay", "step"]])
def test_what_a_run_lacks_is_said_or_left_out(run: xr.DataTree, drop: list[str]) -> None:
    poor = run.copy()
    poor["events"] = xr.DataTree(run["events"].to_dataset().drop_vars(drop))
    figure = poor.sd.quicklook(events=4)
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    close()
    assert any("no i0" in t for t in texts) == (drop == ["i0"])
    assert any("nothing was scanned" in t for t in texts) == (len(drop) == 3)


def test_two_detectors_are_both_drawn_and_one_may_be_asked_for(run: xr.DataTree) -> None:
    both = run.copy()
    both["second"] = run["jungfrau"].copy()
    assert len([t for t in titles(both.sd.quicklook(events=4)) if "mean of 4" in t]) == 2
    assert [t for t in titles(both.sd.quicklook("second", events=4)) if "mean of" in t] == [
        "second: mean of 4 of 40 events"
    ]
    with pytest.raises(xs.XsmallError, match=r"run\.sd\.quicklook\(.jungfrau.\)"):
        both.sd.quicklook("third")


def test_a_run_without_frames_or_without_events_says_so(run: xr.DataTree) -> None:
    with pytest.raises(xs.XsmallError, match="without frames"):
        xr.DataTree.from_dict({"events": run["events"].to_dataset()}).sd.quicklook()
    with pytest.raises(xs.XsmallError, match="events=100"):
        run.sd.quicklook(events=0)
    empty = run.copy()
    empty["jungfrau"] = xr.DataTree(run["jungfrau"].to_dataset().isel(event=slice(0)))
    assert "jungfrau: no events" in titles(empty.sd.quicklook())


def test_a_real_run_of_raw_words_without_event_variables(shared: Path) -> None:
    run = xs.open_run(shared / "data/xtc2/jungfrau05M_mfx101332224_run7.xtc2")
    assert "jungfrau: mean of 2 of 2 events" in titles(run.sd.quicklook())


def test_the_shell_draws_the_same(run: xr.DataTree, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(run, tmp_path / "run.zarr")
    assert main(["look", str(path), "--out", str(tmp_path / "look.png"), "--events", "4"]) == 0
    close()
    assert (tmp_path / "look.png").stat().st_size > 10_000
    assert "40 events" in capsys.readouterr().out
    assert main(["look", str(path), "--detector", "none"]) == 1


def test_repr_of_versions_names_all_that_it_knows(
    capsys: pytest.CaptureFixture[str], computing_is_forbidden: Callable[[], Any]
) -> None:
    with computing_is_forbidden():
        assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    for name in ("xsmall", "python", "numba", "compiled code", "memory"):
        assert name in told


def test_the_shell_compiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warm-up"]) == 0
    assert "azint" in capsys.readouterr().out
