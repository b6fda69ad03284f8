"""Constants of psana's database, asked over its web service without psana, and kept on this computer.

The service holds documents, small tables of names, and the bytes that they name. Documents of an experiment are in the
database ``cdb_<experiment>``, those of a detector wherever it was in ``cdb_<detector>``; a detector has a long name,
made of the serial numbers of its panels, and a short one. What holds for a run is chosen as psana chooses it.

Bytes never change, so they are asked for once. Which bytes hold for a run may change with every dark run that is
deployed: that is asked each time, and what was last answered is taken only where nobody answers.
"""

import ast
import hashlib
import http.client
import json
import math
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from xsmall.calls import warn_user
from xsmall.errors import CalibrationError, KeptConstantsWarning
from xsmall.io.kept_files import keep_file, kept_folder

__all__ = ["LAST_RUN", "Found", "HeldDocument", "documents_of", "psana_database", "value_of"]

LAST_RUN: Final = 9999
ADDRESS: Final = "LCLS_CALIB_HTTP"
"""Variable of the environment with another address of the service, as psana knows it."""
_SERVICE: Final = "https://pswww.slac.stanford.edu/ws"
_NAMES: Final = "cdb_detnames"
_PATIENCE: Final = 60.0
"""Seconds to wait for an answer."""
_MOST_ARRAYS, _MOST_ANSWERS = 64, 1024

Document = dict[str, Any]
Found = dict[str, tuple[Any, Document]]
"""Arrays and texts by their type, each with its document: the form of psana's ``calibconst``."""


class _Silent(Exception):  # it never leaves this module
    """Nobody answers."""


class HeldDocument(NamedTuple):
    """A document, with the database that has its bytes."""

    database: str
    document: Document


def psana_database(detector: str, experiment: str, run: int | None) -> Found:
    """Ask for all constants of a detector that hold for a run.

    Parameters
    ----------
    detector
        Its long name: type and serial numbers of its panels, joined by ``_``; or the short one.
    experiment
        Such as ``"mfx101332224"``.
    run
        Number of the run; None or 0: the last.

    Returns
    -------
    ``{"pedestals": (array, document), "geometry": (text, document), ...}``. Of each type that of the experiment with
    the latest first run, then the narrowest range, then the newest; else the newest of the detector.

    Raises
    ------
    CalibrationError
        Nobody answers and nothing was kept, the detector is not known, or there is nothing for it.

    Warns
    -----
    KeptConstantsWarning
        Nobody answers: what was answered before is taken.

    Notes
    -----
    Costs three small questions, and the bytes of what was never asked for before.
    """
    found: Found = {}
    for kind, held in documents_of(detector, experiment, run).items():
        value = value_of(held)
        if value is not None:
            found[kind] = (value, held.document)
    if not found:
        raise CalibrationError(
            "psana's database has no constants",
            found=f"detector {detector!r}, experiment {experiment!r}, run {run}",
            expected="the name of a detector in the files of a run, or its long name in the database",
            fix='xs.open_constants("exp=mfx101332224,run=7", detector="jungfrau")',
        )
    return found


# ---- which documents -------------------------------------------------------------------------------------------------


def documents_of(detector: str, experiment: str, run: int | None) -> dict[str, HeldDocument]:
    """Give the documents that hold for a run, by type, without their bytes; see :func:`psana_database`."""
    run = min(run or LAST_RUN, LAST_RUN)
    name = hashlib.sha256(json.dumps([_service_address(), detector, experiment, run]).encode()).hexdigest()[:32]
    folder = kept_folder("constants")
    place = None if folder is None else folder / f"{name}.json"
    try:
        chosen = _ask_documents(detector, experiment, run)
    except _Silent as error:
        kept = _read_answer(place)
        if kept is None:
            raise CalibrationError(
                "psana's database cannot be reached",
                found=str(error)[:200],
                expected=f"an answer of its web service, {_service_address()}",
                fix=f"check the network; {ADDRESS} in the environment names another address of the service",
            ) from error
        warn_user(
            f"psana's database cannot be reached ({str(error)[:100]}): the constants of {detector!r} for {experiment}, "
            f"run {run}, are those that it named on {kept[0]}",
            KeptConstantsWarning,
        )
        return kept[1]
    if place is not None and chosen:
        told = {"on": np.datetime_as_string(np.datetime64("now")), "documents": chosen}
        keep_file(place, lambda file: file.write(json.dumps(told).encode()), _MOST_ANSWERS)
    return dict(sorted(chosen.items()))


