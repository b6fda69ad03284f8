"""Indices that are kept: in this process, and of long files in a folder of the user, so that the next process has them.

A kept index belongs to certain bytes: path, size and time of change of each file. Where the last file has grown since,
the walk goes on from its end. Anything wrong with what was kept means walking again. ``XSMALL_CACHE`` names the folder,
``XSMALL_CACHE=0`` keeps nothing.
"""

import hashlib
import json
import threading
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.io.files import Identity, ReadWindow, open_file
from xsmall.io.kept_files import keep_file, kept_folder
from xsmall.io.sources.xtc2.chain import Chain
from xsmall.io.sources.xtc2.format import Datagram, Service, XtcBlock
from xsmall.io.sources.xtc2.index import Layout, StreamIndex, Transition, UnreadableEvent, read_tables
from xsmall.io.sources.xtc2.walk import Walk

__all__ = ["index_of"]

FORMAT: Final = 1
ENOUGH_EVENTS: Final = 20_000
"""Events from which on an index is worth a file."""
_MOST: Final = 64
"""Files that are kept."""
_WALKS: Final = 32
_TYPES: Final = ("<i8", "<i8", "<u8", "<u2", "<i4")

_lock = threading.Lock()
_walked: dict[str, Walk] = {}
"""Walks that can go on, by the path of the first file."""


@lru_cache(maxsize=32)
def _walk_index(files: tuple[Identity, ...]) -> StreamIndex:
    walk = _walked.pop(files[0].path, None)
    if walk is None or not walk.follows(files):
        walk = _walk_kept(files)
    before = len(walk.columns[0])
    walk.walk(files)
    if len(walk.columns[0]) - before >= ENOUGH_EVENTS:
        _save_walk(walk)
    while len(_walked) >= _WALKS:
        del _walked[next(iter(_walked))]
    _walked[files[0].path] = walk
    return walk.index()


def index_of(files: tuple[Identity, ...]) -> StreamIndex:
    """Give the index of a stream; each process makes it once, and goes on with it where the files have grown."""
    with _lock:
        return _walk_index(files)


def forget() -> None:
    """Forget what this process keeps, as another would not know it."""
    with _lock:
        _walk_index.cache_clear()
        _walked.clear()


def _walk_path(first: str) -> Path | None:
    folder = kept_folder("indices")
    name = hashlib.sha256(first.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return None if folder is None else folder / f"{name}.npz"


def _save_walk(walk: Walk) -> None:
    """Write a walk to its file; where that cannot be, the next process walks again."""
    place = _walk_path(walk.files[0].path)
    if place is None:
        return
    told: dict[str, Any] = {
        "format": FORMAT,
        "files": [list(f) for f in walk.files],
        "ends": walk.ends,
        "last_time": walk.last_time,
        "layouts": [[layout.configure, [list(b) for b in layout.blocks]] for layout in walk.layouts],
        "transitions": [[list(t.datagram), t.configure] for t in walk.transitions],
        "block_damage": [[event, list(by.items())] for event, by in walk.block_damage.items()],
        "unreadable": [list(u) for u in walk.unreadable],
    }
    columns = {f"c{k}": np.array(c, t) for k, (c, t) in enumerate(zip(walk.columns, _TYPES, strict=True))}
    text = np.frombuffer(json.dumps(told).encode(), np.uint8)
    check = np.array([_crc(text, list(columns.values()))], np.uint32)
    keep_file(place, lambda file: np.savez(file, text=text, check=check, **columns), _MOST)  # type: ignore[arg-type]


def _crc(text: npt.NDArray[np.uint8], columns: list[npt.NDArray[Any]]) -> int:
    value = zlib.crc32(text.data)
    for column in columns:
        value = zlib.crc32(column.data, value)
    return value


def _walk_kept(files: tuple[Identity, ...]) -> Walk:
    """Give the walk that was kept of these files, or a new one."""
    place = _walk_path(files[0].path)
    if place is None or not place.is_file():
        return Walk()
    try:
        walk = _read_walk(place)
    except Exception:  # whatever is wrong with what was kept, walking again is right
        return Walk()
    return walk if walk is not None and walk.follows(files) else Walk()


def _read_walk(place: Path) -> Walk | None:
    with np.load(place, allow_pickle=False) as kept:
        text, columns = kept["text"], [kept[f"c{k}"] for k in range(len(_TYPES))]
        if int(kept["check"][0]) != _crc(text, columns):
            return None
    told = json.loads(text.tobytes())
    if told["format"] != FORMAT:
        return None
    walk = Walk()
    walk.files = [Identity(*f) for f in told["files"]]
    walk.ends, walk.last_time = list(told["ends"]), told["last_time"]
    for column, values in zip(walk.columns, columns, strict=True):
        column.frombytes(values.astype(np.dtype(column.typecode)).tobytes())
    for configure, blocks in told["layouts"]:
        held = tuple(XtcBlock(n, at, size, tuple(map(tuple, shapes))) for n, at, size, shapes in blocks)
        walk.layouts[Layout(configure, held)] = len(walk.layouts)
    walk.transitions = [Transition(Datagram(*d), configure) for d, configure in told["transitions"]]
    walk.block_damage = {event: {int(k): bits for k, bits in by} for event, by in told["block_damage"]}
    walk.unreadable = [UnreadableEvent(*u) for u in told["unreadable"]]
    chain = Chain(tuple(walk.files))
    for transition in walk.transitions:  # the tables stand in the file: they are read again
        d = transition.datagram
        if d.service == Service.CONFIGURE:
            number = chain.number(d.offset)
            local = d._replace(offset=d.offset - chain.starts[number])
            walk.tables.append(read_tables(ReadWindow(open_file(walk.files[number])), local))
    return walk
