"""What runs are opened from: the contract that every source keeps, and the register of sources.

A source is one format: it recognises what a user named, opens it lazily as a tree, and knows which bytes it opened.
:func:`~xsmall.io.run.open_run` and ``xsmall info`` ask the register and know no format themselves. Sources of other
packages register by the entry point group ``xsmall.sources``, or for one session with :func:`register_source`.
"""

import glob
import inspect
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final

import xarray as xr

from xsmall.calls import tells_its_names
from xsmall.detector.geometry.text import refuse_special
from xsmall.errors import FileFormatError, ParameterError, XsmallError, alike
from xsmall.io.descriptions import DESCRIPTION
from xsmall.io.files import Identity, identify
from xsmall.io.hdf5 import open_hdf5, stacks_in
from xsmall.io.layout import RESULT_LAYOUT
from xsmall.io.stores.place import settle
from xsmall.vocabulary import LAYOUT

__all__ = ["RunSource", "RunSpec", "call_for", "check_missing", "register_source", "source_of"]

ENTRY_POINTS: Final = "xsmall.sources"
_BUILT_IN: Final = (
    "xsmall.io.sources.zarr_run:ZarrRun",
    "xsmall.io.sources.hdf5_run:Hdf5Run",
    "xsmall.io.sources.xtc2.source:Xtc2Run",
    "xsmall.io.sources.psana.source:PsanaSource",
    "xsmall.io.sources.stacks:StackRun",
    "xsmall.io.sources.euxfel:EuxfelRun",
)
HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_HEAD: Final = len(HDF5_SIGNATURE)
"""Bytes at the beginning of a file that tell formats apart."""
_TIMES_OF_SMALL_DATA: Final = ("timestamp", "event_time")
_LOOKED_AT: Final = 20
_QUERY: Final = re.compile(r"\s*\w+\s*=[^,=/]+(,\s*\w+\s*=[^,=/]+)*")
_EXPERIMENT: Final = re.compile(r"[a-z]{3}[a-z]*[0-9]+")
_OF_PSANA1: Final = re.compile(r"exp=(\w+):run=(\d+)")


@tells_its_names
@dataclass(frozen=True)
class RunSpec:
    """What a user named as a run: a path, several files, or an experiment with the number of its run.

    Parameters
    ----------
    given
        The text that errors show.
    paths
        Files and folders that are there, absolute, patterns replaced by what they match.
    query
        ``{"exp": "mfx101332224", "run": "7"}`` where that was named in place of paths.
    """

    given: str
    paths: tuple[Path, ...] = ()
    query: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, given: object) -> "RunSpec":
        """Make it of text, a path or a list of paths.

        Raises
        ------
        ParameterError
            Neither text nor paths, or a file that is named twice.
        FileFormatError
            No such file, no permission, or a pipe or device, which might be waited for without end.
        """
        if isinstance(given, RunSpec):
            return given
        if isinstance(given, str) and (query := cls.of_query(given)):
            return cls(given, query=MappingProxyType(query))
        if isinstance(given, str | os.PathLike):
            return cls(str(given), tuple(_found(os.fspath(given))))
        if isinstance(given, Sequence) and given and all(isinstance(one, str | os.PathLike) for one in given):
            paths = tuple(path for one in given for path in _found(os.fspath(one)))
            _refuse_same(paths)
            return cls(f"{len(given)} paths", paths)
        raise ParameterError(
            "a run is opened by its path",
            found=repr(given)[:80],
            expected="text, a Path, or a list of them",
            fix='xs.open_run("run.xtc2")',
        )

    @staticmethod
    def of_query(given: str) -> dict[str, str]:
        """Give what ``exp=...,run=...`` names; nothing where it is a path."""
        return dict(_pairs(given)) if _QUERY.fullmatch(given) and not os.path.lexists(given) else {}

    @property
    def path(self) -> Path | None:
        """The path, where there is exactly one."""
        return self.paths[0] if len(self.paths) == 1 else None

    @cached_property
    def head(self) -> bytes:
        """First bytes of the file, where there is exactly one."""
        path = self.path
        if path is None or path.is_dir():
            return b""
        try:
            with path.open("rb") as file:
                return file.read(_HEAD)
        except OSError as error:
            raise FileFormatError(f"{path}: cannot be read", found=error.strerror, fix="check the path") from error

    @property
    def kind(self) -> str:
        """What it is, in words, for errors."""
        if self.query:
            return "an experiment: " + ", ".join(f"{k}={x}" for k, x in self.query.items())
        if self.path is None:
            return f"{len(self.paths)} files"
        if not self.path.is_dir():
            return f"a file named {self.path.name}"
        try:
            there = sorted(os.listdir(self.path))
        except OSError as error:
            return f"a folder that cannot be read: {error.strerror}"
        return f"a folder of {len(there)}: {', '.join(there[:3])}" if there else "a folder with nothing in it"


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split(","):
        name, _, value = part.partition("=")
        yield name.strip(), value.strip()


