"""What is known of frames before one is read: the value that reductions, calibration and pictures are told."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.part import Labels, Part

__all__ = ["Frames"]


@dataclass(frozen=True)
class Frames:
    """All that is known of some frames before one of them is read.

    :func:`xsmall.frames.describe.describe` makes it from a labelled array. Records get it: it says what to return, and
    raises early where arguments do not fit.

    Parameters
    ----------
    part
        Which pixels of the whole detector these are.
    dtype
        Of the values. Reducers are handed float32 or float64.
    units
        CF unit of a pixel's value, or None where the data do not say.
    geometry, beam
        The rule of the pixels' places and the beam, or None where none was assigned.
    energy_varies
        Whether the photon energy differs between events. The beam then holds their mean, and reducers are told that
        of each event.
    variance
        Whether reducers are handed the variance of each pixel too, and records return that of their values.
    detector_type
        Name of the type, as the data say it, or None.
    whole_shape
        Segments, rows and columns of the whole detector, None for each that is not known.
    serial_numbers
        (label of the segment, serial number of the module), as far as they are known.
    runs
        Numbers of the runs that the events belong to.
    experiment
        Name of the experiment, or None.
    usable
        Which segments may be used (event, segment); None where all may. Missing and damaged segments may not.
    state
        Reasons against whole segments, uint32 (event, segment): missing or damaged; None where there are none.
    kinds
        Bits of what makes segments unusable that the values do not say themselves: 1 missing, 2 damaged.
    energies
        Photon energy of each event in eV, NaN where it is not known; None where one holds for all.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> from xsmall.detector.part import Part
    >>> xs.Frames(Part.whole((1, 4, 8)), np.dtype("f4")).shape
    (1, 4, 8)
    """

    part: Part
    dtype: np.dtype[Any]
    units: str | None = None
    geometry: Geometry | None = None
    beam: Beam | None = None
    energy_varies: bool = False
    variance: bool = False
    detector_type: str | None = None
    whole_shape: tuple[int | None, int | None, int | None] = (None, None, None)
    serial_numbers: tuple[tuple[int, str], ...] = ()
    runs: tuple[int, ...] = ()
    experiment: str | None = None
    usable: npt.NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    state: npt.NDArray[np.uint32] | None = field(default=None, compare=False, repr=False)
    kinds: int = field(default=0, compare=False, repr=False)
    energies: npt.NDArray[np.float64] | None = field(default=None, compare=False, repr=False)

    @property
    def segment(self) -> Labels:
        """Labels of the segments."""
        return self.part.segment

    @property
    def row(self) -> Labels:
        """Labels of the rows."""
        return self.part.row

    @property
    def column(self) -> Labels:
        """Labels of the columns."""
        return self.part.column

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of segments, rows and columns."""
        return self.part.shape

    @property
    def places(self) -> Hashable:
        """What the places of the pixels follow from: a key for tables, the same for other events and other runs."""
        return self.part, None if self.geometry is None else self.geometry.token, self.beam

    @property
    def of_all_events(self) -> Frames:
        """The same without what differs between events: small, and what tasks carry."""
        return replace(self, usable=None, state=None, kinds=0, energies=None)
