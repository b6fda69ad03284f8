"""The xarray backend ``engine="xtc2"``."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from xsmall import vocabulary as v
from xsmall.errors import DataError, ParameterError
from xsmall.io.sources.xtc2.configuration import configuration_dataset
from xsmall.io.sources.xtc2.dataset import (
    Wrap,
    detector_dataset,
    detector_type,
    detectors_of,
    file_attrs,
    slow_control,
    step_variables,
    times,
)
from xsmall.io.sources.xtc2.fields import FieldArray
from xsmall.io.sources.xtc2.find import one_stream
from xsmall.io.sources.xtc2.ragged_fields import ListArray, TextArray
from xsmall.io.sources.xtc2.run_index import RunFiles, RunIndex, run_of
from xsmall.io.sources.xtc2.slow import EPICS, configurations
from xsmall.io.sources.xtc2.timing import EventCodes, timing_variables

_OF_EVENTS = frozenset({v.SOURCE_TIMESTAMP, v.STEP, v.RUN, "step_value", "step_docstring"})
"""Coordinates of every detector that ``events`` has under their own name."""


LazyArray = FieldArray | ListArray | TextArray | EventCodes


class LazyField(BackendArray):
    """A field as xarray's backends hold it: it reads when it is indexed."""

    def __init__(self, array: LazyArray) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self.array.__getitem__
        )


def lazily(array: LazyArray) -> Any:
    """Wrap a field so that xarray reads it on indexing only."""
    return indexing.LazilyIndexedArray(LazyField(array))


def tree_of(files: RunFiles, wrap: Wrap) -> dict[str, xr.Dataset]:
    """Make all nodes of a run by path: the root, ``events``, a node per detector, and its ``config``.

    Detectors without any array have no node of their own: their numbers are event variables ``<detector>_<field>``,
    beside ``<detector>_present``, which a detector that is missing in whole events has too. Event variables of one dim
    are coordinates of every detector; slow control is in ``events`` alone, because it can be hundreds of variables.
    """
    run = run_of(files)
    coords, (slow, left_out) = times(run), slow_control(run)
    events: dict[str, xr.Variable] = step_variables(run)
    nodes: dict[str, xr.Dataset] = {}
    for detector, fields in detectors_of(files).items():
        if any((f.rank and f.is_fixed) or f.is_ragged for f in fields):
            nodes[_node_path(detector)] = detector_dataset(files, detector, wrap)
        else:
            numbers = _scalars_of_detector(files, detector)
            events |= {str(name): x for name, x in numbers.variables.items()}
            left_out += [numbers.attrs[v.LEFT_OUT]] if v.LEFT_OUT in numbers.attrs else []
    events |= timing_variables(files, detectors_of(files), wrap)
    carried = {name: x for name, x in events.items() if x.dims == (v.EVENT,)}
    for path, node in nodes.items():
        nodes[path] = node.assign_coords({name: x for name, x in carried.items() if name not in node.variables})
    for detector in detectors_of(files):  # what comes at another rate than the rest, such as a detector that integrates
        present = nodes.get(_node_path(detector), xr.Dataset()).coords.get(v.PRESENT)
        if present is not None and not present.any(v.SEGMENT).all():
            events.setdefault(f"{detector}_{v.PRESENT}", present.any(v.SEGMENT).variable)
    events = {f"{EPICS}_{name}" if name in events else name: x for name, x in slow.items()} | events
    for detector in configurations(run):
        node = nodes.get(_node_path(detector), xr.Dataset())
        config = _configuration_node(run, detector, node)
        nodes[f"{_node_path(detector)}/{v.CONFIG_NODE}"] = config
        if v.RAW in node:
            nodes[_node_path(detector)] = _with_gain_control(node, config)
    root = xr.Dataset(attrs=file_attrs(run))
    attrs = file_attrs(run) | ({v.LEFT_OUT: "; ".join(left_out)} if left_out else {})
    events_node = xr.Dataset(events, coords, attrs)
    return {"/": root, f"/{v.EVENTS_NODE}": events_node} | nodes


def _configuration_node(run: RunIndex, detector: str, node: xr.Dataset) -> xr.Dataset:
    segments = node[v.SEGMENT].values.tolist() if v.SEGMENT in node else []
    config = configuration_dataset(configurations(run)[detector], detector_type(run, detector), segments)
    bits = config.get(v.GAIN_CONTROL)
    if bits is not None and any(node.sizes.get(dim, n) != n for dim, n in bits.sizes.items()):
        config = config.drop_vars(v.GAIN_CONTROL)  # frames of another shape than the configured pixels, or none at all
    # a tree has no dim of two lengths, and a field of events may be called as one of the configuration
    other = [str(dim) for dim, n in config.sizes.items() if node.sizes.get(dim, n) != n]
    return config.rename({dim: f"{v.CONFIG_NODE}_{dim}" for dim in other})


