"""Open files of this process: positioned reads that threads share, and a reading window for headers."""

import inspect
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from xsmall.calls import check_call
from xsmall.detector.geometry.text import refuse_special
from xsmall.errors import FileFormatError, ParameterError, XsmallError

P = ParamSpec("P")
T = TypeVar("T")

_VECTORS: Final = 512  # buffers of one vectored read; POSIX guarantees 16, Linux and macOS have 1024
_FIRST_WINDOW: Final = 512
_LAST_WINDOW: Final = 1 << 20
_REPEATED: Final = 8
"""Paths of a list that advice repeats."""
GROWING: Final = ".inprogress"
"""Ending of files that are still written; they are renamed when they are complete."""


class Identity(NamedTuple):
    """Identifies the bytes of a file: the same in every process, small enough to travel with every task.

    A file may grow after it was opened: then the first ``size`` bytes count, and everybody sees the same events.
    """

    path: str
    size: int
    mtime_ns: int


class File:
    """A file opened for reading, of which the first ``size`` bytes are looked at."""

    def __init__(self, identity: Identity) -> None:
        self.path = identity.path
        self.size = identity.size
        self._fd = _descriptor(self.path)
        self._mtime_ns = identity.mtime_ns
        now = os.fstat(self._fd)
        if now.st_size < self.size:
            raise self._changed(now)
        self.check()

    def check(self) -> None:
        """Refuse bytes that were written over since the file was opened; one that has grown still has those meant.

        Raises
        ------
        FileFormatError
            As large as it was, and written to since.
        """
        now = os.fstat(self._fd)
        if now.st_size == self.size and now.st_mtime_ns != self._mtime_ns:
            raise self._changed(now)

    def _changed(self, now: os.stat_result) -> FileFormatError:
        return FileFormatError(
            f"{self.path}: the file has changed since it was opened",
            found=f"{now.st_size} bytes, changed at {now.st_mtime_ns} ns",
            expected=f"{self.size} bytes, changed at {self._mtime_ns} ns",
            fix="open the run again",
        )

    def __del__(self) -> None:
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)

    def pread(self, n: int, offset: int) -> bytes:
        """Return up to ``n`` bytes from ``offset``: fewer at the end of the file only."""
        data = os.pread(self._fd, n, offset)
        while 0 < len(data) < n:
            more = os.pread(self._fd, n - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def read(self, offset: int, n: int) -> bytes:
        """Return exactly ``n`` bytes from ``offset``."""
        data = self.pread(n, offset)
        if len(data) < n:
            raise FileFormatError(f"{self.path}, byte {offset}: the file ends early", found=len(data), expected=n)
        return data

    def read_into(self, offset: int, buffers: Sequence[npt.NDArray[np.uint8]]) -> None:
        """Fill the buffers, one behind the other, with the bytes from ``offset`` on, in as few reads as allowed."""
        for k in range(0, len(buffers), _VECTORS):
            part = list(buffers[k : k + _VECTORS])
            want = sum(b.nbytes for b in part)
            got = self._preadv(part, offset)
            if got < want:  # the kernel may stop anywhere, at 2 GiB for one: take the rest piece by piece
                self._fill_rest(part, offset, got)
            offset += want

    def _preadv(self, buffers: list[Any], offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._fd, buffers, offset)
        return 0

    def _fill_rest(self, buffers: list[npt.NDArray[np.uint8]], offset: int, done: int) -> None:
        for buffer in buffers:
            if done < buffer.nbytes:
                rest = buffer[done:]
                rest[:] = np.frombuffer(self.read(offset + done, rest.nbytes), np.uint8)
            done = max(0, done - buffer.nbytes)
            offset += buffer.nbytes


def _descriptor(path: str) -> int:
    """Open a file; one that was still written when it was named may have lost that ending since."""
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
    try:
        if not os.path.exists(path) and path.endswith(GROWING):
            path = path.removesuffix(GROWING)
        return os.open(path, flags)
    except OSError as error:
        fix = "put it back and open the run again" if isinstance(error, FileNotFoundError) else "ask for the permission"
        raise FileFormatError(f"{path}: the file cannot be read", found=error.strerror, fix=fix) from error


class ReadWindow:
    """Reads small pieces through a window that grows while they follow one another.

    Headers of large datagrams cost one read of 512 bytes each; small datagrams share reads of up to 1 MB.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._start = 0
        self._data = b""
        self._width = _FIRST_WINDOW

    @property
    def path(self) -> str:
        """Path of the file."""
        return self._file.path

    def read(self, offset: int, n: int) -> bytes:
        """Return exactly ``n`` bytes from ``offset``."""
        at = offset - self._start
        if at >= 0 and at + n <= len(self._data):
            return self._data[at : at + n]
        near = 0 <= at <= len(self._data) + _FIRST_WINDOW // 8
        self._width = min(2 * self._width, _LAST_WINDOW) if near else _FIRST_WINDOW
        self._data = self._file.pread(min(max(n, self._width), self._file.size - offset), offset)
        self._start = offset
        if len(self._data) < n:
            raise FileFormatError(f"{self.path}, byte {offset}: the file ends early", found=len(self._data), expected=n)
        return self._data[:n]


def identify(path: str | os.PathLike[str]) -> Identity:
    """Identify the bytes of a file: absolute path, present size and time of change."""
    absolute = str(Path(path).expanduser().resolve())
    if not os.path.isfile(absolute):
        raise FileFormatError(f"{absolute}: no such file", expected="an XTC2 file", fix="check the path")
    now = os.stat(absolute)
    return Identity(absolute, now.st_size, now.st_mtime_ns)


_lock = threading.Lock()


@lru_cache(maxsize=64)
def _open_identified(identity: Identity) -> File:
    return File(identity)


def open_file(identity: Identity) -> File:
    """Give the open file of this process; files stay open while anybody holds them, and the last 64 beyond that."""
    with _lock:
        return _open_identified(identity)


def as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """View a C-contiguous array as bytes, to be read into."""
    return array.reshape(-1).view(np.uint8)


def names_its_file(read: Callable[P, T]) -> Callable[P, T]:
    """Let every error of a reader name the file, its first argument, from whatever library it comes."""
    signature, call = inspect.signature(read), f"xs.{read.__name__}"

    @wraps(read)
    def reader(*args: P.args, **kwargs: P.kwargs) -> T:
        if "exp" in kwargs and not args:  # as psana takes it
            fix = f'{call}("exp={kwargs["exp"]},run={kwargs.get("run", 7)}")'
            raise ParameterError("a run is named in one text", found=f"exp={kwargs['exp']!r}", fix=fix)
        bound = check_call(call, signature, args, kwargs)  # a call that is wrong is no fault of the file
        given = next(iter(bound.arguments.values()), None)
        for one in given if isinstance(given, list | tuple) else (given,):
            if isinstance(one, str | os.PathLike):
                refuse_special(one)
        is_path = isinstance(given, str | os.PathLike) and "\n" not in str(given)
        try:
            return read(*args, **kwargs)
        except XsmallError as error:
            whole = _as_typed(str(error), call, args, kwargs)
            error.args = (whole if not is_path or Path(str(given)).name in whole else f"{given}: {whole}",)
            raise
        except Exception as error:
            if not is_path:
                raise
            said = str(error).splitlines()
            raise FileFormatError(
                f"{given}: cannot be read",
                found=f"{type(error).__name__}: {said[0][:200] if said else ''}",
                expected="a file that is whole",
                fix="copy it again from where it was written",
            ) from error

    return reader


def _as_typed(said: str, call: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Put what the user typed into advice that stands for it with dots, so that the advice works as it stands."""
    before, dots, advice = said.partition(f"{call}(..., ")
    kept = {name: value for name, value in kwargs.items() if f"{name}=" not in advice}
    if not dots or not all(map(_can_be_typed, (*args, *kept.values()))):
        return said
    typed = [*map(_typed, args), *(f"{name}={_typed(value)}" for name, value in kept.items())]
    return f"{before}{call}({', '.join(typed)}, {advice}"


def _can_be_typed(value: object) -> bool:
    """Whether an argument is short to repeat: text of a file and objects are not."""
    if isinstance(value, list | tuple):
        return len(value) <= _REPEATED and all(map(_can_be_typed, value))
    if isinstance(value, dict):
        return all(map(_can_be_typed, value.values()))
    return isinstance(value, os.PathLike | int | float | None) or (isinstance(value, str) and "\n" not in value)


def _typed(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_typed, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {_typed(one)}' for name, one in value.items())}}}"
    return repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
