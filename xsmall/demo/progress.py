"""One progress bar for all that dask computes in one step."""

from __future__ import annotations

import time
from typing import Any, Final, Self, TextIO

from dask.callbacks import Callback

__all__ = ["Bar"]

WIDTH: Final = 40
PAUSE: Final = 0.1  # s between two drawings


class Bar(Callback):  # type: ignore[misc]  # dask has no types
    """Draws how much of the computations at hand is done; a context manager.

    A step may compute several times; the bar starts again for each. Where the output is no terminal only the last
    state is written.

    Parameters
    ----------
    out
        Where to draw.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._live = out.isatty()
        self._begun = self._drawn = time.perf_counter()

    def __enter__(self) -> Self:
        self._begun = time.perf_counter()
        super().__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        finished = args[0] is None
        self._draw(1.0 if finished else 0.0)
        self._out.write("\n")
        self._out.flush()

    def _posttask(self, key: object, result: object, dsk: object, state: dict[str, Any], worker_id: object) -> None:
        del key, result, dsk, worker_id
        now = time.perf_counter()
        if self._live and now - self._drawn > PAUSE:
            self._drawn = now
            done = len(state["finished"])
            self._draw(done / max(done + sum(len(state[k]) for k in ("ready", "waiting", "running")), 1))

    def _draw(self, share: float) -> None:
        full = int(share * WIDTH)
        start = "\r" if self._live else ""
        bar = "#" * full + "." * (WIDTH - full)
        self._out.write(f"{start}   [{bar}] {100 * share:3.0f} %  {time.perf_counter() - self._begun:5.1f} s")
        self._out.flush()
