"""Descriptions of a Zarr store: the ``zarr.json`` of each group and array, which Zarr itself neither misses nor checks.

The root carries a checksum over all of them, and over their copies in groups ("consolidated metadata"), so that a store
in which one was lost or has changed is not opened. It goes by what they say: order and white space do not count.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

from xsmall.errors import FileFormatError
from xsmall.vocabulary import CHECKSUM

__all__ = ["DESCRIPTION", "check_descriptions", "seal"]

DESCRIPTION: Final = "zarr.json"
"""Name of the file that describes a group or an array; that of the root is what a store is known by."""


def seal(root: Path) -> None:
    """Write the checksum of all descriptions into that of the root, as the last thing that is written."""
    file = root / DESCRIPTION
    told = json.loads(file.read_bytes())
    told["attributes"][CHECKSUM] = _description_checksum(_descriptions(root, ""))
    file.write_text(json.dumps(told, indent=2), encoding="utf-8")


def check_descriptions(root: Path) -> None:
    """Refuse a store of which a group or an array has lost its description, or has another than was written.

    Raises
    ------
    FileFormatError
        Names the file that is gone or cannot be read, or says that one of them has changed.
    """
    found = _descriptions(root, "")
    written = _attributes(found).get(CHECKSUM)
    if written is not None and written != _description_checksum(found):
        raise FileFormatError(
            f"{root}: a description of a group or array ({DESCRIPTION}) has changed since it was written",
            found=f"another {CHECKSUM} than the root says",
            expected="descriptions as xsmall wrote them",
            fix=f"copy it again from where it was written; if it was changed on purpose, remove {CHECKSUM!r} from "
            f"the attributes in {root / DESCRIPTION}",
        )


def _attributes(found: dict[str, Any]) -> dict[str, Any]:
    attributes = found[""].get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def _descriptions(folder: Path, name: str) -> dict[str, Any]:
    """All descriptions below a group, by their place in the store."""
    file = folder / DESCRIPTION
    try:
        told = json.loads(file.read_bytes())
        kind = told["node_type"]
    except FileNotFoundError:
        raise _undescribed(file, "nothing") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _undescribed(file, f"{type(error).__name__}: {error}") from error
    out = {name: told}
    if kind == "group":
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if entry.is_dir() and not entry.name.startswith("."):
                out |= _descriptions(Path(entry.path), f"{name}/{entry.name}")
    return out


def _description_checksum(found: dict[str, Any]) -> str:
    attributes = {k: v for k, v in _attributes(found).items() if k != CHECKSUM}
    meant = {**found, "": {**found[""], "attributes": attributes}}
    return hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()[:16]


def _undescribed(file: Path, found: str) -> FileFormatError:
    return FileFormatError(
        f"{file}: this group or array has lost its description",
        found=found,
        expected="what Zarr calls its metadata",
        fix="copy it again from where it was written",
    )
