"""The bytes of a stream: its chunks one behind the other, as if they were one file."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from xsmall.io.files import File, Identity, open_file

__all__ = ["Chain"]


class Chain:
    """Files read as one: an offset counts from the beginning of the first.

    Parameters
    ----------
    files
        The chunks in their order.
    """

    def __init__(self, files: tuple[Identity, ...]) -> None:
        self.files = files
        self.starts = [0, *accumulate(f.size for f in files)][: len(files)]

    @property
    def path(self) -> str:
        """Path of the first."""
        return self.files[0].path

    def number(self, offset: int) -> int:
        """Say in which file an offset lies."""
        return bisect_right(self.starts, offset) - 1

    def open(self, number: int) -> File:
        """Open one of the files."""
        return open_file(self.files[number])

    def read(self, offset: int, n: int) -> bytes:
        """Return exactly ``n`` bytes of one file."""
        k = self.number(offset)
        return self.open(k).read(offset - self.starts[k], n)

    def read_into(self, offset: int, buffers: Sequence[npt.NDArray[np.uint8]]) -> None:
        """Fill the buffers, one behind the other, with bytes of one file."""
        k = self.number(offset)
        self.open(k).read_into(offset - self.starts[k], buffers)

    def ends(self, number: int) -> int:
        """Say where a file ends."""
        return self.starts[number] + self.files[number].size
