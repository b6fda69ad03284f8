"""LCLS-II runs of which psana evaluates something: ``open_run(..., engine="psana")``."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from xsmall import vocabulary as v
from xsmall.detector.types import DETECTOR_TYPES
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.io.constants.psana_database import HeldDocument, documents_of
from xsmall.io.files import Identity
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.psana.array import Evaluated, PsanaArray, as_array, complete
from xsmall.io.sources.psana.program import LOCK, ConstantsOfRun, PsanaRun, psana_run
from xsmall.io.sources.source import RunSource, RunSpec
from xsmall.io.sources.xtc2.dataset import detector_id, detectors_of, file_attrs
from xsmall.io.sources.xtc2.run_index import RunFiles, run_of
from xsmall.io.sources.xtc2.source import Xtc2Run, files_of_spec

__all__ = ["PsanaSource"]

Read = Sequence[str] | Mapping[str, str | tuple[str, Callable[[Any, Any], Any]]]
CALIB = "calib"
_IN_KEV = ("jungfrau", "epix10ka", "epixhr", "epixuhr")
"""Detectors of which psana has gains in ADU/keV."""
_USABLE = "usable"


class PsanaSource(RunSource):
    """A run that is opened as any other of LCLS-II, with variables that psana evaluates."""

    name = "psana"
    title = "LCLS-II raw data (XTC2) through psana"

    def recognises(self, spec: RunSpec) -> bool:
        """Never: it is asked for by name."""
        del spec
        return False

    def identity(self, spec: RunSpec) -> tuple[Identity, ...]:
        """Path, size and time of change of every chunk of every stream."""
        return Xtc2Run().identity(spec)

    def open(
        self,
        spec: RunSpec,
        *,
        chunks: int | str | None,
        read: Read | None = None,
        run: int | None = None,
        dir: str | os.PathLike[str] | None = None,  # noqa: A002 # the word that users know from psana
        missing: str = "raise",
        live: bool | None = None,
    ) -> xr.DataTree:
        """Open the run, and let psana evaluate one event of each variable to learn its form.

        Parameters
        ----------
        spec, chunks, run, dir, missing, live
            As of any run of LCLS-II.
        read
            What psana evaluates: ``["jungfrau.raw.calib", ...]``, detector, interface and method, which becomes the
            variable ``calib`` of the node ``jungfrau``; or ``{"name": "jungfrau.raw.calib"}``, or with a function of
            (detector, event) that gives a number, text or an array of one form for all events,
            ``{"n_hits": ("hsd", function)}``. Default: ``raw.calib`` of every detector of which psana's database has
            pedestals.
        """
        files = files_of_spec(spec, run, dir, missing, live)
        tree = Xtc2Run().open(spec, chunks=chunks, run=run, dir=dir, missing=missing, live=live)
        constants, failed = _constant_documents(files)
        with LOCK:
            opened = psana_run(files, constants)
            wanted = _default(opened) if read is None else _parsed(read, opened)
            left_out = [f"constants of {name}: {why}" for name, why in failed.items()]
            for one in wanted:
                why = _add_evaluated(tree, opened, files, constants, failed, one, chunks)
                if why is not None and read is not None:
                    raise why
                left_out += [] if why is None else [f"{one.name}: {str(why).splitlines()[0]}"]
        if left_out:
            tree.attrs[v.LEFT_OUT] = "; ".join(filter(None, [tree.attrs.get(v.LEFT_OUT), *left_out]))
        return tree


def _constant_documents(files: RunFiles) -> tuple[ConstantsOfRun, dict[str, str]]:
    """Documents of the constants of every detector, and why there are none of some."""
    index, of_file = run_of(files), file_attrs(run_of(files))
    held: list[tuple[str, tuple[tuple[str, HeldDocument], ...]]] = []
    failed: dict[str, str] = {}
    silent = ""
    for detector in detectors_of(files):
        if silent or not isinstance(of_file.get(v.RUN), int):
            failed[detector] = silent or "the files do not say which run they are of"
            continue
        try:
            found = documents_of(detector_id(index, detector), of_file[v.EXPERIMENT], of_file[v.RUN])
        except CalibrationError as error:  # nobody answers: the others are not asked for either
            failed[detector] = silent = str(error).splitlines()[0]
            continue
        held.append((detector, tuple(found.items())))
    return tuple(held), failed


def _default(run: PsanaRun) -> list[Evaluated]:
    """Calibrated frames of each detector of frames."""
    result = []
    for detector, interfaces in sorted(run.names.items()):
        for interface in interfaces:
            if _is_calib(run, detector, f"{interface}.{CALIB}"):
                name = f"{detector}.{interface}.{CALIB}"
                result.append(Evaluated(name, detector, f"{interface}.{CALIB}"))
    return result


def _parsed(read: Read, run: PsanaRun) -> list[Evaluated]:
    if isinstance(read, str):
        raise ParameterError("invalid read=", found=repr(read), expected="a list", fix=f"read=[{read!r}]")
    result = []
    for name in read:
        given: Any = read[name] if isinstance(read, Mapping) else name
        if isinstance(given, str):
            detector, _, what = given.partition(".")
            target: str | Callable[[Any, Any], Any] = what
            called = f"{detector}/{name}" if isinstance(read, Mapping) else given
        elif isinstance(given, tuple) and len(given) == 2 and callable(given[-1]):
            detector, target = given
            called = f"{detector}/{name}"
        else:
            raise ParameterError(
                "invalid read=", found=repr(given)[:80], expected='"jungfrau.raw.calib", or ("hsd", function)'
            )
        if detector not in run.names:
            known = ", ".join(sorted(run.names))
            raise ParameterError("psana has no detector of this name", found=repr(detector), expected=known)
        if isinstance(target, str) and not _has(run, detector, target):
            raise ParameterError(
                f"psana has no {given!r}",
                found=repr(target),
                expected=", ".join(_methods(run, detector)),
                fix="read= names detector, interface and method, such as 'jungfrau.raw.calib'",
            )
        result.append(Evaluated(called, detector, target))
    return result


def _has(run: PsanaRun, detector: str, what: str) -> bool:
    try:
        return callable(operator.attrgetter(what)(run.detector(detector)))
    except AttributeError:
        return False


def _is_calib(run: PsanaRun, detector: str, what: str) -> bool:
    """Whether a method calibrates frames: others of that name need no pedestals."""
    interface, _, method = what.rpartition(".")
    return method == CALIB and _has(run, detector, f"{interface}._pedestals") and _has(run, detector, what)


def _methods(run: PsanaRun, detector: str) -> list[str]:
    found = run.detector(detector)
    return [
        f"{interface}.{method}"
        for interface in run.names[detector]
        for method in dir(getattr(found, interface, None))
        if not method.startswith("_") and callable(getattr(getattr(found, interface), method, None))
    ]


def _add_evaluated(
    tree: xr.DataTree,
    run: PsanaRun,
    files: RunFiles,
    constants: ConstantsOfRun,
    failed: Mapping[str, str],
    wanted: Evaluated,
    chunks: int | str | None,
) -> Exception | None:
    """Add one variable to the node of its detector; give the reason where that cannot be."""
    calib = isinstance(wanted.what, str) and _is_calib(run, wanted.detector, wanted.what)
    known = dict(dict(constants).get(wanted.detector, ()))
    if calib and "pedestals" not in known:
        return CalibrationError(
            f"psana has no pedestals of {wanted.detector!r}, and would give raw words as calibrated ones",
            found=failed.get(wanted.detector, ", ".join(known) or "no constants"),
            expected="pedestals in psana's database",
            fix="xs.open_run without engine=, and .sd.calibrate(constants) with constants of your own",
        )
    there = np.flatnonzero(complete(files, wanted))
    first = next((x for x in (_first_value(run, wanted, int(k)) for k in there[:_TRIES]) if x is not None), None)
    if first is None:
        return DataError(
            f"{files.path}: psana has nothing for {wanted.name}",
            found=f"{there.size} events with all segments of {wanted.detector!r}"
            + (f", None in the first {min(there.size, _TRIES)} of them" if there.size else ""),
            expected="an event that has it",
            fix="leave it out of read=",
        )
    if calib and first.dtype.kind != "f":
        return CalibrationError(
            f"psana does not calibrate {wanted.detector!r} with the constants of its database",
            found=f"{wanted.name} of type {first.dtype}",
            expected="calibrated frames, which are floats",
            fix="xs.open_run without engine=, and .sd.calibrate(constants) with constants of your own",
        )
    usable = _usable(run, wanted, first) if calib else None
    array = PsanaArray(files, wanted, constants, usable, first)
    n = events_per_chunk(first.nbytes, chunks)
    data = da.from_array(
        array,
        chunks=(n, *array.shape[1:]),
        name=f"psana-{wanted.name}-{tokenize(array, n)}",
        meta=np.empty((0,) * array.ndim, array.dtype),
    )
    _place_variable(tree, wanted, data, usable, calib, "pixel_gain" in known)
    return None


_TRIES = 20
"""Events that are tried to learn the form of a variable."""


def _first_value(run: PsanaRun, wanted: Evaluated, number: int) -> npt.NDArray[Any] | None:
    return as_array(run.evaluate(wanted, wanted.detector, number), wanted.name)


def _usable(run: PsanaRun, wanted: Evaluated, first: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Give the pixels that psana's mask lets through, where it has one of this shape."""
    interface = getattr(run.detector(wanted.detector), str(wanted.what).split(".")[0])
    mask = getattr(interface, "_mask", lambda: None)()
    return np.asarray(mask) != 0 if mask is not None and np.shape(mask) == first.shape else None


