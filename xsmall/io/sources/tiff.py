"""Pages of TIFF files. fabio reads those that are not compressed; compressed ones are read by Pillow.

fabio (2026.6) takes wrong numbers out of packbits, and the first page alone out of other compressions.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["compressed_page", "is_tiff", "pages_in"]

_SIGNATURES: Final = (b"II*\0", b"MM\0*")
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_BLACK_IS_ZERO: Final = 1
_TYPES: Final = {(8, 1): "u1", (16, 1): "u2"}
"""Types of numbers by bits and sample format (1 unsigned, 2 signed, 3 float) that Pillow gives as they are."""
_TYPES_LITTLE: Final = _TYPES | {(8, 2): "i1", (16, 2): "i2", (32, 1): "u4", (32, 2): "i4", (32, 3): "f4"}
"""Those of files whose lowest byte comes first; of others Pillow mixes the bytes up."""


def is_tiff(path: Path) -> bool:
    """Say whether a file is a TIFF, by its first bytes."""
    with path.open("rb") as file:
        return file.read(4) in _SIGNATURES


def pages_in(path: Path) -> int:
    """Count the pages; reads what describes them, no pixel."""
    from fabio.TiffIO import TiffIO

    with path.open("rb") as file:  # which fabio leaves open where it stumbles
        return int(TiffIO(file).getNumberOfImages())


def compressed_page(path: Path, number: int) -> npt.NDArray[Any] | None:
    """Read a page that is compressed; None where it is not.

    Raises
    ------
    ValueError
        Numbers of a type that Pillow does not give as they are, or several per pixel.
    """
    from fabio.TiffIO import TiffIO

    with path.open("rb") as file:
        compressed = TiffIO(file).getInfo(number)["compression"]
    if not compressed:
        return None
    from PIL import Image

    with Image.open(path) as image:
        image.seek(number)
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        bits, forms = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
        types = _TYPES_LITTLE if tags.prefix == b"II" else _TYPES
        dtype = types.get((bits[0], forms[0])) if len(bits) == 1 else None
        if dtype is None or tags.get(_PHOTOMETRIC) != _BLACK_IS_ZERO:
            said = f"bits {bits}, sample format {forms}, photometric {tags.get(_PHOTOMETRIC)}"
            raise ValueError(f"compressed TIFF of {said}: write it without compression")
        data = np.asarray(image)
    data = data.astype(data.dtype.newbyteorder("="))
    return data.view(dtype) if data.dtype.itemsize == np.dtype(dtype).itemsize else data.astype(dtype)
