"""Old configurations become recipes: parsed and never executed, and what could not be translated is told."""

import tomllib
from pathlib import Path

import pytest

import xsmall as xs
from xsmall import cli
from xsmall.errors import ParameterError
from xsmall.run.convert import convert_config
from xsmall.run.recipe import open_recipe

CONFIG = '''
import os
import numpy as np
from somewhere_that_is_not_here import helper

detectors = ["jungfrau", "epix100_0"]
integrating_detectors = []
which: str = "jungfrau"
os.system("touch EXECUTED")
values = helper(3)


def getROIs(run):
    """Regions."""
    if isinstance(run, str):
        run = int(run)
    found = {}
    if run > 10:
        one = {"ROIs": [[[1, 2], [157, 487], [294, 598]]], "writeArea": True, "thresADU": None}
        found[which] = one
    else:
        found[which] = [{"ROI": [[0, 1], [1, 5], [2, 6]], "userMask": np.load("mask.npy")}]
    found["epix100_0"] = [{"name": "spot", "ROI": [[0, 300], [0, 710]], "thresADU": 2.5}]
    found["alvium"] = [{"ROI": None, "writeArea": True}]
    return found


def get_azav(run):
    out = {}
    table = {"eBeam": 9.8, "center": [-1107, 918], "dis_to_sam": 92.51, "tx": 0, "ty": 0, "phiBins": 11}
    table["qbin"] = 0.025
    table["Pplane"] = 1
    out["jungfrau"] = table
    return out


def get_droplet(run):
    return {"epix100_0": {"threshold": 110.0 / 32, "thresADU": 20.0, "useRms": False}}


def get_droplet2photon(run):
    d = {}
    d["droplet"] = {"threshold": 10, "thresholdLow": 3, "useRms": True}
    d["d2p"] = {"aduspphot": 162, "cputime": True}
    return {"epix100_0": d}


def get_sum_algos(run):
    found = {"all": ["calib", "calib_square"]}
    found["jungfrau"] = ["calib_thresADU5", "calib_max", "calib_dropped", "calib_strange"]
    return found


def get_psplot_configs(run):
    return {"andor": {"bins": np.linspace(520, 540, 3)}}


epicsPV = ["a", ("b", "c")]
'''


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "prod_config_mfx.py"
    path.write_text(CONFIG)
    return path


def test_regions_beam_and_sums_become_ours(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = convert_config(config, 12, tmp_path / "recipe.toml")
    assert not (tmp_path / "EXECUTED").exists()
    detectors = tomllib.loads((tmp_path / "recipe.toml").read_text())["detectors"]
    jungfrau = detectors["jungfrau"]["reductions"]
    assert jungfrau["ROI"] == {
        "kind": "roi", "area": True, "places": {"segment": 1, "row": [157, 487], "column": [294, 598]}
    }  # fmt: skip
    beam = open_recipe(tmp_path / "recipe.toml").for_run(12).detectors["jungfrau"].beam
    expected = xs.beam_from_smalldata(center=(-1107, 918), dis_to_sam=92.51, eBeam=9.8)  # um, mm, keV, psana's frame
    assert beam is not None
    assert (beam.photon_energy, beam.distance) == (expected.photon_energy, expected.distance)
    assert tuple(beam.center or ()) == expected.center
    assert jungfrau["azav"]["width"] == "0.025 angstrom-1"
    assert jungfrau["azav"]["azimuth_bins"] == 11
    assert jungfrau["azav"]["polarization_plane"] == "0.0 deg"  # their Pplane of 1
    assert jungfrau["calib_max"] == {"kind": "sums", "also": ["max"]}
    assert jungfrau["calib_thresADU5"]["threshold"] == "5.0 ADU"
    assert jungfrau["calib_dropped"]["by"] == "xray_on"
    epix = detectors["epix100_0"]["reductions"]
    assert epix["spot"]["threshold"] == "2.5 ADU"
    assert epix["droplet"]["sums"][0] == "20.0 ADU"
    assert [one["kind"] for one in epix["photon"]] == ["droplet", "photon"]
    assert epix["photon"][0]["threshold"] == "10 sigma"
    assert detectors["epix100_0"]["common_mode"] == 6
    told = "\n".join(made.left_out)
    for words in ("os.system", "helper(3)", "calib_strange", "alvium.ROI", "get_psplot_configs", "epicsPV"):
        assert words in told


def test_a_run_before_takes_the_other_branch_and_code_is_told_with_its_line(config: Path) -> None:
    made = convert_config(config, 3)
    assert made.tables["detectors"]["jungfrau"]["reductions"]["ROI"]["places"]["row"] == [1, 5]
    line = next(i for i, text in enumerate(CONFIG.splitlines(), 1) if "np.load" in text)
    assert f"line {line}: getROIs, jungfrau.userMask = np.load('mask.npy'): needs executing" in made.left_out


def test_what_is_no_configuration_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    with pytest.raises(ParameterError, match="cannot be read"):
        convert_config(path, 1)
    path.write_text("def f(:")
    with pytest.raises(ParameterError, match="no Python"):
        convert_config(path, 1)


def test_loops_without_an_end_and_huge_numbers_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text("detectors = []\nwhile True:\n    pass\na = 10 ** 10 ** 10\nb = [0] * 10 ** 9\n")
    made = convert_config(path, 1)
    assert len([one for one in made.left_out if one.startswith("line")]) == 3


def test_in_the_shell(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert-config", str(config), "--run", "12"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["detectors"]
    out = tmp_path / "recipe.toml"
    assert cli.main(["convert-config", str(config), "--run", "12", "--out", str(out)]) == 0
    assert "not translated: line" in capsys.readouterr().out
    assert cli.main(["convert-config", str(config), "--run", "12", "--out", str(out)]) == 1
    assert "overwrite" in capsys.readouterr().err
