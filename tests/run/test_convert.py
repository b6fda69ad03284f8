"""Old configurations become recipes: parsed and never executed, and what could not be translated is told."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall import cli
from xsmall.errors import ParameterError
from xsmall.run.arguments import Context
from xsmall.run.convert import convert_config
from xsmall.run.old_config import read_config
from xsmall.run.recipe import Recipe, open_recipe
from xsmall.run.reductions import record_of

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
    assert len(jungfrau["azav"]["azimuth_bins"]) == 12
    assert jungfrau["azav"]["polarization_plane"] == "0.0 deg"  # their Pplane of 1
    assert jungfrau["calib_max"] == {"kind": "sums", "also": ["max"]}
    assert jungfrau["calib_thresADU5"]["threshold"] == "5.0 keV"  # what they call ADU is keV for this detector
    assert jungfrau["calib_dropped"]["by"] == "xray_on"
    epix = detectors["epix100_0"]["reductions"]
    assert epix["spot"]["threshold"] == "2.5 ADU"
    assert epix["droplet"]["sums"][0] == "20.0 ADU"
    assert [one["kind"] for one in epix["photon"]] == ["droplet", "photon"]
    assert epix["photon"][0]["threshold"] == "10.0 sigma"
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


BOMBS = """
detectors = []
while True:
    pass
a = 10 ** 10 ** 10
b = [0] * 10 ** 9
c = 10 ** 9 * [0]
d = range(10 ** 9)
e = np.arange(10 ** 9)
f = np.linspace(0, 1, 10 ** 9)
g = "%1000000000d" % 1
h, k = [0], 2
for i in range(100):
    h = h + h
for i in range(100):
    k = k * k
"""


def test_loops_without_an_end_and_huge_numbers_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text(BOMBS)
    told = {one.split(":")[0] for one in convert_config(path, 1).left_out if one.startswith("line")}
    assert told == {f"line {n}" for n in (3, 5, 6, 7, 8, 9, 10, 11, 14, 16)}
    path.write_text(
        "for i in range(9999):\n    for j in range(9999):\n        for k in range(9999):\n            x = i"
    )
    assert any("the rest was not read" in one for one in convert_config(path, 1).left_out)


AS_PYTHON = """
import numpy as np
common = {"eBeam": 9.8, "center": (0, 0)}
bins = np.linspace(0, 1, 3) * 2 + np.array([1, 2, 3])
fallback = {} or {"a": 1}
def getAzIntParams(run, hutch="mfx"):
    edges = np.arange(4) * 0.5
    table = {**common, "dis_to_sam": 100, "qbin": edges, "name": hutch}
    other = common.copy()
    other["dis_to_sam"] = fallback.get("a") and max(90, 80)
    return {"jungfrau": table, "epix100": other} if __name__ != "__main__" else None
"""


def test_values_are_those_that_python_would_make(tmp_path: Path) -> None:
    path, space = tmp_path / "config.py", dict[str, object]()
    path.write_text(AS_PYTHON)
    exec(AS_PYTHON, space)
    found = read_config(path, 1)
    assert found.problems == []
    assert found.values["bins"] == space["bins"].tolist()  # type: ignore[attr-defined]
    expected = space["getAzIntParams"](1)  # type: ignore[operator]
    expected["jungfrau"]["qbin"] = expected["jungfrau"]["qbin"].tolist()
    assert found.functions["getAzIntParams"] == expected


ODD = """
detectors = "jungfrau"
aioParams = [[1], ["laser"]]
common = 3
def getROIs(run, det):
    return {}
def get_azav(run):
    return {"jungfrau": {"eBeam": helper(3), "center": [0, 0], "dis_to_sam": 100}, "cam": {"center": None}}
def get_droplet2photon(run):
    return {"jungfrau": {"droplet": {"threshold": "many", "pixmax": 3}, "d2p": {"aduspphot": 9.5}}, "cam": common}
def get_droplet(run):
    return [{"threshold": common}]
def get_sum_algos(run):
    return {"jungfrau": ["calib_dropped_square", "calib_thresADU2_nhits", None]}
"""


def test_what_is_odd_is_told_and_nothing_of_it_is_guessed(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text(ODD)
    made = convert_config(path, 1)
    assert list(made.tables["detectors"]) == ["jungfrau"]
    assert made.tables["detectors"]["jungfrau"]["reductions"] == {
        "calib_dropped": {"kind": "sums", "by": "xray_on"},
        "calib_thresADU2_nhits": {"kind": "sums", "count_above": "2.0 keV"},
    }
    told = "\n".join(made.left_out)
    for words in (
        "getROIs(run, det) is no function of run",
        "jungfrau.eBeam = helper(3): needs executing",
        "get_azav, cam: without center (um)",
        "could not convert string to float: 'many'",
        "get_droplet2photon, cam = 3: no table",
        "get_droplet: {'threshold': 3}",
        "get_sum_algos, jungfrau: None",
        "aioParams = [1], ['laser']",
    ):
        assert words in told


BEAM = """
def get_azav(run):
    table = {"eBeam": 9.8, "center": [-107, 218], "dis_to_sam": 4.51, "qbin": 0.25, "phiBins": 8, "Pplane": 0.75}
    return {"jungfrau": {**table, "geomCorr": False}}
"""


def test_sectors_and_polarization_are_those_of_their_formulas(tmp_path: Path) -> None:
    """Frames of a thousand everywhere: the intensity of a bin is that over the mean polarization of its pixels."""
    sim = xs.simulate(2, shape=(2, 16, 32), seed=1, missing=0.0)
    raw = sim.run["jungfrau"]["raw"]
    flat = xr.full_like(raw, 1000).sd.assign_geometry(sim.geometry)
    flat.attrs.pop("detector_type")
    (tmp_path / "config.py").write_text(BEAM)
    table = convert_config(tmp_path / "config.py", 1).tables["detectors"]["jungfrau"]
    recipe = Recipe({"detectors": {"jungfrau": {k: table[k] for k in ("beam", "reductions")}}}, tmp_path).for_run(1)
    beam = recipe.detectors["jungfrau"].beam
    assert beam is not None
    record = record_of(
        "azav", recipe.detectors["jungfrau"].reductions["azav"], Context(None, None, tmp_path, flat, None)
    )
    frames = flat.sd.assign_beam(
        photon_energy=beam.photon_energy, distance=beam.distance, center=tuple(beam.center or ())
    )
    found = frames.sd.apply(record).isel(event=0)

    at = 1e3 * sim.geometry.positions()  # mm; psana's x is our -y, its y our -x
    x, y, depth = -at[..., 1] + 0.107, -at[..., 0] - 0.218, 4.51
    theta, phi = np.arctan2(np.hypot(x, y), depth), np.arctan2(x, y)  # phi is 0 along psana's y and grows towards its x
    sector = np.floor((phi + np.pi / 8) % (2 * np.pi) / (np.pi / 4)).astype(int)
    part = 0.25 * (1 - (np.sin(phi) * np.sin(theta)) ** 2) + 0.75 * (1 - (np.cos(phi) * np.sin(theta)) ** 2)
    q = 4 * np.pi / (12.398419843320026 / 9.8) * np.sin(theta / 2)
    ring = np.floor(q / 0.25).astype(int)
    rings = np.round(found["q"].values / 0.25 - 0.5).astype(int)
    for s in range(8):
        for i, number in enumerate(rings):
            inside = (sector == s) & (ring == number)
            assert int(found["n_valid"][s, i]) == inside.sum()
            if inside.any():
                np.testing.assert_allclose(found["intensity"][s, i], 1000 / part[inside].mean(), rtol=1e-5)


def test_in_the_shell(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert-config", str(config), "--run", "12"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["detectors"]
    out = tmp_path / "recipe.toml"
    assert cli.main(["convert-config", str(config), "--run", "12", "--out", str(out)]) == 0
    assert "not translated: line" in capsys.readouterr().out
    assert cli.main(["convert-config", str(config), "--run", "12", "--out", str(out)]) == 1
    assert "overwrite" in capsys.readouterr().err
