"""psana in this process: a run of it, and events made for it from the bytes of any event.

Which events there are, and where they lie, is known from our own index; psana is handed their bytes. So any process
can evaluate any event, whoever has evaluated the one before: no MPI, and no walk from the first event on.
"""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from xsmall.errors import CalibrationError, DataError, FileFormatError, MissingDependency
from xsmall.io.constants.psana_database import HeldDocument, value_of
from xsmall.io.sources.xtc2.run_index import RunFiles, RunIndex, run_of

__all__ = ["LOCK", "ConstantsOfRun", "PsanaRun", "import_psana", "psana_run"]

ConstantsOfRun = tuple[tuple[str, tuple[tuple[str, HeldDocument], ...]], ...]
"""Of each detector the documents of its constants, by their type."""
LOCK: Final = threading.RLock()
"""psana does not work in two threads at once."""
_KEPT: Final = 4


def import_psana() -> Any:
    """Import psana for one process, with MPI or without it.

    Raises
    ------
    MissingDependency
        psana is not installed, or does not work here.
    """
    known = sys.modules.get("psana")
    if known is not None:
        return known
    os.environ.setdefault("PS_PARALLEL", "none")
    try:
        with _without_mpi():
            import psana
    except (ImportError, RuntimeError, OSError) as error:  # a library that it needs is not there
        sys.modules.pop("psana", None)
        missing = MissingDependency.of("psana", "psana", "engine='psana'")
        raise MissingDependency(f"{missing}\n  found:    {error}") from error
    return psana


@contextmanager
def _without_mpi() -> Iterator[None]:
    """Let psana be imported where there is no MPI: parts of it ask for the number of processes, which is one."""
    try:
        from mpi4py import MPI  # type: ignore[import-not-found] # noqa: F401
    except (ImportError, RuntimeError):
        one = types.SimpleNamespace(Get_size=lambda: 1, Get_rank=lambda: 0)
        stand_in = types.ModuleType("mpi4py")
        stand_in.MPI = types.SimpleNamespace(COMM_WORLD=one)  # type: ignore[attr-defined]
        sys.modules["mpi4py"] = stand_in
        try:
            yield
        finally:
            sys.modules.pop("mpi4py", None)
    else:
        yield


def _data_source(paths: list[str]) -> Any:
    """Make psana's source of several streams: by their files alone, it asks nobody where they are."""
    import_psana()
    from psana.dgrammanager import DgramManager
    from psana.psexp.singlefile_ds import SingleFileDataSource

    class Streams(SingleFileDataSource):  # type: ignore[misc]
        """All streams of one run, where psana's own takes one file after the other."""

        def _setup_run(self) -> bool:
            if getattr(self, "dm", None) is not None:
                return False
            self.xtc_path = Path(self.files[0]).parent
            self.dm = DgramManager(list(self.files), config_consumers=[self.dsparms])
            return True

    return Streams(files=paths, skip_calib_load="all")


class PsanaRun:
    """A run of psana, with its detectors.

    Parameters
    ----------
    files
        The bytes of the run.
    constants
        What psana's database has for its detectors.

    Raises
    ------
    FileFormatError
        psana cannot open these files.
    """

    def __init__(self, files: RunFiles, constants: ConstantsOfRun) -> None:
        self.index: RunIndex = run_of(files)
        configures = {layout.configure for k, i in enumerate(self.index.streams) for layout in self._used(k, i)}
        if len(configures) > 1:
            raise DataError(
                f"{files.path}: psana opens one run at a time",
                found=f"runs {', '.join(map(str, self.index.runs))} with different Configures",
                expected="one run",
                fix=f"run={self.index.runs[0]}",
            )
        try:
            self._run = self._find(files)
        except (FileNotFoundError, RuntimeError, IndexError, StopIteration) as error:
            raise FileFormatError(f"{files.path}: psana cannot open it", found=repr(error)) from error
        held = {detector: dict(documents) for detector, documents in constants}
        for detector in self._run.dsparms.configinfo_dict:
            found = held.get(detector, {})
            self._run._calib_const[detector] = {k: (value_of(h), h.document) for k, h in found.items()}
        self._run.dsparms.calibconst = self._run._calib_const
        self._detectors: dict[str, Any] = {}

    def _used(self, stream: int, index: Any) -> list[Any]:
        return [index.layouts[k] for k in self.index.layouts(stream)]

    def _find(self, files: RunFiles) -> Any:
        source = _data_source([chunks[0].path for chunks in files.streams])
        wanted = self.index.runs[0] if len(self.index.runs) == 1 else None
        several = len({info.run for info in self.index.infos}) > 1
        for run in source.runs():
            if not several or run.runnum == wanted:
                return run
        raise StopIteration

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """Interfaces of each detector."""
        result: dict[str, list[str]] = {}
        for detector, interface in self._run.dsparms.det_classes["normal"]:
            result.setdefault(detector, []).append(interface)
        return result

    def detector(self, name: str) -> Any:
        """Give psana's object of a detector."""
        if name not in self._detectors:
            self._detectors[name] = self._run.Detector(name)
        return self._detectors[name]

    def event(self, number: int) -> Any:
        """Make psana's event of one of the run's."""
        from psana import dgram
        from psana.event import Event

        datagrams: list[Any] = []
        for stream, (index, rows) in enumerate(zip(self.index.streams, self.index.rows, strict=True)):
            row = int(rows[number])
            if row < 0:
                datagrams.append(None)
                continue
            data = index.chain.read(int(index.offset[row]), int(index.size[row]))
            datagrams.append(dgram.Dgram(config=self._run.dm.configs[stream], view=data))
        return Event(dgrams=datagrams, run=self._run._run_ctx)

    def evaluate(self, what: Callable[[Any, Any], Any], detector: str, number: int) -> Any:
        """Apply a function of (detector, event) to an event; what psana itself raises is told with the event."""
        try:
            return what(self.detector(detector), self.event(number))
        except (FileFormatError, CalibrationError):
            raise
        except Exception as error:  # psana, or a function of the user
            raise DataError(
                f"{self.index.path}, event {number}: psana fails for {detector!r}",
                found=f"{type(error).__name__}: {error}",
                fix="leave it out of read=, or the event out of the run",
            ) from error


_runs: dict[tuple[RunFiles, str], PsanaRun] = {}


def psana_run(files: RunFiles, constants: ConstantsOfRun) -> PsanaRun:
    """Give psana's run of these files; each process makes it once. To be called under the lock."""
    key = files, repr(constants)
    if key not in _runs:
        while len(_runs) >= _KEPT:
            del _runs[next(iter(_runs))]
        _runs[key] = PsanaRun(files, constants)
    return _runs[key]
