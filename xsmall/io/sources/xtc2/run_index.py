"""The index of a run: its streams joined by time, with what any of them says about steps, runs and configuration."""

import threading
from collections.abc import Iterator
from functools import cached_property, lru_cache
from heapq import merge
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.errors import FileFormatError, ParameterError
from xsmall.io.files import GROWING, Identity
from xsmall.io.sources.streams import join_streams
from xsmall.io.sources.xtc2.format import Service
from xsmall.io.sources.xtc2.index import Content, NamesTables, StreamIndex, Transition
from xsmall.io.sources.xtc2.kept import index_of

__all__ = ["RunFiles", "RunIndex", "RunInfo", "run_of"]

_SHOWN: Final = 8


class RunFiles(NamedTuple):
    """Which bytes are a run: the same in every process, and small enough to travel with every task.

    Attributes
    ----------
    path
        What the run is called in errors: its file or folder.
    streams
        Of each stream its chunks.
    run
        The run that was asked for, where there are several in the files.
    live
        Whether the files still grow; None where they say it themselves.
    missing
        Names of files that ought to be there and are not.
    indices
        Smalldata index files of the streams: they know events whose data are missing or cut off.
    """

    path: str
    streams: tuple[tuple[Identity, ...], ...]
    run: int | None = None
    live: bool | None = None
    missing: tuple[str, ...] = ()
    indices: tuple[Identity, ...] = ()


class RunInfo(NamedTuple):
    """What BeginRun says: experiment and number of the run, with the time from which it holds."""

    time: int
    experiment: str
    run: int


class Bearer(NamedTuple):
    """A transition with the stream that it is in."""

    stream: int
    transition: Transition

    @property
    def time(self) -> int:
        """Its time, as psana shows it."""
        return self.transition.datagram.time

    @property
    def service(self) -> int:
        """What it announces."""
        return self.transition.datagram.service


