"""Recipes: what they mean for a run, and what is said of invalid ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xsmall as xs
from xsmall import cli
from xsmall.engine.record import Record
from xsmall.errors import ParameterError
from xsmall.run import reductions
from xsmall.run.arguments import Context
from xsmall.run.quantity import quantity
from xsmall.run.recipe import recipe_schema
from xsmall.run.tables import RunRecipe
from xsmall.run.text import runs_of

TEXT = """
source = "raw/run{run:04d}.zarr"

[detectors.jungfrau]
constants = "constants.zarr"
geometry = "geometry.data"
beam = {photon_energy = "9.5 keV", distance = "92.5 mm", center = ["0 mm", "-120 um"]}
common_mode = "recommended"

[detectors.jungfrau.reductions]
waxs = {kind = "azint", bins = 50, range = ["5 1/nm", "3 angstrom-1"]}
spot = {kind = "roi", places = {segment = 0, row = [4, 12], column = [8, 24]}}
drops = {kind = "droplet", threshold = "5 sigma", threshold_low = "2.5 sigma"}

[[override]]
runs = "10-20, 25"
detectors.jungfrau.beam.distance = "0.1 m"
detectors.jungfrau.reductions.waxs.bins = 60
"""


def detector(**tables: Any) -> dict[str, Any]:
    return {"detectors": {"jungfrau": tables}}


def test_values_come_in_the_units_of_xsmall_and_paths_from_the_folder_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(TEXT)
    found = xs.open_recipe(path).for_run(7)
    jungfrau = found.detectors["jungfrau"]
    assert jungfrau.beam is not None
    assert (jungfrau.beam.photon_energy, jungfrau.beam.distance) == (9500.0, 0.0925)
    assert jungfrau.beam.center == [0.0, -120e-6]
    assert found.source == str(tmp_path / "raw" / "run0007.zarr")
    assert jungfrau.constants == str(tmp_path / "constants.zarr")


@pytest.mark.parametrize(("run", "distance", "bins"), [(9, 0.0925, 50), (10, 0.1, 60), (20, 0.1, 60), (21, 0.0925, 50)])
def test_overrides_hold_for_their_runs_alone(tmp_path: Path, run: int, distance: float, bins: int) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(TEXT)
    jungfrau = xs.open_recipe(path).for_run(run).detectors["jungfrau"]
    assert jungfrau.beam is not None
    assert jungfrau.beam.distance == distance
    assert jungfrau.beam.photon_energy == 9500.0
    assert jungfrau.reductions["waxs"]["bins"] == bins


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"detektors": {}}, ["detektors", "detectors = ..."]),
        (detector(bean={}), ["detectors.jungfrau.bean", "beam = ..."]),
        (detector(beam={"distnace": "0.1 m"}), ["detectors.jungfrau.beam.distnace", "distance = ..."]),
        (detector(beam={"distance": 0.1}), ["detectors.jungfrau.beam.distance", "no unit", '"0.1 mm"']),
        (detector(beam={"distance": "9.5 keV"}), ["not in a unit of length", "mm"]),
        (detector(beam={"distance": "far"}), ["a number and a unit"]),
        (detector(beam={"center": ["0 mm"]}), ["detectors.jungfrau.beam.center"]),
        (detector(mask={"edgs": 3}), ["detectors.jungfrau.mask.edgs", "edges = ..."]),
        (detector(required="yes"), ["detectors.jungfrau.required", "boolean"]),
        (detector(mask={"edges": "1"}, average=0), ["detectors.jungfrau.mask.edges (and 1 more)", "a valid integer"]),
        (detector(variance="some"), ["detectors.jungfrau.variance", "a valid boolean or 'noise'"]),
        (
            {**detector(), "override": [{"runs": "3", "detectors": {"jungfrua": {"common_mode": 7}}}]},
            ["no detector 'jungfrua' elsewhere", "detectors.jungfrau"],
        ),
        (
            {
                "override": [
                    {"runs": "1-3", "detectors": {"jungfrau": {"mask": "m.npy"}}},
                    {"runs": "3-4", "detectors": {"jungfrau": {"mask": {"edges": 1}}}},
                ]
            },
            ["two overrides", "detectors.jungfrau.mask for run 3"],
        ),
        (detector(unit="kev"), ["detectors.jungfrau.unit", "'keV'"]),
        (detector(reductions={"w": {"bins": 4}}), ["no kind"]),
        (detector(reductions={"w": {"kind": "azimt"}}), ["azimt", 'kind = "azint"']),
        (detector(reductions={"w": {"kind": "azint", "bin": 4}}), ["no argument 'bin'", "bins = ..."]),
        (detector(reductions={"w": {"kind": "azint", "bins": 0}}), ["bins"]),
        (detector(reductions={"w": {"kind": "azint", "range": [0.5, 4]}}), ["no unit", "angstrom-1"]),
        (
            detector(reductions={"w": {"kind": "azint", "quantity": "radius", "range": ["1 nm-1", "2 nm-1"]}}),
            ["length"],
        ),
        (detector(reductions={"w": {"kind": "droplet", "threshold": 4}}), ["no unit", '"4 keV"', '"4 sigma"']),
        (detector(reductions={"w": {"kind": "droplet", "threshold": "4 mm"}}), ["unit of pixels", "sigma"]),
        (detector(reductions={"w": {"kind": "droplet"}}), ["needs threshold"]),
        (detector(reductions={"w": {"kind": "roi", "places": {"segment": 0, "rows": [1, 2]}}}), ["rows", "row = ..."]),
        (detector(reductions={"w": {"kind": "roi", "places": {"segment": 0, "row": [5, 2]}}}), ["holds no pixel"]),
        (detector(reductions={"w": {"kind": "roi", "places": 4}}), ["no table"]),
        (detector(reductions={"a b": {"kind": "azint"}}), ["invalid name", "a b"]),
        (detector(reductions={"w": {"kind": "function"}}), ["which function"]),
        ({"override": [{"format": "h5"}]}, ["for which runs", 'runs = "10-20"']),
        ({"override": [{"runs": "x", "format": "h5"}]}, ["no numbers of runs"]),
        ({"override": [{"runs": "1", "formt": "h5"}]}, ["override 1", "formt", "format = ..."]),
        ({"override": {"runs": "1"}}, ["[[override]]"]),
        (
            {"override": [{"runs": "1-3", "format": "h5"}, {"runs": "3-4", "format": "zarr"}]},
            ["two overrides", "format for run 3"],
        ),
    ],
)
def test_invalid_arguments_are_refused_with_what_to_type(tables: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ParameterError) as error:
        xs.open_recipe(tables)
    for word in words:
        assert word in str(error.value)


def test_paths_have_one_name_from_wherever_a_recipe_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.toml").write_text(TEXT)
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert xs.open_recipe("../recipe.toml").for_run(1) == xs.open_recipe(tmp_path / "recipe.toml").for_run(1)


def test_overrides_may_overlap_where_they_say_different_things() -> None:
    recipe = xs.open_recipe({"override": [{"runs": "1-3", "format": "h5"}, {"runs": "3-4", "source": "r{run}.h5"}]})
    found = recipe.for_run(3)
    assert found.format == "h5"
    assert found.source is not None
    assert found.source.endswith("r3.h5")


@pytest.mark.parametrize(("text", "words"), [(None, "cannot be read"), ("unit = keV", "no TOML")])
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "recipe.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ParameterError, match=words) as error:
        xs.open_recipe(path)
    assert str(path) in str(error.value)


def test_a_path_that_depends_on_the_run_needs_the_run() -> None:
    recipe = xs.open_recipe({"source": "run{run}.zarr"})
    with pytest.raises(ParameterError, match="run=12"):
        recipe.for_run(None)
    with pytest.raises(ParameterError, match="cannot be filled in"):
        xs.open_recipe({"source": "run{number}.zarr"}).for_run(1)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("9.5 keV", "energy", 9500.0), ("9500eV", "energy", 9500.0), ("92.5 mm", "length", 0.0925),
        ("-3e2 um", "length", -3e-4), ("10 nm-1", "q", 1.0), ("0.3 1/nm", "q", 0.03), ("250 fs", "time", 0.25),
        ("180 deg", "angle", 180.0), ("1.5 ns", "time", 1500.0),
    ],
)  # fmt: skip
def test_quantities_are_rounded_once(text: str, kind: str, value: float) -> None:
    assert quantity(text, kind, "value") == value


def test_runs_are_numbers_and_ranges() -> None:
    assert runs_of("10-12, 25,3") == (10, 11, 12, 25, 3)
    assert runs_of(4) == (4,)
    assert runs_of(range(10, 13)) == runs_of(np.array([10, 11, 12])) == (10, 11, 12)
    assert runs_of(np.int64(4)) == runs_of(np.array(4)) == (4,)
    for wrong in (b"10", True, None, np.array(1.5), "", "5-3", "a", "1,1", "1-3,2", "-1", [], [1, 1], [1.5], ["a"]):
        with pytest.raises(ParameterError):
            runs_of(wrong)


@pytest.mark.parametrize(
    ("given", "record"),
    [
        ({"kind": "histogram", "of": 10, "range": ["0 keV", "20 keV"]}, lambda: xs.histogram(10, range=(0.0, 20.0))),
        ({"kind": "histogram", "of": ["0 keV", "1000 eV", "2 keV"]}, lambda: xs.histogram((0.0, 1.0, 2.0))),
        ({"kind": "lineout", "along": "column", "at": 3, "segment": 1}, lambda: xs.lineout("column", 3, segment=1)),
        ({"kind": "rebin", "factor": [2, 4]}, lambda: xs.rebin((2, 4))),
        ({"kind": "image", "pixel_size": "150 um"}, lambda: xs.image(pixel_size=150e-6)),
        (
            {
                "kind": "edge",
                "place": {"segment": 0, "row": [4, 8]},
                "side": {"segment": 0, "row": [0, 2]},
                "weights": 8.0,
                "direction": "rising",
                "calibration": [1.0, -0.002],
                "minimum": 0.02,
            },
            lambda: xs.edge(
                xs.Box(segment=0, row=(4, 8)),
                side=xs.Box(segment=0, row=(0, 2)),
                weights=8.0,
                direction="rising",
                calibration=[1.0, -0.002],
                minimum=0.02,
            ),
        ),
        (
            {"kind": "roi", "places": {"a": {"segment": 0}}, "threshold": ["1 keV", "9 keV"]},
            lambda: xs.roi({"a": xs.Box(segment=0)}, threshold=(1.0, 9.0)),
        ),
    ],
)
def test_reductions_are_those_of_the_functions(tmp_path: Path, given: dict[str, Any], record: Any) -> None:
    xs.open_recipe(detector(reductions={"it": given}))
    assert reductions.record_of("it", given, Context("keV", None, tmp_path)) == record()


@pytest.mark.parametrize("kind", reductions.KINDS)
def test_every_kind_of_reduction_takes_the_arguments_of_its_function(kind: str) -> None:
    assert reductions.arguments_of(kind)
    assert "noise" not in set(reductions.arguments_of(kind))


def test_thresholds_are_brought_to_the_unit_of_the_data(tmp_path: Path) -> None:
    given = {"kind": "droplet", "threshold": "4500 eV", "threshold_low": "2 keV"}
    made = reductions.record_of("drops", given, Context("keV", None, tmp_path))
    assert made == xs.droplet(4.5, 2.0)
    with pytest.raises(ParameterError, match="another unit than the data"):
        reductions.record_of("drops", given, Context("ADU", None, tmp_path))
    with pytest.raises(ParameterError, match="needs the noise"):
        reductions.record_of("drops", {"kind": "droplet", "threshold": "5 sigma"}, Context("keV", None, tmp_path))


def test_edges_are_read_in_their_unit(tmp_path: Path) -> None:
    given = {"kind": "azint", "bins": ["5 nm-1", "1 angstrom-1", "2 angstrom-1"]}
    assert reductions.record_of("w", given, Context("keV", None, tmp_path)) == xs.azint([0.5, 1.0, 2.0])


def test_a_function_beside_the_recipe_is_found_first_and_again_when_it_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def total(frame):\n    return float(frame.sum())\n")
    given = {"kind": "function", "function": "mine:total"}
    context = Context("keV", None, tmp_path)
    made = reductions.record_of("mine", given, context)
    assert isinstance(made, Record)
    assert made.function(__import__("numpy").ones(3)) == 3.0  # type: ignore[attr-defined]
    for place, words in [("mine:totl", 'function = "mine:total"'), ("none:f", "none.py"), ("mine", "mymodule:")]:
        with pytest.raises(ParameterError, match=words):
            reductions.function_of(place, tmp_path)


def test_the_schema_knows_every_key_and_what_is_unknown(tmp_path: Path) -> None:
    schema = recipe_schema()
    assert set(schema["properties"]) == {*RunRecipe.model_fields, "override"}
    kinds = schema["$defs"]["DetectorRecipe"]["properties"]["reductions"]["additionalProperties"]["anyOf"][0]["oneOf"]
    assert {one["properties"]["kind"]["const"] for one in kinds} == {*reductions.KINDS, "function"}
    assert schema["additionalProperties"] is False
    assert "description" in schema["$defs"]["Mask"]["properties"]["edges"]


def test_the_shell_shows_schema_and_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(TEXT)
    assert cli.main(["recipe", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == recipe_schema()
    assert cli.main(["recipe", str(path), "--run", "12"]) == 0
    assert json.loads(capsys.readouterr().out)["detectors"]["jungfrau"]["beam"]["distance"] == 0.1
    assert cli.main(["recipe", str(path)]) == 0
    assert "jungfrau" in capsys.readouterr().out
    path.write_text("detektors = 3")
    assert cli.main(["recipe", str(path)]) == 1
    assert "detectors" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, -2])
def test_a_production_has_one_worker_at_least(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ParameterError, match="invalid number of workers"):
        xs.produce({"source": "run.zarr"}, 1, tmp_path / "out", workers=workers)
