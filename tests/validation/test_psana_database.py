"""Constants of psana's database: psana itself asks a service on this machine that answers as psana's does."""

import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

pytestmark = pytest.mark.validation
SCRIPT = Path(__file__).with_name("psana_database.py")
FILE = "jungfrau05M_mfx101332224_run7.xtc2"
EXPERIMENT, SHORT, LONG = "mfx101332224", "jungfrau_000003", "jungfrau_8000000020000-230920-20004002c"
SHAPE = (3, 1, 512, 1024)


class Database:
    """Collections of documents and the bytes they name."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.data: dict[tuple[str, str], bytes] = {}

    def _id(self) -> str:
        n = len(self.data) + sum(map(len, self.documents.values()))
        return f"{0x65000000 + n:08x}{n:016x}"  # the time in seconds, then anything

    def add(self, database: str, collection: str, **document: Any) -> None:
        self.documents.setdefault((database, collection), []).append({"_id": self._id(), **document})

    def add_array(self, database: str, ctype: str, array: np.ndarray, run: int, end: int | str, **more: Any) -> None:
        key = self._id()
        self.data[database, key] = array.tobytes()
        about = {"run": run, "run_end": end, "experiment": EXPERIMENT, "longname": LONG, "shortname": SHORT} | more
        self.add(
            database, SHORT, ctype=ctype, detector=SHORT, id_data=key, time_sec=0x65000000, version="1",
            data_type="ndarray", data_dtype=str(array.dtype), data_shape=str(array.shape), **about,
        )  # fmt: skip

    def answer(self, path: str, query: str) -> bytes | None:
        """What the service says to GET .../<database>/<collection>?query_string=, or .../<database>/gridfs/<id>."""
        parts = path.strip("/").split("/")[1:]
        if len(parts) == 3 and parts[1] == "gridfs":
            return self.data.get((parts[0], parts[2]))
        try:
            wanted = json.loads(parse_qs(query).get("query_string", ["{}"])[0])
        except ValueError:
            return None
        found = [d for d in self.documents.get((parts[0], parts[1]), []) if _fits(d, wanted)]
        return json.dumps(found).encode()


def _fits(document: dict[str, Any], query: dict[str, Any]) -> bool:
    limits = {name: value["$lte"] for name, value in query.items() if isinstance(value, dict)}
    same = all(document.get(name) == value for name, value in query.items() if name not in limits)
    return same and all(document[name] <= limit for name, limit in limits.items())


@pytest.fixture
def database() -> Iterator[tuple[Database, str]]:
    held = Database()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlparse(self.path)
            body = held.answer(url.path, url.query)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield held, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


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
    environment = os.environ | {"PS_PARALLEL": "none", "LCLS_CALIB_HTTP": address}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    if "cannot load MPI library" in done.stderr:
        pytest.skip("psana needs an MPI library (python -m pip install mpich)")
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


def test_a_service_that_does_not_answer_is_named(tmp_path: Path) -> None:
    if importlib.util.find_spec("psana") is None:
        pytest.skip("psana is not installed")
    code = "import xsmall as xs; xs.open_constants('psana', detector='jungfrau_1', experiment='xpp1', run=1)"
    environment = os.environ | {"PS_PARALLEL": "none", "LCLS_CALIB_HTTP": "http://127.0.0.1:9"}  # nobody is there
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    if "cannot load MPI library" in done.stderr:
        pytest.skip("psana needs an MPI library (python -m pip install mpich)")
    assert "CalibrationError: psana's database cannot be reached" in done.stderr
