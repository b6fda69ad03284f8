"""A service on this machine that answers as that of psana's database does."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np

EXPERIMENT, SHORT, LONG = "mfx101332224", "jungfrau_000003", "jungfrau_8000000020000-230920-20004002c"


class Database:
    """Collections of documents and the bytes they name."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.asked: list[str] = []
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

    def add_text(self, database: str, ctype: str, text: str, run: int, end: int | str) -> None:
        key = self._id()
        self.data[database, key] = text.encode()
        about = {"run": run, "run_end": end, "experiment": EXPERIMENT, "longname": LONG, "shortname": SHORT}
        self.add(database, SHORT, ctype=ctype, detector=SHORT, id_data=key, version="1", data_type="str", **about)

    def answer(self, path: str, query: str) -> bytes | None:
        """What the service says to GET .../<database>/<collection>?query_string=, or .../<database>/gridfs/<id>."""
        self.asked.append(path)
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


@contextmanager
def service() -> Iterator[tuple[Database, str]]:
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
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield held, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
