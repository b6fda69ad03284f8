"""One run on its way from a recipe to its output; what was finished is never computed twice."""

from __future__ import annotations

import errno
import json
import os
import time
from asyncio import CancelledError
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from xsmall.engine.blocks import BATCH_BYTES
from xsmall.errors import DataError, ParameterError, WriteError, XsmallError
from xsmall.frames.describe import gain_bits
from xsmall.io.stores.blocks import BlockStore, sweep_texts
from xsmall.io.stores.place import TakenError, held, holder, settle
from xsmall.reductions.reduce import unused_mask
from xsmall.run.block import SMALLER, lost_block
from xsmall.run.detectors import Detector
from xsmall.run.opened import RunPlan, plan_run
from xsmall.run.output import save_run
from xsmall.run.pool import Pool, Task, is_lost, run_all
from xsmall.run.progress import Progress
from xsmall.run.recipe import Recipe
from xsmall.run.request import difference
from xsmall.run.sizes import peak_bytes
from xsmall.run.state import RunState, blocks_folder, output_path, read_state, state_path, stem_of
from xsmall.run.stored import block_name
from xsmall.run.text import like
from xsmall.run.workers import scheduler_is_gone
from xsmall.vocabulary import LOST

__all__ = ["RunJob"]

_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
_MOST_MESSAGES: Final = 50
_LOOK: Final = 0.5
"""Seconds between two looks at a job that was joined."""


