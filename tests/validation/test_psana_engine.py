"""Runs opened through psana: its own calibrated frames, in any process, and nothing that it did not calibrate."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.io.psana_service import EXPERIMENT, LONG, SHORT, service

pytestmark = pytest.mark.validation
SHAPE = (3, 1, 512, 1024)


def test_a_run_through_psana_beside_psana_itself(shared: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("psana") is None:
        pytest.skip("psana is not installed")
    rng = np.random.default_rng(0)
    status = np.zeros(SHAPE, np.uint64)
    status[0, 0, 5, :7] = 1
    with service() as (held, address):
        held.add("cdb_detnames", "jungfrau", long=LONG, short=SHORT)
        held.add_array(f"cdb_{EXPERIMENT}", "pedestals", rng.normal(2700, 10, SHAPE).astype("f4"), 0, "end")
        held.add_array(f"cdb_{EXPERIMENT}", "pixel_gain", rng.uniform(30, 42, SHAPE).astype("f4"), 0, "end")
        held.add_array(f"cdb_{EXPERIMENT}", "pixel_status", status, 0, "end")
        script = Path(__file__).with_name("psana_engine.py")
        environment = os.environ | {"LCLS_CALIB_HTTP": address, "XSMALL_CACHE": str(tmp_path)}
        command = [sys.executable, str(script), str(shared / "data/xtc2")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
