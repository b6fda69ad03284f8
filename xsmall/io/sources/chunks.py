"""How many events go into a chunk: whole frames of consecutive events by a memory budget."""

from typing import Final

from dask.utils import parse_bytes

from xsmall.errors import ParameterError

BUDGET: Final = 64 * 2**20
"""Bytes of a chunk where nothing else is said."""
_BLOCK: Final = 64
"""Chunks of more events than this are multiples of it: the engine sums by blocks of 64 events."""


def events_per_chunk(event_bytes: int, chunks: int | str | None = None, storage: int = 1) -> int:
    """Events of one chunk.

    Parameters
    ----------
    event_bytes
        Bytes of all arrays of one event that are chunked alike.
    chunks
        Events, or bytes as text (``"100 MB"``); default 64 MiB.
    storage
        Events of a chunk on disk: the result is a multiple of it.

    Raises
    ------
    ParameterError
        Neither a positive number nor bytes.
    """
    if isinstance(chunks, int) and not isinstance(chunks, bool):
        if chunks < 1:
            raise ParameterError("chunks must hold at least one event", found=chunks, expected="1 or more")
        return -(-chunks // storage) * storage
    budget = _budget(chunks)
    n = max(1, budget // max(1, event_bytes))
    for unit in (storage * _BLOCK, storage):
        if n >= unit:
            return n - n % unit
    return storage


def _budget(chunks: int | str | None) -> int:
    if chunks is None:
        return BUDGET
    try:
        budget = int(parse_bytes(chunks)) if isinstance(chunks, str) else 0
    except ValueError:
        budget = 0
    if budget < 1:
        raise ParameterError(
            "chunks are events or bytes",
            found=repr(chunks),
            expected="a number of events, or bytes as text",
            fix="chunks=100 or chunks='100 MB'",
        )
    return budget
