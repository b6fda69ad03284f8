"""Finding the files of a run: a folder, a list, an experiment and its number; streams, chunks, index files."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from xsmall.errors import FileFormatError, ParameterError
from xsmall.io.files import GROWING, Identity, identify
from xsmall.io.sources.source import check_missing
from xsmall.io.sources.xtc2.kept import index_of
from xsmall.io.sources.xtc2.run_index import RunFiles

__all__ = ["files_of_run", "folder_of_experiment", "holds_xtc2", "is_index", "is_xtc2", "one_stream", "run_by_name"]

_NAME: Final = re.compile(r"(?P<exp>.+)-r(?P<run>\d+)-s(?P<stream>\d+)-c(?P<chunk>\d+)")
_ENDING: Final = re.compile(r"(\.smd)?\.xtc2(\.inprogress)?$")
DATA_FOLDERS: Final = ("XSMALL_DATA", "SIT_PSDM_DATA")
"""Variables of the environment that name folders of data."""
LCLS_FOLDERS: Final = ("/sdf/data/lcls/ds", "/sdf/data/lcls/drpsrcf/ffb", "/reg/d/psdm")
_LONGEST_CHAIN: Final = 10_000


class NamedFile(NamedTuple):
    """A file with what its name says; a name that says nothing stands for a run of one stream."""

    path: Path
    experiment: str
    run: int | None
    stream: int
    chunk: int

    @property
    def title(self) -> str:
        """Which run it is of."""
        return self.experiment if self.run is None else f"{self.experiment}, run {self.run}"


def is_xtc2(path: Path) -> bool:
    """Whether the name is that of XTC2 data or of an index to them."""
    return _ENDING.search(path.name) is not None


def is_index(path: Path) -> bool:
    """Whether the name is that of an index file."""
    return is_xtc2(path) and ".smd.xtc2" in path.name


def _named_file(path: Path) -> NamedFile:
    found = _NAME.fullmatch(_ENDING.sub("", path.name))
    if found is None:
        return NamedFile(path, _ENDING.sub("", path.name), None, 0, 0)
    return NamedFile(path, found["exp"], int(found["run"]), int(found["stream"]), int(found["chunk"]))


def folder_of_experiment(
    query: Mapping[str, str], folder: str | os.PathLike[str] | None, run: int | None = None
) -> tuple[Path, int]:
    """Find the folder of an experiment's files.

    Parameters
    ----------
    query
        ``exp`` and ``run``.
    folder
        Where to look first: the folder of the files, that of the experiment, or that of all experiments.
    run
        Number of the run where it was given beside the text, for the advice.

    Returns
    -------
    The folder, and the number of the run.

    Raises
    ------
    ParameterError
        No experiment, no number, or something beside them.
    FileFormatError
        No folder of the experiment holds files of it.
    """
    exp, number = query.get("exp", ""), query.get("run", "")
    if set(query) != {"exp", "run"} or not re.fullmatch(r"\w+", exp) or not number.isdecimal():
        raise ParameterError(
            "a run is named by its experiment and number",
            found=",".join(f"{k}={x}" for k, x in query.items()),
            expected="exp= and run=, both in the text",
            fix=f'xs.open_run("exp={exp or "mfx101332224"},run={7 if run is None else run}")',
        )
    roots = [folder] if folder is not None else [os.environ[v] for v in DATA_FOLDERS if os.environ.get(v)]
    roots += [] if folder is not None else list(LCLS_FOLDERS)
    tried: list[str] = []
    indices: Path | None = None
    for root in roots:
        for below in ("", "xtc", exp, f"{exp}/xtc", f"{exp[:3]}/{exp}/xtc"):
            place = Path(root).expanduser() / below
            tried.append(str(place))
            if _holds_files_of(exp, place):
                return place, int(number)
            if indices is None and _holds_files_of(exp, place / "smalldata"):
                indices = place
    if indices is not None:
        return indices, int(number)  # where it is told that they are indices alone
    raise FileFormatError(
        f"exp={exp}: no file of this experiment is found",
        found=f"none in {', '.join(tried[:6])}" + (" ..." if len(tried) > 6 else ""),
        expected=f"files named {exp}-r{int(number):04d}-s000-c000.xtc2",
        fix=f'give the folder, xs.open_run("exp={exp},run={number}", dir="/where/it/is"), or set XSMALL_DATA',
    )


def _holds_files_of(experiment: str, folder: Path) -> bool:
    return any(p.experiment == experiment for p in map(_named_file, _xtc2_in(folder)) if p.run is not None)


def _xtc2_in(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        raise FileFormatError(
            f"{folder}: cannot be read", found=error.strerror, fix="ask for the permission to read it"
        ) from error
    return [folder / name for name in names if is_xtc2(Path(name)) and (folder / name).is_file()]


def holds_xtc2(folder: Path) -> bool:
    """Whether a folder is that of a run, an experiment, or indices alone; one that cannot be read is told later."""
    try:
        return any(map(_xtc2_in, (folder, folder / "xtc", folder / "smalldata")))
    except FileFormatError:
        return True


def _with_data(path: Path) -> Path:
    """Go from the folder of an experiment to that of its files."""
    below = path / "xtc"
    return below if path.is_dir() and not _xtc2_in(path) and _xtc2_in(below) else path


def files_of_run(
    paths: Sequence[Path],
    *,
    experiment: str | None = None,
    run: int | None = None,
    live: bool | None = None,
    missing: str = "raise",
) -> RunFiles:
    """Find all streams and chunks of a run.

    Parameters
    ----------
    paths
        Folders and files. Of a folder all files of the run; a file stands for its stream, later chunks included.
    experiment, run
        Which run, where there are several.
    live
        Whether the files still grow; None where they say it themselves.
    missing
        What happens where a file is named by another and not there: ``"raise"`` or ``"flag"``.

    Raises
    ------
    FileFormatError
        Several runs, index files alone, a missing stream or chunk, or no XTC2 at all.
    ParameterError
        No run of this number.
    """
    check_missing(missing)
    paths = [_with_data(path) for path in paths]
    whole = len(paths) == 1
    files = [file for path in paths for file in (_xtc2_in(path) if path.is_dir() else [path])]
    title = str(paths[0]) if whole else str(Path(os.path.commonpath([p.parent for p in paths])))
    data = [_named_file(p) for p in files if not is_index(p)]
    if not data:
        known = files or [file for path in paths if path.is_dir() for file in _xtc2_in(path / "smalldata")]
        smd = [p for p in known if is_index(p)]
        wanted = [p for p in smd if experiment is None or _run_key(_named_file(p)) == (experiment, run)]
        raise _no_data(title, wanted or smd)
    parts = _of_one_run(title, data, experiment, run, alone=whole)
    indexed = _indexed(paths, parts)
    streams: list[tuple[Identity, ...]] = []
    lost: list[str] = []
    starts = [p for p in parts if p.chunk == 0]
    later = [p for p in parts if p.chunk > 0]
    used: set[str] = set()
    for start in starts or parts:
        chunks, gone = _stream_chunks(start, [p for p in later if p.stream == start.stream])
        used |= {c.path for c in chunks}
        streams.append(chunks)
        lost += gone
    orphans = [str(p.path) for p in later if str(p.path.resolve()) not in used and starts]
    lost += [f"the first chunk of {Path(name).name}" for name in orphans]
    lost += [name for (stream, name) in indexed if stream not in {p.stream for p in starts}]
    grows = live or any(c.path.endswith(GROWING) for chunks in streams for c in chunks)
    if lost and missing == "raise" and not grows:
        raise FileFormatError(
            f"{title}: files of this run are missing",
            found="not there: " + ", ".join(lost),
            expected="all streams and chunks",
            fix=f"{_call_for_run(paths, experiment, run)}  # counts them; or put them beside the others",
        )
    folders = [*paths, *(p.path.parent for p in starts or parts)]
    indices, spoilt = _index_files(folders, [p for p in parts if p.chunk == 0], streams, whole_run=whole)
    return RunFiles(title, tuple(streams), run, live, (*lost, *spoilt), indices)


def _call_for_run(paths: Sequence[Path], experiment: str | None, run: int | None) -> str:
    """The call that opens what is there of these files."""
    if experiment is not None:
        return f'xs.open_run("exp={experiment},run={run}", dir={str(paths[0])!r}, missing="flag")'
    named = repr(str(paths[0])) if len(paths) == 1 else repr([str(path) for path in paths])
    return f'xs.open_run({named}, {"" if run is None else f"run={run}, "}missing="flag")'


def run_by_name(files: RunFiles) -> int | None:
    """Give the number of the run that the name of the files has."""
    return _named_file(Path(files.streams[0][0].path)).run


def one_stream(path: str | os.PathLike[str]) -> RunFiles:
    """Name one file as a run of one stream, with its later chunks."""
    identify(path)  # says what is wrong with the path
    return files_of_run([Path(path).expanduser()])


def _no_data(title: str, indices: Sequence[Path]) -> FileFormatError:
    if not indices:
        return FileFormatError(
            f"{title}: no XTC2 data", found="no file named *.xtc2", expected="EXP-rRRRR-sSSS-cCCC.xtc2"
        )
    first = indices[0]
    big = first.parent.parent if first.parent.name == "smalldata" else first.parent
    name = first.name.replace(".smd.xtc2", ".xtc2")
    there = "open it" if (big / name).exists() else "it is not there: ask for it, the index holds no data"
    return FileFormatError(
        f"{first}: an index to a run, not the run itself",
        found="an index (.smd.xtc2): where the events lie in another file",
        expected=f"the data, {big / name}; {there}",
        fix=f"xs.open_run({str(big)!r})",
    )


def _run_key(part: NamedFile) -> tuple[str, int]:
    return part.experiment, -1 if part.run is None else part.run


def _of_one_run(
    title: str, data: Sequence[NamedFile], experiment: str | None, run: int | None, alone: bool
) -> list[NamedFile]:
    """Choose the files of one run by their names; of several files that were named, the names can be any."""
    starts = [p for p in data if p.chunk == 0] or list(data)
    if experiment is not None:
        starts = [p for p in starts if p.experiment == experiment]
    runs = sorted({_run_key(p) for p in starts})
    numbered = [key for key in runs if key[1] >= 0]
    if len(numbered) > 1 or (len(runs) > 1 and Path(title).is_dir() and alone):
        runs = [key for key in runs if key[1] == run]
        if run is None or len(runs) != 1:
            raise _several(title, sorted({_run_key(p) for p in starts}), run, experiment)
    if experiment is not None and (not runs or runs[0][1] != run):
        raise _several(title, runs, run, experiment)
    names = set(runs)
    starts = [p for p in starts if _run_key(p) in names]
    return starts + [p for p in data if p.chunk > 0 and p not in starts and _belongs(p, starts)]


def _belongs(later: NamedFile, starts: Sequence[NamedFile]) -> bool:
    return any((later.experiment, later.run) == (p.experiment, p.run) for p in starts)


def _several(
    title: str, runs: Sequence[tuple[str, int]], wanted: int | None, experiment: str | None
) -> ParameterError | FileFormatError:
    known = ", ".join(f"{exp}, run {number}" if number >= 0 else exp for exp, number in runs[:20])
    numbered = next((number for _, number in runs if number >= 0), None)
    if wanted is not None:
        by_name = "" if experiment is None else f"exp={experiment},"  # as the run was named
        fix = None if numbered is None else f"{by_name}run={numbered}"
        return ParameterError(f"{title}: no run of this number", found=f"run={wanted}", expected=known, fix=fix)
    named = repr(title) if Path(title).is_dir() else "..."
    fix = f"xs.open_run({named}, run={numbered})" if numbered is not None else "name the file, or a list of the streams"
    return FileFormatError(f"{title}: several runs", found=known, expected="one run", fix=fix)


def _indexed(paths: Sequence[Path], parts: Sequence[NamedFile]) -> list[tuple[int, str]]:
    """Streams that have an index beside the data: each of them ought to be there, where a folder was named."""
    found = []
    for folder in (p for p in paths if p.is_dir()):
        for path in _xtc2_in(folder / "smalldata"):
            part = _named_file(path)
            if is_index(path) and _belongs(part, parts):
                found.append((part.stream, path.name.replace(".smd.xtc2", ".xtc2")))
    return found


def _index_files(
    folders: Sequence[Path], starts: Sequence[NamedFile], streams: Sequence[tuple[Identity, ...]], whole_run: bool
) -> tuple[tuple[Identity, ...], list[str]]:
    """Find the index files that belong to these streams, and those that cannot be read.

    Where a folder was named, the streams that are missing have an index too.
    """
    named = {_stem(p.path): k for k, p in enumerate(starts)}
    found: dict[str, Identity] = {}
    spoilt: list[str] = []
    for folder in dict.fromkeys(folders):
        for path in _xtc2_in(folder / "smalldata") if folder.is_dir() else []:
            part, stem = _named_file(path), _stem(path)
            wanted = stem in named or (whole_run and folders[0].is_dir() and part.chunk == 0 and _belongs(part, starts))
            if not is_index(path) or not wanted or stem in found:
                continue
            try:
                identity = identify(path)
                times = index_of((identity,)).time
            except FileFormatError:  # the data are there without it, and the root says so
                spoilt.append(f"{path.name} (cannot be read)")
                continue
            own = index_of(streams[named[stem]]).time if stem in named else times
            if own.size and times.size and not np.isin(own[[0, -1]], times).any():
                spoilt.append(f"{path.name} (of another run)")
            else:
                found[stem] = identity
    return tuple(found.values()), spoilt


def _stem(path: Path) -> str:
    return _ENDING.sub("", path.name)


def _stream_chunks(start: NamedFile, later: Iterable[NamedFile]) -> tuple[tuple[Identity, ...], list[str]]:
    """Follow a stream from chunk to chunk: by what its end says, else by the names of the files."""
    chunks: tuple[Identity, ...] = (identify(start.path),)
    by_number = {p.chunk: p.path for p in later}
    while len(chunks) < _LONGEST_CHAIN:
        name = index_of(chunks).next_file
        if name is None:
            path = by_number.get(start.chunk + len(chunks))
            if path is None:
                return chunks, []
        else:
            found = _file_beside(start.path, name)
            if found is None:
                return chunks, [Path(name).name]
            path = found
        following = identify(path)
        if any(following.path == chunk.path for chunk in chunks):
            raise FileFormatError(
                f"{chunks[-1].path}: the chunks of this stream run in a circle", found=f"{following.path} comes next"
            )
        chunks = (*chunks, following)
    raise FileFormatError(f"{start.path}: too many chunks", found=len(chunks))


def _file_beside(first: Path, name: str) -> Path | None:
    """Find a file that is named by another: in the same folder, whatever path was written down."""
    plain = Path(name.replace("\\", "/")).name
    for candidate in (plain, plain + GROWING):
        path = first.parent / candidate
        if plain and path.is_file():
            return path
    return None