class RunJob:
    """One run on its way from the recipe to its output.

    Parameters
    ----------
    recipe, run, folder
        What is made, of which run, and the folder of outputs.
    pool
        Who computes.
    progress
        Who is told.
    resume, overwrite, join
        As for :func:`xsmall.produce`.
    """

    def __init__(
        self, recipe: Recipe, run: int, folder: Path, pool: Pool, progress: Progress, *,
        resume: bool, overwrite: bool, join: bool,
    ) -> None:  # fmt: skip
        self.recipe, self.run, self.folder, self.pool, self.progress = recipe, run, folder, pool, progress
        self.resume, self.overwrite, self.join = resume or join, overwrite, join
        self.store = BlockStore(blocks_folder(folder, run))
        self.state = RunState(run, dashboard=pool.dashboard)
        self.name = uuid4().hex[:8]

    def make(self) -> RunState:
        """Make the output; what goes wrong is told by the state that comes back."""
        try:
            while True:
                with ExitStack() as taken:
                    try:
                        taken.enter_context(held(self.store.folder))
                    except TakenError as error:
                        self._may_join(error)
                    else:
                        return self._make()
                ended = self._help()
                if ended is not None:
                    return ended
        except KeyboardInterrupt:
            raise
        except OSError as error:
            if error.errno in _DISK:
                raise WriteError(
                    f"{self.folder}: nothing can be written here",
                    found=os.strerror(error.errno or 0),
                    fix="free some space, or write to another folder; then the same command goes on",
                ) from error
            return self._failed(error)
        except Exception as error:
            return self._failed(error)

    def _may_join(self, error: TakenError) -> None:
        if not self.join:
            raise TakenError(
                f"another job makes it in {self.folder}",
                found=holder(self.store.folder),
                fix="join=True (--join) to work on it together, or wait until it is done",
            ) from error

    def _failed(self, error: Exception) -> RunState:
        """Another job's run is left alone; of one's own it is written down."""
        self.state.state, self.state.why = "refused", _error_text(error)
        self.progress(self.state)
        return self.state

    def _make(self) -> RunState:
        self.state = RunState(self.run, dashboard=self.pool.dashboard)
        if self.overwrite:
            self.store.clear()  # at once: who wants to join sees nothing of what was there
        try:
            plan = plan_run(self.recipe, self.run)
        except (Exception, SystemExit) as error:  # whatever is wrong with one run, the others go on
            return self._end("failed", error)
        target = output_path(self.folder, self.run, plan.recipe.format)
        settle(target)
        finished = self._check_output(target, plan)
        if finished is not None:
            self.progress(finished)
            return finished
        replace_output = self.overwrite or target.exists()
        self._begin(plan)
        self.state.output = str(target)
        try:
            lost = self._compute(plan)
            self._write(target, plan, overwrite=replace_output)
        except KeyboardInterrupt:
            self._end("stopped", None)
            raise
        except Exception as error:
            self._end("failed", error)
            if isinstance(error, WriteError) or (isinstance(error, OSError) and error.errno in _DISK):
                raise
            return self.state
        if not lost:
            self.store.remove()
        return self._end("done", None)

    def _write(self, target: Path, plan: RunPlan, *, overwrite: bool) -> None:
        """Write the output; where workers are lost over it, by this process alone."""
        save = partial(
            save_run, target, plan.events, plan.detectors, plan.blocks, self.store,
            recipe=plan.recipe, request=plan.request, overwrite=overwrite,
        )  # fmt: skip
        try:
            save(scheduler=self.pool.writer())
        except (Exception, CancelledError) as error:
            if not isinstance(error, TimeoutError) and not is_lost(error) and scheduler_is_gone(error) is error:
                raise
            save()

    def _check_output(self, target: Path, plan: RunPlan) -> RunState | None:
        """Refuse to touch a finished output unless that was asked for; return its state where it is left as it is."""
        if self.overwrite or not target.exists():
            return None
        if not self.resume:
            raise ParameterError(
                f"{target}: is there already", fix="resume=True (--resume) or overwrite=True (--overwrite)"
            )
        before = read_state(state_path(self.folder, self.run))
        if before is not None:
            self._check_same(before.request, plan, str(target))
        if before is not None and self.store.manifest() is None:
            return before
        if before is None:
            raise ParameterError(f"{target}: nothing says what it was made of", fix="overwrite=True (--overwrite)")
        return None

    def _begin(self, plan: RunPlan) -> None:
        """Take up the blocks of an earlier job, or begin anew."""
        manifest = {**plan.request, "blocks": plan.blocks}
        before = self.store.manifest()
        if before is None:
            self.store.begin(manifest)
        else:
            self._check_same(before, plan, str(self.store.folder))
        self.store.sweep()
        sweep_texts(self.folder, stem_of(self.run))
        self._tell_plan(plan)

    def _tell_plan(self, plan: RunPlan) -> None:
        self.store = self.store.marked()
        self.state.request = plan.request
        self.state.skipped = plan.skipped
        self.state.events = plan.events.n
        self.state.blocks = sum(map(len, plan.blocks.values()))
        self.state.messages = list(_lacking(plan))

    def _check_same(self, before: Mapping[str, Any], plan: RunPlan, what: str) -> None:
        differs = self._differs(before, plan)
        if differs or not before:
            raise ParameterError(
                f"{what}: was begun with something else",
                found="; ".join(differs[:5]) or "nothing that can be read",
                expected="the same recipe, input and versions",
                fix="overwrite=True (--overwrite), or another folder",
            )

    def _differs(self, before: Mapping[str, Any], plan: RunPlan) -> list[str]:
        now = json.loads(json.dumps({**plan.request, "blocks": plan.blocks}))
        return difference(*({k: one[k] for k in now if k in before} for one in (before, now)))  # the recipe first

    # ---- beside another job ------------------------------------------------------------------------------------------

    def _help(self) -> RunState | None:
        """Compute blocks for the job that makes the run; returns how that ended, or None where the job has died."""
        self.state = RunState(self.run, dashboard=self.pool.dashboard)
        seen = read_state(state_path(self.folder, self.run))
        plan = plan_run(self.recipe, self.run)
        while self.store.manifest() is None and self._is_made():
            time.sleep(_LOOK)
        manifest = self.store.manifest()
        if manifest is not None:
            self._check_same(manifest, plan, str(self.store.folder))
            self._tell_plan(plan)
            self._compute_for_another(plan)
        while self._is_made():  # the other one writes the output
            time.sleep(_LOOK)
        ended = read_state(state_path(self.folder, self.run))
        if ended is None or ended == seen or ended.state not in ("done", "failed"):
            return None
        self.progress(ended)
        return ended

    def _is_made(self) -> bool:
        """Whether a job that is alive makes the run."""
        return holder(self.store.folder) is not None

    def _compute_for_another(self, plan: RunPlan) -> None:
        tasks = [task for task in self._tasks(plan, helps=True) if self.store.note(task.name) is None]
        self.state.blocks_done = self.state.blocks - len(tasks)
        for one in run_all(self.pool, self._fitted(plan, tasks), self.store):
            if one is not None:
                task, result = one
                if isinstance(result, BaseException):
                    if not is_lost(result) and self._is_made() and self.store.manifest() is not None:
                        raise result
                    continue  # it is left to the other one, or all of it is done
                self.state.blocks_done += 1
                self.state.events_done += task.stop - task.start
                self.state.updated = time.time()
                self.progress(self.state)
            if not self._is_made():
                return

    # ---- computing ---------------------------------------------------------------------------------------------------

    def _tasks(self, plan: RunPlan, *, helps: bool = False) -> list[Task]:
        """All blocks of the run."""
        asked = json.dumps({**plan.request, "tables": self.recipe.tables(self.run)})
        return [
            Task(
                asked, plan.source, self.run, str(self.recipe.folder), name, i, start, stop, str(self.store.folder),
                self.store.mark, self.name, helps,
            )
            for name, spans in plan.blocks.items()
            for i, (start, stop) in enumerate(spans)
        ]  # fmt: skip

    def _fitted(self, plan: RunPlan, tasks: list[Task]) -> list[Task]:
        """The same blocks, read in pieces that workers have room for; what is finished needs no memory."""
        needed = {name: _needed_memory(plan.detectors[name], plan.blocks[name]) for name in {t.detector for t in tasks}}
        limits = {name: self.pool.limit(one) for name, one in needed.items()}
        return [replace(task, limit=limits[task.detector]) for task in tasks]

    def _compute(self, plan: RunPlan) -> int:
        """Compute the blocks that are not there; returns how many were given up."""
        tasks, notes = [], {}
        for task in self._tasks(plan):
            note = self.store.note(task.name, verify=True)
            if note is None or note.get("lost"):
                tasks.append(task)
            else:
                notes[task.name] = note
        for note in notes.values():
            self._count(note)
        self._tell()
        lost = 0
        for one in run_all(self.pool, self._fitted(plan, tasks), self.store):
            if one is None:
                continue
            task, result = one
            if isinstance(result, BaseException):
                if not is_lost(result):
                    raise result
                lost += 1
                block = lost_block(plan.detectors[task.detector], task.start, task.stop, _first_line(result))
                result = self.store.write(task.name, block.arrays, block.note)
            notes[task.name] = result
            self.state.events_done += task.stop - task.start
            self._count(result)
            self._tell()
        self._tell_faults(plan, notes)
        for name, spans in plan.blocks.items():
            if spans and self.state.faults[name].get("failed", 0) == spans[-1][1]:
                self.store.remove()
                raise DataError(f"not one event of {name} could be computed", found=self.state.messages[-1])
        return lost

    def _count(self, note: Mapping[str, Any]) -> None:
        self.state.blocks_done += 1
        told = [
            *note.get("reasons", []),
            *(f"{n} events: {text}" for text, n in note.get("errors", {}).items()),
            *(f"{name} raised: {text}" for name, (_, text) in note.get("functions", {}).items()),
        ]
        self.state.messages += [text for text in told if text not in self.state.messages]
        del self.state.messages[_MOST_MESSAGES:]

    def _tell_faults(self, plan: RunPlan, notes: Mapping[str, Mapping[str, Any]]) -> None:
        for name, spans in plan.blocks.items():
            counts: dict[str, int] = {}
            raised: dict[str, int] = {}
            at = plan.events.of(name)
            absent = 0 if at is None else int((at < 0).sum())
            if absent:
                counts["absent"] = absent
            for number in range(len(spans)):
                note = notes[block_name(name, number)]
                for key, n in note["faults"].items():
                    counts[key] = counts.get(key, 0) + n
                for key, (n, _) in note.get("functions", {}).items():
                    raised[key] = raised.get(key, 0) + n
            self.state.faults[name] = counts
            if raised:
                self.state.functions[name] = raised

    def _tell(self) -> None:
        self.state.save(self.folder)
        self.progress(self.state)

    def _end(self, state: Any, error: BaseException | None) -> RunState:
        self.state.state, self.state.why = state, "" if error is None else _error_text(error)
        self.state.dashboard = ""
        self.state.save(self.folder)
        self.state.ended = self.state.updated
        self.state.save(self.folder)
        self.progress(self.state)
        return self.state


def _needed_memory(detector: Detector, spans: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Memory that a thread needs, by the bytes of frames that are read at once."""
    return {limit: peak_bytes(detector, spans, limit) for limit in (BATCH_BYTES, BATCH_BYTES // SMALLER)}


def _lacking(plan: RunPlan) -> Sequence[str]:
    """What the source has lost, event variables that only the recipe has, and frames that ought to be calibrated."""
    known = [str(n) for n in plan.events.variables.variables]
    out = []
    for name in plan.recipe.events or ():
        if name not in known:
            near = like(name, known)
            out.append(f"the run has no event variable {name!r}" + (f"; is {near} meant?" if near else ""))
    for name, detector in plan.detectors.items():
        lost = json.loads(detector.raw.attrs.get(LOST, "{}"))
        out += [f"{name}: the run has {n} {what.replace('_', ' ')}" for what, n in lost.items()]
        given = detector.prepared
        told = (gain_bits(given.values), unused_mask(given.values, given.records))
        out += [f"{name}: {text}" for text in told if text is not None]
    return out


def _error_text(error: BaseException) -> str:
    return str(error) if isinstance(error, XsmallError) else f"{type(error).__name__}: {error}"


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
