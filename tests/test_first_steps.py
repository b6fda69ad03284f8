"""The page of first steps works as it stands, step by step, and the script that times it runs the same steps."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

ROOT = Path(__file__).parents[1]
ALL = [
    "The first picture",
    "Calibrate",
    "Draw a region",
    "Reduce every event",
    "Bin by delay and laser",
    "Save, and open again",
]


@pytest.fixture
def newcomer(monkeypatch: pytest.MonkeyPatch) -> Any:
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("benchmarks are in the repository, not in the package")
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.by_hand import newcomer

    return newcomer


def test_the_steps_lead_to_a_cube_in_a_file(newcomer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plt.switch_backend("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert [title for title, _ in newcomer.steps()] == ALL
    for _, code in newcomer.steps():
        exec(code, names)
        monkeypatch.chdir(tmp_path)  # where a step went elsewhere
    plt.close("all")
    again, cube = names["again"], names["cube"]
    np.testing.assert_array_equal(again["waxs_intensity"], cube["waxs_intensity"])
    again.close()
    assert int(cube["count"].sum()) > 250
    change = names["change"]
    assert np.isfinite(change["waxs_intensity"]).mean() > 0.8
    assert cube.sizes["q"] == 200
    assert isinstance(names["small"], xr.Dataset)


def test_a_run_of_ones_own_takes_its_place_among_the_steps(newcomer: Any) -> None:
    told = dict(newcomer.steps("elsewhere.xtc2"))
    assert "elsewhere.xtc2" in told["A run of your own"]
    assert list(told) == [ALL[0], "A run of your own", *ALL[1:]]
