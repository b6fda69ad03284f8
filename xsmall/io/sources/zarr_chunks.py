"""Chunks of Zarr arrays that are packed as ours are, decoded straight to where they belong.

zarr-python decodes a chunk into memory of its own, then copies it: a chunk of 1 GB takes two of them. What is packed in
any other way is left to it.
"""

import os
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.io.sources.straight import CHECKSUM_BYTES

__all__ = ["Packing", "packing_of", "unpack"]

_HEADER_BYTES: Final = 16
"""Of Blosc: the most by which a packed chunk is larger than its values."""


class Packing(NamedTuple):
    """What was done to the values of a chunk, in this order: Blosc, and a CRC-32C behind it."""

    blosc: bool
    checksum: bool


def packing_of(array: Any) -> Packing | None:
    """Say how the chunks of a Zarr array are packed; None where zarr-python is to read them."""
    if not isinstance(array.dtype, np.dtype) or array.dtype.kind not in "biufc" or not array.shape:
        return None
    plain, *more = (codec.to_dict() for codec in array.metadata.codecs)
    order = plain.get("configuration", {}).get("endian", "little")
    names = [codec["name"] for codec in more]
    allowed = [name for name in ("blosc", "crc32c") if name in names]
    native = np.dtype("<u2").isnative
    if plain["name"] != "bytes" or order != "little" or not native or names != allowed:
        return None
    return Packing("blosc" in names, "crc32c" in names)


def unpack(file: str, packing: Packing, out: npt.NDArray[Any]) -> None:
    """Read the file of a chunk into ``out``, contiguous and of the shape and type of a whole chunk.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError, RuntimeError
        Other bytes than were written.
    """
    from google_crc32c import value as crc32c

    behind = CHECKSUM_BYTES if packing.checksum else 0
    with open(file, "rb") as opened:
        there, most = os.fstat(opened.fileno()).st_size, out.nbytes + behind + _HEADER_BYTES * packing.blosc
        if there > most or there < behind or (there != most and not packing.blosc):
            raise ValueError(f"{there} bytes, where a chunk of {out.nbytes} bytes of values is expected")
        packed = np.empty(there - behind, np.uint8) if packing.blosc else out.reshape(-1).view(np.uint8)
        stored = np.empty(behind, np.uint8)
        if opened.readinto(packed.data) != packed.size or opened.readinto(stored.data) != behind:
            raise ValueError(f"fewer than {there} bytes could be read")
    if packing.checksum and crc32c(packed) != int.from_bytes(stored.tobytes(), "little"):
        raise ValueError("stored and computed checksum do not match")
    if packing.blosc:
        _unblosc(packed, out)


def _unblosc(packed: npt.NDArray[np.uint8], out: npt.NDArray[Any]) -> None:
    from numcodecs.blosc import decompress

    if packed.size < _HEADER_BYTES:
        raise ValueError(f"{packed.size} bytes are no chunk of Blosc")
    values, size = (int(n) for n in packed[4:_HEADER_BYTES].view("<u4")[[0, 2]])
    if values != out.nbytes or size != packed.size:  # Blosc itself would trust its header
        raise ValueError(
            f"a chunk of Blosc that says {values} bytes in {size}, where {out.nbytes} in {packed.size} are expected"
        )
    decompress(packed, out)