def _instead(text: str) -> str:
    """What to type instead of a name of no file: psana1 has colons where experiments are named."""
    old = _OF_PSANA1.match(text)
    if old is None and _EXPERIMENT.fullmatch(text):
        return f'xs.open_run("exp={text},run=7") for run 7 of an experiment; check the path of a file'
    if old is None:
        return "check the path"
    return (
        f'xs.open_run("exp={old[1]},run={old[2]}"); runs of LCLS-I are exported first, see xsmall export-lcls1 --help'
    )


def _refuse_same(paths: Sequence[Path]) -> None:
    """Refuse a file that is named twice, by links too: its events would count twice."""
    first: dict[str, Path] = {}
    for path in paths:
        before = first.setdefault(os.path.realpath(path), path)
        if before is not path:
            raise ParameterError(
                f"{path}: named twice",
                found=f"{before} and {path}" if before != path else None,
                expected="each file once, or its events would count twice",
                fix=f"leave {path.name} out once",
            )


def _found(name: str | bytes) -> Iterator[Path]:
    """Yield the paths that a name or pattern stands for; what cannot be opened without harm is refused."""
    text = os.path.expanduser(os.fsdecode(name))
    if "\0" in text:
        raise FileFormatError(f"{text!r}: no such file", expected="a run", fix="check the path")
    names = [text]
    if not os.path.lexists(text) and glob.has_magic(text):
        names = sorted(glob.glob(text))
        if not names:
            raise FileFormatError(f"{text}: no file matches", expected="a run", fix="check the pattern")
    for one in names:
        path = Path(one).absolute()
        settle(path)
        try:
            os.stat(path)
        except FileNotFoundError:
            raise FileFormatError(f"{path}: no such file", expected="a run", fix=_instead(text)) from None
        except OSError as error:
            raise FileFormatError(f"{path}: cannot be opened", found=error.strerror, fix="check the path") from error
        refuse_special(path)
        yield path


def check_missing(missing: str) -> None:
    """Refuse another word than those for what happens where a file is missing."""
    if missing not in ("raise", "flag"):
        raise ParameterError("invalid missing=", found=repr(missing), expected="'raise' or 'flag'")


class RunSource(ABC):
    """A format of runs. Subclass it, and name the class in the entry point group ``xsmall.sources``.

    Attributes
    ----------
    name
        One word that chooses it: ``open_run(path, engine=name)``.
    title
        What such a run is called, by errors and by ``xsmall info``.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def recognises(self, spec: RunSpec) -> bool:
        """Say whether this is such a run, by names and first bytes: quickly, and without an error."""

    @abstractmethod
    def open(self, spec: RunSpec, *, chunks: int | str | None) -> xr.DataTree:
        """Open it lazily.

        Further keyword-only parameters are the options that ``open_run`` passes on; it refuses all others.

        Returns a tree with the node ``events`` and a node for each detector, as :func:`~xsmall.io.run.open_run`
        describes it. What was lost is told there: ``present`` and ``damage`` (event, segment), and counts in the
        attributes of the root. A block of frames that turns out unreadable later raises
        :class:`~xsmall.errors.DamagedDataError` where it is read: reductions flag its events and go on.
        """

    def heading(self, spec: RunSpec) -> str:
        """Say what this run is, as ``xsmall info`` begins."""
        del spec
        return self.title

    def identity(self, spec: RunSpec) -> tuple[Identity, ...]:
        """Say which bytes are opened: path, size and time of change of each file."""
        return tuple(identify(path) for path in spec.paths if path.is_file())

    def advice(self, spec: RunSpec) -> str | None:
        """Say what to type where this is no run, but a part of one of this format; None where it is not."""
        del spec
        return None

    def options(self) -> tuple[str, ...]:
        """Names of the options that :meth:`open` takes beside ``chunks``."""
        parameters = inspect.signature(self.open).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "chunks")

    def check_options(self, options: Iterable[str]) -> None:
        """Refuse an option that would be ignored.

        Raises
        ------
        ParameterError
            One that this source does not have.
        """
        known = self.options()
        for name in options:
            if name not in known:
                every = ("chunks", "engine", *known)
                near = alike(name, every)
                raise ParameterError(
                    f"{self.title} cannot be opened with {name}=",
                    found=name,
                    expected=", ".join(every),
                    fix=f"{near[0]}=..." if near else f"leave {name}= out",
                )


_registered: dict[str, RunSource] = {}


def register_source(source: RunSource) -> None:
    """Add a source for this process; one of the same name is replaced.

    Parameters
    ----------
    source
        What opens another format. Packages rather name the class in the entry point group ``xsmall.sources``, which
        works on every worker too.

    Raises
    ------
    ParameterError
        Not a :class:`RunSource`.

    Examples
    --------
    >>> import xarray as xr
    >>> import xsmall as xs
    >>> class Empty(xs.RunSource):
    ...     name, title = "empty", "nothing at all"
    ...
    ...     def recognises(self, spec):
    ...         return spec.path is not None and spec.path.suffix == ".nothing"
    ...
    ...     def open(self, spec, *, chunks):
    ...         return xr.DataTree()
    >>> xs.register_source(Empty())
    """
    if not isinstance(source, RunSource):
        raise ParameterError(
            "this is no source of runs", found=type(source).__name__, expected="an object of a subclass of xs.RunSource"
        )
    _registered[source.name] = source


def _make_source(place: str) -> RunSource:
    module, _, name = place.partition(":")
    source: RunSource = getattr(import_module(module), name)()
    return source


class _Sources:
    """All sources in the order they are asked: our own, those of this process, those of other packages."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}

    def __iter__(self) -> Iterator[RunSource]:
        yield from map(_make_source, _BUILT_IN)
        yield from _registered.values()
        for entry in entry_points(group=ENTRY_POINTS):
            try:
                source = entry.load()()
            except Exception as error:  # somebody else's package: told where no other source opens the run
                self.failed[entry.name] = f"{type(error).__name__}: {error}"
                continue
            if isinstance(source, RunSource):
                yield source
            else:
                self.failed[entry.name] = f"{entry.value} is no RunSource"


