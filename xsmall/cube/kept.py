"""What a cube keeps on disk, so that an interrupted one goes on: finished lanes, in a store that io hands in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xsmall.cube.accumulator import Row, Rows

__all__ = ["Kept", "PartStore"]

Arrays = Mapping[str, npt.NDArray[Any]]


class PartStore(Protocol):
    """Where finished parts of a cube are kept; small and picklable, since workers use it too."""

    def agree(self, name: str, manifest: Mapping[str, str]) -> None:
        """Note what a cube is made of, or raise where what is kept was made of something else."""

    def get(self, name: str) -> Arrays | None:
        """Arrays of a part; None where there is none, or where it is damaged."""

    def has(self, name: str) -> bool:
        """Whether there is a part of this name, damaged or not."""

    def put(self, name: str, arrays: Arrays) -> None:
        """Keep a part: after a kill at any time it is there whole, or not at all."""

    def drop(self, names: Sequence[str]) -> None:
        """Give up parts that others hold too."""


@dataclass(frozen=True)
class Kept:
    """The parts of one tile in a store."""

    store: PartStore
    prefix: str

    def tile(self, name: str) -> Kept:
        """The parts of a tile."""
        return replace(self, prefix=f"{self.prefix}/{name}")

    def get(self, part: str) -> Rows | None:
        """Moments of a lane or a group of lanes that is finished."""
        arrays = self.store.get(f"{self.prefix}/{part}")
        if arrays is None:
            return None
        moments = {name: arrays[name] for name in Row._fields if name in arrays}
        return {int(bin_): Row(**{name: m[i] for name, m in moments.items()}) for i, bin_ in enumerate(arrays["bins"])}

    def has(self, part: str) -> bool:
        """Whether there is a lane or a group of lanes of this name."""
        return self.store.has(f"{self.prefix}/{part}")

    def put(self, part: str, rows: Rows) -> None:
        """Keep the moments of a lane or a group."""
        arrays: dict[str, Any] = {"bins": np.array(list(rows), np.int64)}
        for field in Row._fields:
            values = [getattr(row, field) for row in rows.values()]
            if all(v is not None for v in values):
                arrays[field] = np.stack(values) if values else np.empty((0, 0))
        self.store.put(f"{self.prefix}/{part}", arrays)

    def drop(self, parts: Sequence[str]) -> None:
        """Give up lanes whose group is kept."""
        self.store.drop([f"{self.prefix}/{part}" for part in parts])


@dataclass(frozen=True)
class Averaged:
    """Images of a cube whose statistics per bin are made already, by whoever walked over the frames.

    Attributes
    ----------
    frames
        The images, lazy: their labels and attributes.
    statistics
        mean, std, stderr, count, and variance where it is known: (*bins, segment, row, column).
    """

    frames: Any
    statistics: Mapping[str, Any]
