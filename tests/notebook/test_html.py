"""What a notebook shows of ``.sd``: facts, and a picture that costs nothing."""

import html
import re
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.notebook.fold import fold_in_notebooks


@pytest.fixture(scope="module")
def simulation() -> Any:
    return xs.simulate(8, shape=(2, 32, 64), seed=1)


def calibrated(simulation: Any) -> xr.DataArray:
    det = simulation.run["jungfrau"]["raw"].sd.assign_geometry(simulation.geometry).sd.assign_beam(simulation.beam)
    return det.sd.calibrate(simulation.constants)


def test_lazy_frames_show_their_panels_and_compute_nothing(
    simulation: Any, computing_is_forbidden: Callable[[], Any]
) -> None:
    cal = calibrated(simulation)
    with computing_is_forbidden():
        text = cal.sd._repr_html_()
    assert text.count("<polyline") == 2
    assert "crimson" in text  # the beam
    assert "<img" not in text
    assert "distance" in text


def test_frames_in_memory_show_their_picture_and_how_much_is_trusted(simulation: Any) -> None:
    cal = calibrated(simulation).compute()
    text = cal.sd._repr_html_()
    assert "data:image/png;base64," in text
    assert f"{int(np.isfinite(cal).sum())} of {cal.size} values" in text


def test_flags_name_what_is_held_against_pixels(simulation: Any) -> None:
    flags = simulation.run["jungfrau"]["raw"].sd.trust(simulation.constants).compute()
    assert "dead" in repr(flags.sd)
    assert f"{int((flags != 0).sum())} of {flags.size} values" in repr(flags.sd)


def test_a_run_says_what_is_in_it_and_what_to_type(simulation: Any, computing_is_forbidden: Callable[[], Any]) -> None:
    run = simulation.run
    with computing_is_forbidden():
        text, shown = repr(run.sd), run.sd._repr_html_()
    assert "8 events" in text
    assert "raw (event 8, segment 2, row 32, column 64) uint16 ADU" in " ".join(text.split())
    assert "scan_laser_delay" in text
    assert 'run["jungfrau"]["raw"]' in text
    assert "<code>" in shown


def test_what_is_missing_and_damaged_in_a_run_is_told(simulation: Any) -> None:
    run = simulation.run.copy()
    node = run["jungfrau"].to_dataset()
    present = np.ones((8, 2), bool)
    present[3, 1] = False
    run["jungfrau"] = xr.DataTree(
        node.assign_coords(present=(("event", "segment"), present), damage=(("event", "segment"), ~present * 4))
    )
    run.attrs["unreadable_events"] = 1
    text = " ".join(repr(run.sd).split())
    assert "1 of 16 segments of events are missing" in text
    assert "1 event damaged" in text
    assert "1 event could not be understood" in text


def test_lines_of_a_repr_stay_short_and_words_whole(simulation: Any) -> None:
    for obj in (simulation.run, calibrated(simulation), calibrated(simulation).sd.projection("row")):
        lines = repr(obj.sd).splitlines()
        assert max(map(len, lines)) <= 100
        assert "autocorrelation" in repr(obj.sd) or obj.sd._fitting().count("autocorrelation") == 0


def test_names_from_outside_are_escaped() -> None:
    odd = xr.DataArray(da.zeros((2, 3), chunks=1), dims=("event", "x"), name="<b>").assign_attrs(units="<i>")
    assert "<b>" not in odd.sd._repr_html_()


@pytest.mark.parametrize("shape", [(0, 1, 4, 5), (1, 1, 1, 1), (3, 2, 300, 400)])
def test_pictures_of_odd_shapes(shape: tuple[int, ...]) -> None:
    data = xr.DataArray(np.full(shape, np.nan), dims=("event", "segment", "row", "column"))
    assert "<img" not in data.sd._repr_html_()  # no valid value
    assert ("<img" in data.fillna(1.0).sd._repr_html_()) == (shape[0] > 0)


def test_long_attributes_of_ours_fold_in_a_notebook_and_others_are_as_xarray_shows_them(simulation: Any) -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    shell = type("Shell", (), {"display_formatter": formatters.DisplayFormatter()})
    fold_in_notebooks(shell)
    cal = calibrated(simulation).assign_attrs(comment="x" * 500)
    for obj, text in ((cal, cal.attrs["parameters"]), (cal.to_dataset(), cal.geometry.attrs["rule"])):
        shown, theirs = shell.display_formatter.format(obj)[0]["text/html"], obj._repr_html_()
        said = html.escape(text)
        assert f"<dd>{said}</dd>" in theirs
        assert f"<dd>{said}</dd>" not in shown
        assert f"</summary>{said}</details></dd>" in shown  # nothing is lost
        assert f"<dd>{'x' * 500}</dd>" in shown
    plain = xr.DataArray([1.0], attrs={"units": "keV", "parameters": "few"})
    number = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")  # xarray gives its sections a new number each time
    shown = shell.display_formatter.format(plain)[0]["text/html"]
    assert number.sub("", shown) == number.sub("", plain._repr_html_())


def test_without_a_notebook_nothing_is_folded() -> None:
    fold_in_notebooks()
    fold_in_notebooks(object())