def _place_variable(
    tree: xr.DataTree,
    wanted: Evaluated,
    data: da.Array,
    usable: npt.NDArray[np.bool_] | None,
    calib: bool,
    with_gain: bool,
) -> None:
    path = f"/{wanted.detector}"
    known = path in tree.groups
    node = (
        _node_at(tree, path).to_dataset(inherit=False)
        if known
        else _node_at(tree, v.EVENTS_NODE).to_dataset(inherit=False)[[]]
    )
    name = wanted.name.split("/")[-1] if "/" in wanted.name else wanted.name.rsplit(".", 1)[-1]
    while name in node.variables:
        name = f"psana_{name}"
    attrs: dict[str, Any] = {v.LONG_NAME: f"{wanted.name.replace('/', '.')}, evaluated by psana"}
    framed = data[:, None] if data.ndim == 3 else data  # psana gives a detector of one segment without that axis
    alike = [x for x in node.data_vars.values() if x.dims == v.FRAME_DIMS and x.shape == framed.shape]
    if alike:
        data = framed
        dims: tuple[str, ...] = v.FRAME_DIMS
        kept = (v.DETECTOR_TYPE, v.DETECTOR_ID, v.SEGMENT_IDS, v.DETECTOR_SHAPE, v.RUN, v.EXPERIMENT)
        attrs |= {key: alike[0].attrs[key] for key in kept if key in alike[0].attrs}
        if calib:
            unit = _unit_of_psana(str(attrs.get(v.DETECTOR_TYPE)), with_gain)
            attrs |= {} if unit is None else {v.UNITS: unit}
            if usable is not None:
                node = node.assign_coords({_USABLE: (v.PIXEL_DIMS, usable.reshape(data.shape[1:]))})
    else:
        dims = (v.EVENT, *(f"{name}_{k}" for k in range(data.ndim - 1)))
    tree[path] = xr.DataTree(
        node.assign({name: xr.Variable(dims, data, attrs)}),
        children={} if not known else {key: child.copy() for key, child in _node_at(tree, path).children.items()},
    )


def _node_at(tree: xr.DataTree, path: str) -> xr.DataTree:
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node


def _unit_of_psana(kind: str, with_gain: bool) -> str | None:
    """Unit of psana's calibrated frames; None where its gain does not say what it brings them to."""
    if not with_gain:
        return v.ADU
    entry = DETECTOR_TYPES.get(kind.lower())
    name = entry.name if entry is not None else kind
    return v.KILOELECTRONVOLT if name.startswith(_IN_KEV) else None
