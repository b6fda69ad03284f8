"""Images joined to small data, and their statistics per bin, named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import dask
import numpy as np
import xarray as xr
from dask.highlevelgraph import HighLevelGraph

from xsmall.cube.entries import statistics_of_entries
from xsmall.cube.kept import Averaged, PartStore
from xsmall.cube.moments import EXTREMES, PAIRS, PROPAGATED, RATIOS, VARIANCES, BinnedEvents
from xsmall.cube.room import check_dims
from xsmall.cube.sorting import Bound
from xsmall.cube.tasks import statistics_of_frames
from xsmall.cube.variables import Named, Wanted, labelled, of_values, of_variance
from xsmall.engine.one_pass import Source
from xsmall.engine.passes import passes_behind, with_packets_of
from xsmall.engine.transform import float_dtype
from xsmall.errors import DataError, ParameterError
from xsmall.events.join import positions
from xsmall.events.labels import labels_of
from xsmall.events.shots import shots_are_dropped
from xsmall.frames.describe import data_of, describe, words_of
from xsmall.frames.sparse import Sparse, dense_of, sparse_of
from xsmall.frames.variance import EVENTS, values_and_variance
from xsmall.vocabulary import (
    EVENT,
    FRAME_DIMS,
    IMAGES_JOINED,
    MAX,
    MEDIAN,
    MIN,
    N_DROPPED_SHOTS,
    N_WITHOUT_IMAGE,
    N_WITHOUT_SMALL_DATA,
    PARAMETERS,
    RATIO,
    SUM,
    VARIANCE_SUFFIX,
)

_FRAMES_AT_ONCE = 64
"""Sparse frames that are made whole together."""
_LARGE = 4096
"""Pixels from which on pictures of two dims are accumulated as frames are."""


class Along:
    """Reductions that variables of a cube come from, and what makes their packets where images took them along."""

    def __init__(self, variables: Iterable[xr.Variable]) -> None:
        self._graphs: list[HighLevelGraph] = []
        self.waiting = passes_behind(v.data for v in variables if v.chunks is not None)
        """Those that no images took along yet."""

    def took(self, packets: HighLevelGraph | None) -> None:
        """Say what some images took along."""
        if packets is not None:
            self._graphs.append(packets)
            self.waiting = {name: made for name, made in self.waiting.items() if name not in packets.layers}

    def rerouted(self, variable: xr.Variable) -> xr.Variable:
        """The same variable, of packets that come from the images."""
        if not self._graphs or variable.chunks is None:
            return variable
        return variable.copy(data=with_packets_of(variable.data, HighLevelGraph.merge(*self._graphs)))


class Road(NamedTuple):
    """How images are accumulated."""

    memory: int | None = None
    """Bytes that the tasks of one process may use together."""
    kept: tuple[PartStore, Mapping[str, str]] | None = None
    """A store of finished lanes, and what they are made of."""
    dropped_shots: bool = False
    """Whether events without X-rays go into the bins."""
    beside: Along | None = None
    """Reductions of frames that go into the cube too, and may be run in the pass of the images."""


def of_image(
    name: str,
    given: xr.DataArray | xr.Dataset | Averaged,
    small: xr.Dataset,
    bound: Bound,
    road: Road,
    wanted: Wanted,
) -> tuple[Named, Mapping[Any, xr.DataArray]]:
    """Statistics of images joined to the small data, and the coordinates that stay with them."""
    image, variance, sparse = values_of(frames_of(given), f"the images {name!r}")
    n_events(image, name)
    names, sizes, index = bound
    check_dims(f"the images {name!r}", image.dims, names)
    at = positions(small, image, name)
    own = np.where(at >= 0, np.append(index, -1)[at], -1)
    missing = int((index >= 0).sum() - (own >= 0).sum())
    dropped = None if road.dropped_shots else shots_are_dropped(image)
    dark = 0 if dropped is None else int((dropped & (own >= 0)).sum())  # that the small data do not know of
    own = own if dropped is None else np.where(dropped, -1, own)
    if wanted.weight is not None:
        wanted = wanted._replace(weight=np.append(wanted.weight, np.nan)[at])
    here: Bound = (names, sizes, own)
    if isinstance(given, Averaged):
        out = _named_outputs(name, image, variance, here, wanted.only_statistics(), dict(given.statistics))
    else:
        out = of_any(name, image, variance, here, road, wanted, sparse)
    offered = {dask.base.tokenize(labels_of(image, name).values): [int(at.size), int((at >= 0).sum())]}
    out[name].attrs |= {
        N_WITHOUT_SMALL_DATA: int((at < 0).sum()), N_WITHOUT_IMAGE: missing, IMAGES_JOINED: json.dumps(offered)
    } | ({N_DROPPED_SHOTS: dark} if dark else {})  # fmt: skip
    return out, without_events(image.coords)


def frames_of(given: xr.DataArray | xr.Dataset | Averaged) -> xr.DataArray | xr.Dataset:
    """The images themselves."""
    return given.frames if isinstance(given, Averaged) else given


def are_images(array: xr.Variable | xr.DataArray) -> bool:
    """Whether a variable has a picture per event: frames of a detector, or large ones of two dims."""
    if EVENT not in array.dims or array.dtype.kind not in "iuf":
        return False
    return set(array.dims) == set(FRAME_DIMS) or (array.ndim == 3 and array.size >= _LARGE * array.sizes[EVENT])


def values_of(
    given: xr.DataArray | xr.Dataset, what: str = "these data"
) -> tuple[xr.DataArray, xr.DataArray | None, Sparse | None]:
    """What is to be averaged and its variance; of sparse frames the name only, and these beside."""
    sparse = sparse_of(given)
    return (*values_and_variance(given, EVENTS, what), None) if sparse is None else (sparse.values, None, sparse)


def of_any(
    name: str,
    image: xr.DataArray,
    variance: xr.DataArray | None,
    bound: Bound,
    road: Road,
    wanted: Wanted,
    sparse: Sparse | None = None,
) -> Named:
    """Statistics of anything over events: of images strip by strip, of the rest all values at once."""
    if sparse is not None:
        return of_sparse(name, sparse, bound, road, wanted)
    if are_images(image):
        return of_frames(name, image, variance, bound, road, wanted)
    out = of_values(name, image.variable, bound, wanted, counted=True)
    if variance is not None:
        out |= of_variance(f"{name}{VARIANCE_SUFFIX}", variance.variable, image.variable, bound)
    return out


def of_frames(
    name: str, image: xr.DataArray, variance: xr.DataArray | None, bound: Bound, road: Road, wanted: Wanted
) -> Named:
    """Statistics of images, with the propagated variance of the mean where there is one."""
    if MEDIAN in wanted.statistics:
        raise ParameterError(
            f"images {name!r} have no median here: it needs all frames of a bin at once",
            found=f"statistics={wanted.statistics}",
            expected="min, max, sum",
            fix='a median of reduced data: cal.sd.roi(...).sd.cube(bins, statistics="median")',
        )
    of_detector = set(image.dims) == set(FRAME_DIMS)
    dims = FRAME_DIMS if of_detector else (EVENT, *(d for d in image.dims if d != EVENT))
    image = image.transpose(*dims)
    variances = None if variance is None else _as_frames(data_of(variance.transpose(*dims)))
    known = describe(image) if of_detector else None
    usable, kinds = (None, 0) if known is None else (known.usable, known.kinds)
    dtype = float_dtype(image.dtype)
    store, made_of = road.kept or (None, {})
    more = {VARIANCES: variance is not None, PAIRS: wanted.weight is not None, RATIOS: RATIO in wanted.statistics,
            EXTREMES: bool({MIN, MAX} & set(wanted.statistics))}  # fmt: skip
    words = words_of(image) if of_detector else None
    source = Source.of(_as_frames(data_of(image)), usable, dtype, variances, words=words, kinds=kinds)
    found, packets = statistics_of_frames(
        source, BinnedEvents(bound[2], wanted.weight), bound[1],
        f"cube-{name}", road.memory, dtype=dtype, more=tuple(kind for kind, there in more.items() if there),
        store=store, made_of={**made_of, "made by": str(image.attrs.get(PARAMETERS, ""))},
        beside={} if road.beside is None else road.beside.waiting,
    )  # fmt: skip
    if road.beside is not None:
        road.beside.took(packets)
    if not of_detector:
        found = {key: array.reshape(*bound[1], *image.shape[1:]) for key, array in found.items()}
    return _named_outputs(name, image, variance, bound, wanted, found)


def _named_outputs(
    name: str,
    image: xr.DataArray,
    variance: xr.DataArray | None,
    bound: Bound,
    wanted: Wanted,
    found: dict[str, Any],
) -> Named:
    out = labelled(name, found, bound[0], image.variable, wanted, counted=True)
    if variance is not None:
        attrs = dict(variance.attrs)
        out[f"{name}{VARIANCE_SUFFIX}"] = xr.Variable((*bound[0], *image.dims[1:]), found[PROPAGATED], attrs)
    return out


def of_sparse(name: str, given: Sparse, bound: Bound, road: Road, wanted: Wanted) -> Named:
    """Statistics of sparse frames: by their entries, or, where more is wanted than these tell, of the frames."""
    if wanted.weight is None and set(wanted.statistics) <= {SUM}:
        found = statistics_of_entries(given.lists, given.used, bound[2], bound[1], f"cube-{name}", road.memory)
        return labelled(name, found, bound[0], given.values.variable, wanted, counted=True)
    made = of_frames(name, dense_of(given.chunked(_FRAMES_AT_ONCE)), None, bound, road._replace(kept=None), wanted)
    return made if given.is_lazy else dict(zip(made, dask.compute(*made.values()), strict=True))


def _as_frames(data: Any) -> Any:
    """Pictures of two dims as frames of one segment."""
    return data if data.ndim == len(FRAME_DIMS) else data[:, None]


def without_events(coords: Mapping[Any, xr.DataArray]) -> dict[Any, xr.DataArray]:
    """Coordinates that do not run over events."""
    return {k: c.drop_vars([n for n in c.coords if EVENT in c.coords[n].dims]) for k, c in coords.items()
            if EVENT not in c.dims}  # fmt: skip


def with_labels(result: xr.Dataset, labels: Mapping[Any, xr.DataArray], name: str) -> xr.Dataset:
    """Add the coordinates of an image; two detectors whose pixels differ do not go into one cube."""
    for key, coord in labels.items():
        if key in result.variables and not result[key].variable.equals(coord.variable):
            raise ParameterError(
                f"the images {name!r} do not go with the others into one cube",
                found=f"coordinate {key!r} differs",
                expected="images of one detector",
                fix="a cube for each detector",
            )
    return result.assign_coords({k: c.variable for k, c in labels.items()})


def n_events(obj: xr.DataArray, name: str) -> int:
    """Number of events of something that runs over them."""
    if EVENT not in obj.dims:
        raise DataError(f"{name} does not run over events", found=f"dims {obj.dims}", expected=f"a dim {EVENT!r}")
    return int(obj.sizes[EVENT])
