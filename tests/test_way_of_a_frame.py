"""The way of raw frames through the package is short: they are looked at once, and then told about.

A function that is handed the frames, the array inside, or their description is visited. Visits of one file that follow
each other are one stay; a stay in a folder of a higher level than the one before it is a climb.
``python -m pytest tests/test_way_of_a_frame.py -rP`` prints the way.
"""

import itertools
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.detector.frames import Frames

LAYERS = runpy.run_path(str(Path(__file__).with_name("test_layers.py")))
PACKAGE: Path = LAYERS["PACKAGE"]
STAYS, FILES, CLIMBS = 25, 10, 4


def way_of(call: Callable[[xr.DataArray], Any], raw: xr.DataArray) -> list[tuple[str, str]]:
    """Files and functions that ``raw`` is handed to, in their order."""
    frames = {id(raw), id(raw.variable), id(raw.variable._data)}
    visits: list[tuple[str, str]] = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(PACKAGE)) or code.co_name.startswith("<"):
            return
        given = [frame.f_locals.get(n) for n in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
        if any(id(value) in frames or isinstance(value, Frames) for value in given):
            visits.append((str(Path(code.co_filename).relative_to(PACKAGE)), code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        call(raw)
    finally:
        sys.setprofile(before)
    return visits


def level(file: str) -> int:
    return LAYERS["LEVELS"][LAYERS["folder_of"](LAYERS["name_of"](PACKAGE / file))]  # type: ignore[no-any-return]


def labelled(words: np.ndarray, detector_type: str) -> xr.DataArray:
    dims = ("event", "segment", "row", "column")
    labels = {dim: np.arange(size) for dim, size in zip(dims, words.shape, strict=True)}
    return xr.DataArray(words, labels, dims, attrs={"detector_type": detector_type})


def jungfrau() -> tuple[xr.DataArray, xr.Dataset, dict[str, Any], Any]:
    sim = xs.simulate(12, shape=(2, 32, 64), seed=5)
    raw = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry)
    return raw.sd.assign_beam(photon_energy=9500, distance=0.1), sim.constants, {}, 0


def epix10ka() -> tuple[xr.DataArray, xr.Dataset, dict[str, Any], Any]:
    shape = (1, 352, 384)
    pedestal, gain, noise = (np.full((7, *shape), value) for value in (100.0, 10.0, 3.0))
    raw = labelled(np.random.default_rng(1).integers(90, 200, (3, *shape)).astype("u2"), "epix10ka").chunk(event=1)
    constants = xs.constants("epix10ka", pedestal, gain=gain, noise=noise)
    return raw, constants, {"gain_control": np.full(shape, 16, "u1")}, "recommended"


def agipd() -> tuple[xr.DataArray, xr.Dataset, dict[str, Any], Any]:
    raw = labelled(np.random.default_rng(1).integers(90, 200, (4, 1, 64, 64)).astype("u2"), "agipd")
    raw = raw.assign_coords(memory_cell=("event", [0, 1, 1, 0]))
    shape, dims = (2, 3, 1, 64, 64), ("memory_cell", "gain_stage", "segment", "row", "column")
    constants = xr.Dataset(
        {"pedestal": (dims, np.full(shape, 100.0, "f4")), "gain": (dims, np.full(shape, 10.0, "f4"))}
    )
    constants["gain"].attrs["units"] = "ADU/keV"
    constants = constants.assign_coords(memory_cell=[0, 1]).assign_attrs(detector_type="agipd")
    return raw, constants, {"gain_stage": raw.copy(data=np.zeros(raw.shape, "u1"))}, 0


CALLS: dict[str, Callable[..., Any]] = {
    "calibrate": lambda raw, constants, mode, **options: xs.calibrate(raw, constants, common_mode=mode, **options),
    "trust": lambda raw, constants, mode, **options: xs.trust(raw, constants, **options),
    "common_mode": lambda raw, constants, mode, **options: xs.common_mode(raw, mode, constants, **options),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("detector", [jungfrau, epix10ka, agipd])
def test_the_way_of_raw_frames_is_short(detector: Callable[..., Any], name: str) -> None:
    raw, constants, options, mode = detector()
    options["mask"] = np.ones(raw.shape[1:], bool)
    visits = way_of(lambda frames: CALLS[name](frames, constants, mode, **options), raw)
    stays = [file for i, (file, _) in enumerate(visits) if i == 0 or file != visits[i - 1][0]]
    climbs = sum(level(there) > level(here) for here, there in itertools.pairwise(stays))
    way = [f"{level(file):3} {file}: {function}" for file, function in visits]
    way.append(f"{detector.__name__}, {name}: {len(stays)} stays, {len(set(stays))} files, {climbs} climbs")
    sys.stdout.write("\n".join(way) + "\n")
    assert stays[0].startswith("calibration/")
    assert len(stays) <= STAYS
    assert len(set(stays)) <= FILES
    assert climbs <= CLIMBS


def test_a_way_back_up_is_seen() -> None:
    """The tracer sees what it has to: the first look at the frames, and the way back from it."""
    raw, constants, _, _ = jungfrau()
    files = [file for file, _ in way_of(lambda frames: xs.calibrate(frames, constants), raw)]
    assert "frames/describe.py" in files
    assert level("calibration/calibrate.py") > level("frames/describe.py") > level("detector/part.py")