class RunIndex:
    """Events of a run over all its streams.

    Parameters
    ----------
    files
        Its bytes.

    Attributes
    ----------
    streams
        The index of each stream.
    time
        psana's 64-bit time of each event, rising.
    rows
        For each stream the number of its record in each event, -1 where the stream has none.
    lost
        Events that an index file knows, and of which no stream has anything.
    waiting
        Events that are not yet there in all streams of a run that is still written; they are not among the events.
    """

    def __init__(self, files: RunFiles) -> None:
        self.files = files
        self.path = files.path
        self.streams: list[StreamIndex] = [index_of(chunks) for chunks in files.streams]
        known = [index_of((one,)).time for one in files.indices]
        own = [index.time for index in self.streams]
        joined = join_streams([*own, *known])
        counted = joined if not known else join_streams(own)
        self.repeated, self.out_of_order = counted.repeated, counted.out_of_order
        keep = self._of_run(joined.time)
        complete = self._complete(joined.time)
        self.waiting = int((keep & ~complete).sum())
        keep &= complete
        self.time: npt.NDArray[np.uint64] = joined.time[keep]
        self.rows: list[npt.NDArray[np.int64]] = [row[keep] for row in joined.rows[: len(own)]]
        here = np.zeros(self.time.size, bool)
        for row in self.rows:
            here |= row >= 0
        self.lost = self.time.size - int(here.sum())
        self._layouts: dict[int, list[int]] = {}

    @property
    def size(self) -> int:
        """Number of events."""
        return self.time.size

    @property
    def tables(self) -> list[NamesTables]:
        """Schema tables of each Configure of each stream."""
        return [tables for index in self.streams for tables in index.tables]

    @property
    def growing(self) -> bool:
        """Whether the files are still written: by their names, or because none of several streams has ended."""
        if self.files.live is not None:
            return self.files.live
        if any(part.path.endswith(GROWING) for chunks in self.files.streams for part in chunks):
            return not all(index.ended for index in self.streams)
        return len(self.streams) > 1 and not any(index.ended for index in self.streams)

    def _complete(self, time: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which events every stream has reached: the others may lack a stream that is merely late."""
        if not self.growing:
            return np.ones(time.size, bool)
        behind = [index.last_time for index in self.streams if not index.ended]
        return np.asarray(time <= np.uint64(min(behind))) if behind else np.ones(time.size, bool)

    @cached_property
    def infos(self) -> list[RunInfo]:
        """Every BeginRun of the files, from whichever stream says what it begins."""
        found: dict[tuple[int, int], RunInfo] = {}
        for index in self.streams:
            for transition in index.of_service(Service.BEGIN_RUN):
                for content in index.read(transition):
                    expt, run = content.values.get("expt"), content.values.get("runnum")
                    if content.names.detector == "runinfo" and isinstance(expt, str) and isinstance(run, np.integer):
                        info = RunInfo(transition.datagram.time, expt, int(run))
                        found.setdefault((info.time, info.run), info)
        result = sorted(found.values())
        for before, after in pairwise(result):
            if before.time == after.time:
                raise FileFormatError(
                    f"{self.path}: the streams are not of one run",
                    found=f"runs {before.run} and {after.run} that begin at the same time",
                    expected="streams of one run",
                    fix="open each run by itself: xs.open_run([...]) with its files",
                )
        return result

    @cached_property
    def runs(self) -> list[int]:
        """Numbers of the runs that the events are of."""
        if self.files.run is not None and self._chosen is not None:
            return [self._chosen]
        return sorted({info.run for info in self.infos})

    @cached_property
    def _chosen(self) -> int | None:
        """The run that is chosen inside the files; None where they hold one alone, whatever it is called there."""
        wanted, there = self.files.run, {info.run for info in self.infos}
        return wanted if wanted in there and len(there) > 1 else None

    def run_at(self, times: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Number of the run at these times, -1 before the first."""
        begins = np.array([info.time for info in self.infos], np.uint64)
        numbers = np.array([info.run for info in self.infos] + [-1], np.int64)
        return np.asarray(numbers[np.searchsorted(begins, times, side="right") - 1])

    def _of_run(self, time: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        if self._chosen is None:
            return np.ones(time.size, bool)
        return np.asarray(self.run_at(time) == self._chosen)

    @cached_property
    def transitions(self) -> list[Bearer]:
        """Transitions of all streams by time, in the order of its files within each."""
        parts = [[Bearer(k, t) for t in self._chosen_of(index)] for k, index in enumerate(self.streams)]
        return list(merge(*parts, key=lambda b: b.time))

    def _chosen_of(self, index: StreamIndex) -> Iterator[Transition]:
        """Transitions of the chosen run, with the Configure that holds for it."""
        if self._chosen is None:
            yield from index.transitions
            return
        configure: Transition | None = None
        current = False
        for transition in index.transitions:
            service, time = transition.datagram.service, transition.datagram.time
            if service == Service.CONFIGURE:
                configure, current = transition, False
                continue
            if service == Service.BEGIN_RUN:
                current = int(self.run_at(np.array([time], np.uint64))[0]) == self._chosen
            if current:
                if configure is not None:
                    yield configure
                    configure = None
                yield transition

    def of_service(self, *services: Service) -> list[Bearer]:
        """Transitions of these kinds by time."""
        return sorted((b for b in self.transitions if b.service in services), key=lambda b: b.time)

    def read(self, bearer: Bearer) -> list[Content]:
        """Read the values of a transition."""
        return self.streams[bearer.stream].read(bearer.transition)

    @cached_property
    def steps(self) -> npt.NDArray[np.uint64]:
        """Times at which steps begin.

        All streams announce a step, at one time; and one that is announced again before anything was taken or ended
        is the same step.
        """
        begins: list[int] = []
        closed = True
        for b in self.of_service(
            Service.BEGIN_STEP, Service.END_STEP, Service.ENABLE, Service.END_RUN, Service.CONFIGURE
        ):
            if b.service != Service.BEGIN_STEP:
                closed = True
            elif not begins or b.time > begins[-1]:
                if closed or self._events_between(begins[-1], b.time):
                    begins.append(b.time)
                closed = False
        return np.array(begins, np.uint64)

    def _events_between(self, start: int, stop: int) -> bool:
        low, high = np.searchsorted(self.time, np.array([start, stop], np.uint64))
        return bool(high > low)

    def layouts(self, stream: int) -> list[int]:
        """Numbers of the layouts that the events of this run have in a stream."""
        rows, index = self.rows[stream], self.streams[stream]
        if stream not in self._layouts:
            used = np.zeros(len(index.layouts), bool)
            if index.layout.size:
                used[index.layout[rows[rows >= 0]]] = True
            self._layouts[stream] = np.flatnonzero(used).tolist()
        return self._layouts[stream]

    def unreadable(self) -> tuple[int, list[str]]:
        """How many records could not be understood, and why: the first few, each on one line."""
        count = 0
        lines: list[str] = []
        for index, rows in zip(self.streams, self.rows, strict=True):
            for one in index.unreadable:
                at = np.flatnonzero(rows == one.event) if len(lines) < _SHOWN else rows[:1]
                if len(at) and len(lines) < _SHOWN:
                    reason = "; ".join(part.strip() for part in one.reason.splitlines())
                    lines.append(f"event {int(at[0])}: {reason}")
            if index.unreadable:
                count += int(np.isin([one.event for one in index.unreadable], rows).sum())
        return count, lines

    @property
    def truncated_bytes(self) -> int:
        """Bytes behind the last whole datagram of each file."""
        return sum(index.truncated_bytes for index in self.streams)

    def check_segments(self) -> None:
        """Refuse streams that bring the same segment of a detector for the same event: one would hide the other.

        Raises
        ------
        FileFormatError
            With both files.
        """
        seen: dict[tuple[str, str, int], int] = {}
        for k, index in enumerate(self.streams):
            used = {(layout.configure, b.names_id) for layout in index.layouts for b in layout.blocks}
            names = [index.tables[c][n] for c, n in used]
            for key in sorted({(n.detector, n.alg, n.segment) for n in names}):
                other = seen.setdefault(key, k)
                if other != k and bool(((self.rows[k] >= 0) & (self.rows[other] >= 0)).any()):
                    raise FileFormatError(
                        f"{self.path}: two streams bring the same segment of a detector",
                        found=f"segment {key[2]} of {key[0]}.{key[1]} in {self.streams[other].path} and {index.path}",
                        expected="each segment once",
                        fix="leave one of the files out: xs.open_run([...])",
                    )


_lock = threading.Lock()


@lru_cache(maxsize=16)
def _make_index(files: RunFiles) -> RunIndex:
    return RunIndex(files)


def run_of(files: RunFiles) -> RunIndex:
    """Give the index of a run; each process makes it once.

    Raises
    ------
    FileFormatError
        The files are not of one run.
    """
    with _lock:
        return _make_index(files)


def choose_run(run: RunIndex, named: int | None) -> None:
    """Check that the run that was asked for is there.

    Raises
    ------
    ParameterError
        Neither the files nor their names have this number.
    """
    wanted = run.files.run
    there = sorted({info.run for info in run.infos})
    if wanted is not None and wanted != named and wanted not in there:
        raise ParameterError(
            f"{run.path}: no run of this number",
            found=wanted,
            expected=", ".join(map(str, there)) or "no number: the files do not tell one",
            fix=f"run={there[0]}" if there else "leave run= out",
        )
