"""A memory of arrays with a budget in bytes, shared by the threads of a process."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ArrayCache"]


class ArrayCache:
    """Arrays by key, read-only, the ones not used for longest given up first.

    Two threads that ask for one key at the same time make the array once; different keys do not wait for each other.

    Parameters
    ----------
    budget
        Bytes to keep at most. An array larger than that is made and handed out, but not kept.

    Examples
    --------
    >>> import numpy as np
    >>> from xsmall.detector.cache import ArrayCache
    >>> cache = ArrayCache(budget=1000)
    >>> cache.get("ones", lambda: np.ones(10)) is cache.get("ones", lambda: np.zeros(10))
    True
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._arrays: OrderedDict[Hashable, npt.NDArray[Any]] = OrderedDict()
        self._making: dict[Hashable, Lock] = {}
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        with self._lock:
            return sum(array.nbytes for array in self._arrays.values())

    def get(self, key: Hashable, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Array of ``key``, made by ``make`` where it is not there yet."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
            making = self._making.setdefault(key, Lock())
        with making:
            with self._lock:
                if key in self._arrays:
                    return self._arrays[key]
            try:
                array = np.asarray(make())
                array.flags.writeable = False
            finally:
                with self._lock:
                    self._making.pop(key, None)
            self._keep(key, array)
        return array

    def _keep(self, key: Hashable, array: npt.NDArray[Any]) -> None:
        with self._lock:
            if array.nbytes > self.budget:
                return
            self._arrays[key] = array
            held = sum(kept.nbytes for kept in self._arrays.values())
            while held > self.budget:
                _, gone = self._arrays.popitem(last=False)
                held -= gone.nbytes

    def clear(self) -> None:
        """Give up everything."""
        with self._lock:
            self._arrays.clear()
