"""Say once that kernels are being compiled: a first call takes seconds, and nobody should wonder why."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from xsmall.kernels.jit import PLAIN

__all__ = ["say_once"]

_LOGGER: Final = logging.getLogger("xsmall")
_TEXT: Final = (
    "xsmall: compiling, once on this machine; first calls take some seconds (`xsmall warm-up` does it beforehand)"
)


class _Compilations:
    """Hears of every compilation; tells a person about the first one of this package."""

    def __init__(self) -> None:
        self.told = False

    def on_start(self, event: Any) -> None:
        """A function begins to be compiled: it was not found among those that are kept."""
        function = event.data["dispatcher"].py_func
        if not function.__module__.startswith("xsmall."):
            return
        _LOGGER.debug("compiling %s.%s", function.__module__, function.__qualname__)
        if not self.told and _somebody_watches():
            print(_TEXT, file=sys.stderr)  # noqa: T201 # to a person at a terminal or in a notebook
        self.told = True

    def on_end(self, event: Any) -> None:
        """It is compiled."""


def say_once() -> None:
    """Listen to compilations, from the first import of a kernel on; of plain kernels nothing is told."""
    if PLAIN:
        return
    from numba.core import event

    event.register("numba:compile", type("Listener", (_Compilations, event.Listener), {})())


def _somebody_watches() -> bool:
    """Whether a person types: in a shell of Python or a notebook, not in a job."""
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules
