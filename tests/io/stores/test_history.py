"""How a result was made, before and after it is saved."""

from pathlib import Path

import pytest
import xarray as xr

import xsmall as xs


def small() -> xr.Dataset:
    sim = xs.simulate(6, shape=(2, 32, 64), seed=1)
    det = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)
    return det.sd.calibrate(sim.constants).sd.reduce({"waxs": xs.azint(bins=20), "row": xs.projection("row")})


def test_the_steps_are_told_oldest_first_without_what_nobody_said() -> None:
    cube = small().sd.cube({"laser_on": xs.categories()})
    told = xs.history(cube)
    assert [step for step, _ in told.steps] == ["calibrate", "reduce", "cube"]
    text = repr(told)
    assert "unit: keV" in text
    assert "records.waxs: Azint(bins=AzintBins(bins=20, quantity='q', split='no')" in text
    assert "None" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert "beam.photon_energy" in text


def test_it_folds_in_a_notebook_and_escapes() -> None:
    made = small().assign_attrs(source="<a & b>")
    assert xs.history(made)._repr_html_().count("<details") == 3
    assert "&lt;a &amp; b&gt;" in xs.history(made)._repr_html_()


def test_a_saved_result_tells_the_same_and_when_it_was_written(tmp_path: Path) -> None:
    before = xs.history(small().compute()).steps
    path = xs.save(small().compute(), tmp_path / "small.h5")
    with xr.open_dataset(path) as again:
        after = xs.history(again).steps
    assert after[: len(before)] == before
    assert [step for step, _ in after[len(before) :]] == ["save"]


def test_provenance_of_what_is_not_saved_yet_says_what_would_be_written() -> None:
    told = xs.provenance(small())
    assert told["parameters"]["function"] == "reduce"
    assert told["xsmall"] == xs.__version__


@pytest.mark.parametrize("tell", [xs.history, xs.provenance])
def test_of_something_else_nothing_is_known(tell: object) -> None:
    with pytest.raises(xs.XsmallError, match="nothing is said"):
        tell(xr.Dataset())


def test_results_per_event_carry_no_scalars_of_frames_and_two_detectors_merge() -> None:
    one = small()
    assert not {"geometry", "distance", "center_x", "tilt_x", "photon_energy"} & set(one.coords)
    other = one.rename({name: f"other_{name}" for name in one.data_vars})
    assert xr.merge([one, other], combine_attrs="drop_conflicts").sizes["event"] == 6


def test_what_still_has_pixels_keeps_its_geometry_last() -> None:
    sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    det = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)
    average = det.sd.calibrate(sim.constants).sd.average()
    assert list(average.coords)[-1] == "geometry"
    assert average["calibrated"].sd.image().notnull().any()
