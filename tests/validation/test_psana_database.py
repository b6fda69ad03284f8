"""Constants of psana's database: psana itself asks a service on this machine that answers as psana's does."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.io.psana_service import EXPERIMENT, LONG, SHORT, Database, service

pytestmark = pytest.mark.validation
SCRIPT = Path(__file__).with_name("psana_database.py")
FILE = "jungfrau05M_mfx101332224_run7.xtc2"
SHAPE = (3, 1, 512, 1024)


@pytest.fixture
def database() -> Iterator[tuple[Database, str]]:
    with service() as held:
        yield held


def test_constants_of_a_run_are_those_that_psana_takes(
    database: tuple[Database, str], shared: Path, tmp_path: Path
) -> None:
    if importlib.util.find_spec("psana") is None:
        pytest.skip("psana is not installed")
    held, address = database
    held.add("cdb_detnames", "jungfrau", long=LONG, short=SHORT, seqnumber=3)
    rng = np.random.default_rng(0)
    ranges = {100: (0, "end"), 200: (5, "end"), 300: (5, 20), 400: (15, 16)}
    pedestals = {level: rng.normal(level, 1, SHAPE).astype(np.float32) for level in ranges}
    for level, (first, last) in ranges.items():
        held.add_array(f"cdb_{EXPERIMENT}", "pedestals", pedestals[level], first, last)
    status = np.zeros(SHAPE, np.uint64)
    status[1, 0, 0, :5] = 4
    held.add_array(f"cdb_{EXPERIMENT}", "pixel_status", status, 0, "end")
    gain = rng.uniform(30, 40, SHAPE).astype(np.float32)  # only in the detector's own database, of another experiment
    held.add_array(f"cdb_{SHORT}", "pixel_gain", gain, 200, "end", experiment="xpp1")
    out = tmp_path / "out.npz"
    command = [sys.executable, str(SCRIPT), str(shared / "data/xtc2" / FILE), "jungfrau", str(out)]
    environment = os.environ | {"PS_PARALLEL": "none", "LCLS_CALIB_HTTP": address, "XSMALL_CACHE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    found = dict(np.load(out))
    for run, level in {3: 100, 7: 300, 15: 400, 17: 300, 21: 200}.items():  # latest first run, then narrowest range
        np.testing.assert_array_equal(found[f"pedestal_{run}"], pedestals[level])
        np.testing.assert_array_equal(found[f"gain_{run}"], gain)
        first, last = ranges[level]
        assert found[f"run_range_{run}"].tolist() == [first, 9999 if last == "end" else last]
        assert json.loads(str(found[f"ids_{run}"])) == {"0": LONG.split("_")[1]}
    assert "no constants" in str(found["unknown"])
    assert "no pedestals for this detector and run" in str(found["no_experiment"])
    good = np.isfinite(found["ours"])
    np.testing.assert_array_equal(np.argwhere(~good)[:, 1:].tolist(), [[0, 0, c] for c in range(5)] * 2)
    np.testing.assert_allclose(found["ours"][good], found["calib"].reshape(good.shape)[good], rtol=1e-6, atol=1e-6)