def find_source(spec: RunSpec) -> RunSource | None:
    """Find the source that recognises what was named, if there is one."""
    return next((source for source in _Sources() if source.recognises(spec)), None)


def source_of(spec: RunSpec, engine: str | None = None) -> RunSource:
    """Find the source of what was named.

    Parameters
    ----------
    spec
        What was named.
    engine
        Name of the source, where several might open it.

    Raises
    ------
    ParameterError
        No source of that name.
    FileFormatError
        No source recognises it.
    """
    sources, known = _Sources(), []
    for source in sources:
        known.append(source)
        if source.name == engine or (engine is None and source.recognises(spec)):
            return source
    failed = [f"the source {name!r} could not be loaded: {why}" for name, why in sources.failed.items()]
    if engine is not None:
        raise ParameterError(
            "unknown engine of a run",
            found=repr(engine),
            expected=", ".join(repr(s.name) for s in known),
            fix="; ".join(failed) or "leave engine= out: the file says what it is",
        )
    raise FileFormatError(
        f"{spec.path or spec.given}: not a run that xsmall can open",
        found="; ".join([spec.kind, *failed]),
        expected="; ".join(s.title for s in known),
        fix=next(filter(None, (s.advice(spec) for s in known)), None) or _advice(spec),
    )


def call_for(path: Path) -> str | None:
    """Give the call that opens what is at a path, for errors of those that do not open it; None where nothing does."""
    try:
        spec = RunSpec.of(path)
        return f"xs.open_run({str(path)!r})" if find_source(spec) is not None else _advice(spec)
    except XsmallError:
        return None


def _advice(spec: RunSpec) -> str | None:
    """Give the call that opens what is no run."""
    path = spec.path
    if path is None:
        return None
    if spec.head == HDF5_SIGNATURE:
        return _call_for_hdf5(path)
    if (path / DESCRIPTION).exists() or (path / ".zgroup").exists():
        with suppress(OSError, ValueError, KeyError):
            if RESULT_LAYOUT in json.loads((path / DESCRIPTION).read_bytes())["attributes"][LAYOUT]:
                return f"xs.open_result({str(path)!r})"
        return f"xr.open_zarr({str(path)!r}) for small data and cubes; `xsmall info {path.name}` says what it is"
    return _call_for_inside(path) or "check the path"


def _call_for_hdf5(path: Path) -> str:
    with open_hdf5(path) as file:
        found = file.attrs.get(LAYOUT, "")
        layout = found.decode() if isinstance(found, bytes) else str(found)
        stacks = [] if layout else stacks_in(file)
        times = any(name in file for name in _TIMES_OF_SMALL_DATA)
    if times:
        return f"xs.open_smalldata({str(path)!r})"
    if layout.startswith(RESULT_LAYOUT):
        return f"xs.open_result({str(path)!r})"
    if stacks:
        return f"xs.open_frames({str(path)!r}, dataset={stacks[0]!r})"
    return f"xr.open_datatree({str(path)!r}) for small data, cubes and other HDF5; `xsmall info {path.name}`"


def _call_for_inside(path: Path) -> str | None:
    """Look into a folder for the first run in it."""
    try:
        there = sorted(path.iterdir(), key=lambda one: ("master" not in one.name, one)) if path.is_dir() else []
    except OSError:
        return None
    calls = (call_for(one) for one in there[:_LOOKED_AT] if one.is_file() or (one / DESCRIPTION).exists())
    return next((call for call in calls if call is not None and call.startswith("xs.open_run")), None)