def _read_answer(place: Path | None) -> tuple[str, dict[str, HeldDocument]] | None:
    try:
        told = json.loads(place.read_bytes()) if place is not None else {}
        return str(told["on"]), {kind: HeldDocument(*held) for kind, held in told["documents"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ask_documents(detector: str, experiment: str, run: int) -> dict[str, HeldDocument]:
    short = _short_name(detector)
    if short is None:
        return {}
    chosen: dict[str, HeldDocument] = {}
    of_run = _find_documents(f"cdb_{experiment}", short, {"detector": short, "run": {"$lte": run}})
    for kind, documents in _by_kind(of_run).items():
        valid = [d for d in documents if d.get("run", 0) <= run <= _last_run(d)]
        if valid:
            best = max(valid, key=lambda d: (int(d["run"]), -_last_run(d), _seconds(d)))
            chosen[kind] = HeldDocument(f"cdb_{experiment}", best)
    of_detector = _find_documents(f"cdb_{short}", short, {"detector": short, "run": {"$lte": LAST_RUN}})
    for kind, documents in _by_kind(of_detector).items():
        if kind not in chosen:
            chosen[kind] = HeldDocument(f"cdb_{short}", max(documents, key=_seconds))
    return chosen


def _short_name(detector: str) -> str | None:
    """Short name of a detector: of its long name, else of the first that has all its panels, else it is short."""
    collection = detector.split("_", 1)[0]
    if not collection.isidentifier():
        return None
    known = _find_documents(_NAMES, collection, {})
    exact = [d["short"] for d in known if d.get("long") == detector and d.get("short")]
    panels = detector.split("_")[1:]
    parts = [d["short"] for d in known if d.get("short") and panels and all(p in str(d.get("long")) for p in panels)]
    short = [d["short"] for d in known if d.get("short") == detector]
    return next(iter([*exact, *short, *parts]), None)


def _by_kind(documents: Sequence[Document]) -> dict[str, list[Document]]:
    result: dict[str, list[Document]] = {}
    for document in documents:
        if document.get("ctype"):
            result.setdefault(str(document["ctype"]), []).append(document)
    return result


def _last_run(document: Document) -> int:
    """Last run that a document holds for; -1 where it does not say one: then it holds for none."""
    end = str(document.get("run_end"))
    if end == "end":
        return LAST_RUN
    return int(end) if end.isdecimal() and int(end) <= LAST_RUN else -1


def _seconds(document: Document) -> int:
    """When a document was made: its identifier begins with that."""
    try:
        return int(str(document.get("_id"))[:8], 16)
    except ValueError:
        return 0


# ---- values ----------------------------------------------------------------------------------------------------------


def value_of(held: HeldDocument) -> Any:
    """Give the array or text that a document names; None for anything else: pickled objects are not opened."""
    kind, key = held.document.get("data_type"), str(held.document.get("id_data", ""))
    if kind not in ("ndarray", "str") or not key.isalnum():
        return None
    folder = kept_folder("constants")
    place = None if folder is None else folder / f"{held.database}_{key}.bin"
    data = _read_bytes(place)
    value = None if data is None else _decoded_array(data, held.document)
    if value is None:
        try:
            data = _get(f"{held.database}/gridfs/{key}")
        except _Silent as error:
            raise CalibrationError(
                f"psana's database does not give {held.document.get('ctype')!r}",
                found=str(error)[:200],
                expected=f"the data {key} in {held.database}",
                fix="ask again; check the network",
            ) from error
        value = _decoded_array(data, held.document)
        if value is None:
            raise CalibrationError(
                f"psana's database gives {held.document.get('ctype')!r} in another size than it says",
                found=f"{len(data)} bytes",
                expected=f"{held.document.get('data_dtype')} of shape {held.document.get('data_shape')}",
                fix="ask again; where that does not help, deploy these constants once more",
            )
        if place is not None:
            checked = hashlib.sha256(data).digest() + data
            keep_file(place, lambda file: file.write(checked), _MOST_ARRAYS)
    return value


def _read_bytes(place: Path | None) -> bytes | None:
    """Give bytes that were kept; None where there are none, or other ones than were written."""
    try:
        kept = b"" if place is None else place.read_bytes()
    except OSError:
        return None
    data = kept[32:]
    return data if len(kept) > 32 and hashlib.sha256(data).digest() == kept[:32] else None


def _decoded_array(data: bytes, document: Mapping[str, Any]) -> Any:
    if document.get("data_type") == "str":
        return data.decode("utf-8", "replace")
    try:
        dtype = np.dtype(str(document["data_dtype"]))
        told = ast.literal_eval(str(document["data_shape"]))
        shape = tuple(int(n) for n in (told if isinstance(told, tuple | list) else (told,)))
    except (KeyError, TypeError, ValueError, SyntaxError):
        return None
    if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        return None
    return np.frombuffer(data, dtype).reshape(shape)


# ---- the service -----------------------------------------------------------------------------------------------------


def _service_address() -> str:
    return os.environ.get(ADDRESS, _SERVICE).rstrip("/") + "/calib_ws"


def _find_documents(database: str, collection: str, query: Mapping[str, Any]) -> list[Document]:
    text = urllib.parse.urlencode({"query_string": json.dumps(query)})
    data = _get(f"{database}/{collection}?{text}", missing=b"[]")
    try:
        found = json.loads(data)
    except ValueError as error:
        raise _Silent(f"no list of documents but {data[:60]!r}") from error
    return [d for d in found if isinstance(d, dict)] if isinstance(found, list) else []


def _get(path: str, missing: bytes | None = None) -> bytes:
    """Bytes of one answer; ``missing`` where the service does not know what was asked for."""
    address = f"{_service_address()}/{path}"
    if not address.startswith(("http://", "https://")):
        raise _Silent(f"{address}: no address of a web service")
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:  # noqa: S310 # the scheme was looked at
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.NOT_FOUND and missing is not None:
            return missing
        raise _Silent(f"{address}: {error}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # no network, an answer that is cut off
        raise _Silent(f"{address}: {error}") from error