def _with_gain_control(node: xr.Dataset, config: xr.Dataset) -> xr.Dataset:
    """Let frames carry the gain control bits, where one set holds for all steps."""
    bits = config.get(v.GAIN_CONTROL)
    if bits is None or bits.dims != v.PIXEL_DIMS or bits.shape != tuple(node.sizes.get(d) for d in bits.dims):
        return node
    return node.assign_coords({v.GAIN_CONTROL: bits.variable})


def _node_path(detector: str) -> str:
    """Path of a detector's node: its name, which must not be that of the event variables."""
    return f"/{detector}_" if detector == v.EVENTS_NODE else f"/{detector}"


def _scalars_of_detector(files: RunFiles, detector: str) -> xr.Dataset:
    """Numbers of a detector without arrays, read at once: they are small, and everything downstream asks for them."""
    node = detector_dataset(files, detector, lambda array: array[()]).reset_coords()
    names = [str(n) for n in node.data_vars if n not in _OF_EVENTS and not str(n).startswith(v.SCAN_PREFIX)]
    result = {}
    for name in names:
        x = node[name].variable
        x = x.isel({dim: 0 for dim in x.dims if dim != v.EVENT and x.sizes[dim] == 1})
        if v.ANCILLARY_VARIABLES in x.attrs:
            x.attrs[v.ANCILLARY_VARIABLES] = f"{detector}_{x.attrs[v.ANCILLARY_VARIABLES]}"
        dims = [dim if dim == v.EVENT else f"{detector}_{dim}" for dim in x.dims]
        result[f"{detector}_{name}"] = xr.Variable(dims, x.values, x.attrs)
        for dim, own in zip(x.dims[1:], dims[1:], strict=True):
            if dim in node.coords:
                result[own] = xr.Variable(own, node[dim].values)
    return xr.Dataset(result, attrs=node.attrs)


class Xtc2Backend(BackendEntrypoint):
    """Reads one LCLS-II XTC2 file; see :meth:`open_dataset`."""

    description: ClassVar[str] = "LCLS-II raw files (XTC2), one file at a time"
    url: ClassVar[str] = "https://xsmall.readthedocs.io"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = ("filename_or_obj", "drop_variables", "detector", "fields")
    supports_groups: ClassVar[bool] = True

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        detector: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> xr.Dataset:
        """Open one detector of an XTC2 file; headers and transitions are read, frames when they are asked for.

        Parameters
        ----------
        filename_or_obj
            Path of the file.
        drop_variables
            Variables to leave out.
        detector
            Name of the detector, as in the file; may be left out where there is one only.
        fields
            Names of the fields to open, ``field`` or ``alg.field``; default: all. Those whose type changes are listed
            in ``attrs["left_out"]``.

        Returns
        -------
        Dataset over (event, segment, ...), in the types of the file; ``event`` is labelled by its time in UTC.
        ``present`` says which segments are there, ``damage`` is the damage of datagram, block, shapes and data
        together. What is missing is 0 in integers, NaN in floats.

        Raises
        ------
        FileFormatError
            The file is no XTC2, or its frame is broken; with path and byte.
        ParameterError
            No or several detectors of that name, or no such field.
        DataError
            The type of a field that was asked for changes from event to event.
        """
        files = one_stream(filename_or_obj)
        if detector is None:
            detector = _only_detector(files)
        dataset = detector_dataset(files, detector, lazily, fields=fields)
        run = run_of(files)
        if detector in configurations(run):
            dataset = _with_gain_control(dataset, _configuration_node(run, detector, dataset))
        drop = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return dataset.drop_vars([name for name in drop if name in dataset.variables])

    def open_groups_as_dict(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> dict[str, xr.Dataset]:
        """Open the whole file as the nodes of a tree; see :func:`tree_of`."""
        drop = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        nodes = tree_of(one_stream(filename_or_obj), lazily)
        return {path: node.drop_vars([n for n in drop if n in node.variables]) for path, node in nodes.items()}

    def open_datatree(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> xr.DataTree:
        """Open the whole file as a tree; see :func:`tree_of`."""
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, drop_variables=drop_variables))

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Say whether the name ends in ``.xtc2``; nothing is opened."""
        return isinstance(filename_or_obj, str | os.PathLike) and str(filename_or_obj).endswith(".xtc2")


def _only_detector(files: RunFiles) -> str:
    names = list(detectors_of(files))
    if len(names) == 1:
        return names[0]
    if not names:
        raise DataError(f"{files.path}: no event of this file carries data of a detector")
    raise ParameterError(
        f"{files.path}: there are several detectors, one has to be named",
        found=", ".join(map(repr, names)),
        fix=f"xr.open_dataset(path, engine='xtc2', detector={names[0]!r}), or xs.open_run(path) for all",
    )
