"""What turns raw frames into floating frames, and the memory of which array came from which.

Calibration is a transform. The engine joins it to a reduction's pass when an array provably is the untouched result of
:func:`transform_frames`: dask names are unique, so an array of the same name is the same array. A later ``cal * 2`` has
another name and is taken as it comes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt


class Transform(ABC):
    """Makes floating frames of raw ones, one segment at a time; holds its tables, may be shared by threads."""

    dtype: np.dtype[Any]
    """What comes out: float32 or float64."""

    @abstractmethod
    def apply(
        self,
        s: int,
        raw: npt.NDArray[Any],
        present: npt.NDArray[np.bool_],
        out: npt.NDArray[np.floating[Any]],
    ) -> None:
        """Fill ``out`` (k, row, column) from segment ``s`` of ``k`` events; NaN where ``present[k]`` is False.

        The result for one event must not depend on the others, bit for bit. ``raw`` may be read-only, and must not
        be written to.
        """
