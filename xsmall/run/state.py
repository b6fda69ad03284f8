"""How far a run is: one small file beside each output, which shells, people and other programs read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from xsmall.errors import ParameterError
from xsmall.io.stores.blocks import write_text
from xsmall.io.stores.place import holder

__all__ = ["FORMATS", "RunState", "blocks_folder", "output_path", "production_status", "state_path"]

State = Literal["running", "done", "failed", "stopped", "refused"]
FORMATS: Final = {"zarr": ".zarr", "h5": ".h5"}
COUNTED: Final = ("unreadable", "failed", "lost")
"""Faults of events that a healthy run does not have."""


def stem_of(run: int) -> str:
    """Name of a run's output without its ending."""
    return f"run{run:04d}"


def output_path(folder: Path, run: int, form: str) -> Path:
    """Where the output of a run lies."""
    return folder / f"{stem_of(run)}{FORMATS[form]}"


def state_path(folder: Path, run: int) -> Path:
    """Where it is told how far a run is."""
    return folder / f"{stem_of(run)}.status.json"


def blocks_folder(folder: Path, run: int) -> Path:
    """Where finished blocks of a run lie while it is being made."""
    return folder / f"{stem_of(run)}.blocks"


@dataclass
class RunState:
    """How far a run is, and what was met on the way.

    Attributes
    ----------
    run
        Its number.
    state
        ``"running"``, ``"done"``, ``"failed"``, ``"stopped"`` (by Ctrl-C or a kill: the same command goes on), or
        ``"refused"`` (nothing was touched).
    why
        Why it failed or was refused.
    output
        Path of what was written.
    events
        Number of events in the output.
    blocks, blocks_done
        Blocks of work in all and on the disk.
    faults
        For each detector the number of events by what they lack, as the flags of its variable ``fault``.
    functions
        For each detector the number of events in which functions of users raised, by the name of the reduction.
    skipped
        Detectors that the run lacks, and what was found instead.
    messages
        What was met on the way: parts of files that cannot be read, functions that raised.
    began, updated, ended
        When, in seconds since 1970.
    request
        What was asked for: recipe, input, versions.
    dashboard
        Where dask's page on the workers is, as long as the run goes on.
    """

    run: int
    state: State = "running"
    why: str = ""
    output: str = ""
    events: int = 0
    blocks: int = 0
    blocks_done: int = 0
    faults: dict[str, dict[str, int]] = field(default_factory=dict)
    functions: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    ended: float | None = None
    events_done: int = 0
    request: dict[str, Any] = field(default_factory=dict)
    dashboard: str = ""

    @property
    def n_flagged(self) -> int:
        """Events of all detectors that could not be read or computed."""
        return sum(n for counts in self.faults.values() for name, n in counts.items() if name in COUNTED)

    @property
    def n_faults(self) -> int:
        """Events that something happened to which happens to none of a healthy run, by detector and function."""
        return self.n_flagged + sum(n for counts in self.functions.values() for n in counts.values())

    @property
    def rate(self) -> float:
        """Events of detectors that were done in a second, since this job began."""
        spent = (self.ended or self.updated) - self.began
        return self.events_done / spent if spent > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds that the blocks which are left will take; None where nothing can be said."""
        done = self.blocks_done
        if self.state != "running" or not done or not self.blocks:
            return None
        return (self.updated - self.began) * (self.blocks - done) / done

    def line(self) -> str:
        """Say all of it in one line."""
        parts = [f"run {self.run:<5} {self.state:<8} {self.events:>8} events  blocks {self.blocks_done}/{self.blocks}"]
        if self.state == "running" and self.remaining is not None:
            parts.append(f"{self.rate:.0f} events/s, {self.remaining:.0f} s to go")
        for detector, counts in self.faults.items():
            told = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items())
            parts += [f"{detector}: {told}"] if told else []
        parts += self.told_of_functions()
        parts += [f"without {', '.join(self.skipped)}"] if self.skipped else []
        parts += ["; ".join(" ".join(part.split()) for part in self.why.splitlines())] if self.why else []
        return "  ".join(parts)

    def told_of_functions(self) -> list[str]:
        """Say which functions of users raised, and in how many events."""
        return [f"{d}: {name} raised in {n}" for d, counts in self.functions.items() for name, n in counts.items()]

    def save(self, folder: Path) -> None:
        """Write it beside the output, in one step."""
        self.updated = time.time()
        write_text(state_path(folder, self.run), json.dumps(asdict(self), indent=1))

    def as_json(self) -> dict[str, Any]:
        """For run tables: everything but what was asked for, times as text."""
        told = {k: x for k, x in asdict(self).items() if k != "request"}
        for name in ("began", "updated", "ended"):
            told[name] = None if told[name] is None else _time_text(told[name])
        return told | {"rate": round(self.rate, 3), "remaining": self.remaining, "n_faults": self.n_faults}


def production_status(folder: str | os.PathLike[str]) -> list[RunState]:
    """Tell how far the runs of a production are.

    Parameters
    ----------
    folder
        Where :func:`xsmall.produce` writes.

    Returns
    -------
    A :class:`RunState` for each run, by number. One whose job was killed is ``"stopped"``.

    Raises
    ------
    ParameterError
        No such folder.

    Examples
    --------
    >>> import tempfile, xsmall as xs
    >>> xs.production_status(tempfile.mkdtemp())
    []
    """
    where = Path(folder).expanduser()
    if not where.is_dir():
        raise ParameterError(
            f"{where}: no such folder", expected="the folder that xs.produce wrote to", fix="check the path"
        )
    return sorted(_states(where), key=lambda state: state.run)


def _states(folder: Path) -> Iterator[RunState]:
    for path in folder.glob("run*.status.json"):
        found = read_state(path)
        if found is not None:
            if found.state == "running" and holder(blocks_folder(folder, found.run)) is None:
                found.state, found.why = "stopped", "its job was killed; the same command goes on"
            yield found


def read_state(path: Path) -> RunState | None:
    """Read how far a run is; None where nothing that can be read is there."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return RunState(**{f.name: told[f.name] for f in fields(RunState) if f.name in told})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _time_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
