"""What a process keeps because it was dear to make: arrays and tables per pixel, all under one budget in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Final, Protocol, TypeVar, cast

import numpy as np

__all__ = ["CACHE", "Cache"]


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)


class Cache:
    """Arrays (then read-only) and tables by key, those not used for longest given up first.

    Two threads that ask for one key at the same time make it once; different keys do not wait for each other.

    Parameters
    ----------
    budget
        Bytes to keep at most. What is larger by itself is kept until the next one comes.

    Examples
    --------
    >>> import numpy as np
    >>> from xsmall.detector.cache import Cache
    >>> cache = Cache(budget=1000)
    >>> cache.get("ones", lambda: np.ones(10)) is cache.get("ones", lambda: np.zeros(10))
    True
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._making: dict[Hashable, Lock] = {}
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        with self._lock:
            return self._held()

    def _held(self) -> int:
        return sum(int(kept.nbytes) for kept in self._kept.values())

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``key`` stands for, made by ``make`` where it is not there; keys begin with a word of their own."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return cast("T", self._kept[key])
            making = self._making.setdefault(key, Lock())
        with making:
            with self._lock:
                if key in self._kept:
                    return cast("T", self._kept[key])
            try:
                made = make()
                if isinstance(made, np.ndarray):
                    made.flags.writeable = False
            finally:
                with self._lock:
                    self._making.pop(key, None)
            self._keep(key, made)
        return made

    def _keep(self, key: Hashable, made: _Sized) -> None:
        with self._lock:
            self._kept[key] = made
            held = self._held()  # tables grow after they were made
            while held > self.budget and len(self._kept) > 1:
                _, gone = self._kept.popitem(last=False)
                held -= gone.nbytes

    def clear(self) -> None:
        """Give up everything."""
        with self._lock:
            self._kept.clear()


CACHE: Final = Cache(budget=1 << 30)
"""What this process keeps: 1 GiB for everything together (``CACHE.budget``)."""
