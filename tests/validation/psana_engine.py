"""Run by test_psana_engine in a process of its own: runs opened through psana, beside psana itself.

python psana_engine.py FOLDER, where files of public runs are, with LCLS_CALIB_HTTP set
"""

import re
import sys
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import xsmall as xs
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.io.constants.psana_database import psana_database
from xsmall.io.sources.psana.program import import_psana

JUNGFRAU = "jungfrau05M_mfx101332224_run7.xtc2"


def summed(detector: Any, event: Any) -> float:
    """What a user would write."""
    return float(detector.raw.raw(event).sum(dtype=np.float64))


def refused(error: type[Exception], text: str, *args: Any, **options: Any) -> None:
    with pytest.raises(error, match=re.escape(text)):
        xs.open_run(*args, engine="psana", **options)


def calibrated_frames_are_those_of_psana(path: Path) -> None:
    run = xs.open_run(path, engine="psana")
    ours = run["jungfrau/calib"]
    assert ours.dims == ("event", "segment", "row", "column")
    assert ours.attrs["units"] == "keV"
    source = import_psana().DataSource(files=[str(path)], skip_calib_load="all")
    theirs = next(source.runs())
    theirs._calib_const["jungfrau"] = psana_database(ours.attrs["detector_id"], "mfx101332224", 7)
    detector = theirs.Detector("jungfrau")
    assert theirs.dsparms.configinfo_dict["jungfrau"].uniqueid == ours.attrs["detector_id"]
    expected = np.stack([np.array(detector.raw.calib(event)) for event in theirs.events()])
    good = ours.usable.values
    assert np.isnan(ours.values[:, ~good]).all()
    assert (~good).sum() == 7
    np.testing.assert_array_equal(ours.values[:, good], expected[:, good])
    own = run["jungfrau/raw"].sd.calibrate(xs.open_constants(run["jungfrau/raw"])).values[:, good]
    known = np.isfinite(own)  # gain codes that cannot be are NaN here
    np.testing.assert_allclose(own[known], expected[:, good][known], rtol=1e-6, atol=1e-6)
    means = ours.sd.roi(xs.Box(segment=0, row=(8, 40), column=(0, 64)))["mean"]
    np.testing.assert_allclose(means.values[:, 0], expected[:, 0, 8:40, :64].mean(axis=(1, 2)), rtol=1e-5)
    with dask.config.set(scheduler="processes", num_workers=2):  # any process evaluates any event
        np.testing.assert_array_equal(xs.open_run(path, engine="psana", chunks=1)["jungfrau/calib"], ours)
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(xs.open_run(path, engine="psana", chunks=1)["jungfrau/calib"][::-1], ours[::-1])


def whatever_psana_or_a_function_gives(path: Path) -> None:
    read = {"total": ("jungfrau", summed), "again": "jungfrau.raw.raw", "n": ("jungfrau", lambda d, e: len("ab"))}
    run = xs.open_run(path, engine="psana", read=read)
    assert "calib" not in run["jungfrau"]
    np.testing.assert_array_equal(run["jungfrau/again"], run["jungfrau/raw"])
    np.testing.assert_array_equal(run["jungfrau/total"], run["jungfrau/raw"].sum(("segment", "row", "column")))
    assert run["jungfrau/n"].values.tolist() == [2, 2]
    node = xs.open_run(path, engine="psana", read=["jungfrau.raw.image"])["jungfrau"]
    assert node["image"].dims == ("event", "image_0", "image_1")
    refused(ParameterError, "jungfrau", path, read=["camera.raw.calib"])
    refused(ParameterError, "raw.calib", path, read=["jungfrau.raw.kalib"])
    refused(ParameterError, "read=['jungfrau.raw.calib']", path, read="jungfrau.raw.calib")
    refused(ParameterError, "function", path, read={"a": ("jungfrau", 3)})
    refused(DataError, "event 0: psana fails", path, read={"a": ("jungfrau", lambda d, e: 1 / 0)})
    refused(DataError, "no array", path, read={"a": ("jungfrau", lambda d, e: {"x": 1})})
    shifting = xs.open_run(path, engine="psana", read={"a": ("jungfrau", lambda d, e: np.zeros(e.timestamp % 7))})
    with pytest.raises(DataError, match="of another form in event 1"):
        shifting["jungfrau/a"].compute()


def streams_and_events_are_those_of_the_run(folder: Path) -> None:
    for name, detector in (("fakesteps", "andor"), ("multi-seg-epics", "hsd")):
        read = {"value": (detector, lambda d, e: np.asarray(d.raw.calib(e)))}
        run = xs.open_run("exp=xpptut15,run=14", dir=folder / name, engine="psana", read=read)
        node = run[detector].to_dataset()
        here = node.present.values.all(axis=1)
        own = node[next(n for n in node.data_vars if n != "value" and node[n].dims[0] == "event")]
        assert node.value.sizes["event"] == run["events"].sizes["event"]
        assert np.asarray(own.values[here]).size == np.asarray(node.value.values[here]).size
        np.testing.assert_array_equal(
            own.values[here].reshape(here.sum(), -1), node.value.values[here].reshape(here.sum(), -1)
        )
        assert np.isnan(node.value.values[~here].astype(float)).all()


def without_pedestals_nothing_is_called_calibrated(folder: Path) -> None:
    path = folder / "epix10kaquad_ueddaq02_run109.xtc2"
    run = xs.open_run(path, engine="psana")
    assert "epixquad.raw.calib: psana has no pedestals" in run.attrs["left_out"], run.attrs
    assert "calib" not in run["epixquad"]
    refused(CalibrationError, "would give raw words as calibrated ones", path, read=["epixquad.raw.calib"])
    again = xs.open_run(path, engine="psana", read={"again": "epixquad.raw.raw"})["epixquad"]
    np.testing.assert_array_equal(again["again"], again["raw"])  # psana's array of four panels is ours


if __name__ == "__main__":
    data = Path(sys.argv[1])
    calibrated_frames_are_those_of_psana(data / JUNGFRAU)
    whatever_psana_or_a_function_gives(data / JUNGFRAU)
    streams_and_events_are_those_of_the_run(data)
    without_pedestals_nothing_is_called_calibrated(data)
