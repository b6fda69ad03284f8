"""Who writes: a name for this process that every other process, on this host or another, can tell dead or alive."""

import getpass
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

__all__ = ["SILENCE", "Heartbeat", "Owner", "end_writing", "writing"]

SILENCE: Final = 120.0
"""Seconds without a sign of life after which a writer on another host counts as dead."""
_BEAT: Final = 10.0
"""Seconds between two signs of life."""
_PROC: Final = Path("/proc")
_IN_HAND: Final = 10.0
"""Seconds that the end of a job waits for what threads of this process are writing."""
_writes: Final[dict[str, int]] = {}
_writes_change: Final = threading.Condition()


@dataclass(frozen=True)
class Owner:
    """A job that writes to one path.

    Parameters
    ----------
    job
        Name of the job, of which there is one only.
    host, boot, namespace
        Where its process runs: only there its number means anything.
    pid, start
        Number of the process and when it started, in the clock of its kernel: numbers are used again.
    user, since
        For people.
    """

    job: str
    host: str
    boot: str
    namespace: str
    pid: int
    start: str
    user: str
    since: str

    @classmethod
    def this(cls, job: str) -> "Owner":
        """Return the owner that this process is for ``job``."""
        pid = os.getpid()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(job, platform.node(), _boot(), _namespace(pid), pid, _start_of_process(pid), _user(), now)

    @classmethod
    def read(cls, text: str) -> "Owner | None":
        """Return the owner written in ``text``; None if that is not one, as after a kill in the middle of writing."""
        try:
            told = json.loads(text)
            owner = cls(**{f.name: told[f.name] for f in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return None
        return owner if str(owner.pid).isdigit() else None

    def written(self) -> str:
        """Return the text that :meth:`read` understands."""
        return json.dumps(asdict(self))

    def is_alive(self, last_sign: float) -> bool:
        """Tell whether the job can still write.

        Parameters
        ----------
        last_sign
            When the file that names it was touched last, in seconds since 1970.
        """
        if (self.host, self.boot, self.namespace) == (platform.node(), _boot(), _namespace(os.getpid())):
            return _is_running(self.pid, self.start)
        return time.time() - last_sign < SILENCE

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, writing since {self.since}"


class Heartbeat:
    """Touches files every few seconds while its job is at work, for those who cannot see the process itself."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="xsmall-heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            for path in self._paths:
                try:
                    os.utime(path)
                except OSError:  # taken away: the job itself finds that out when it is done
                    return

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()


@lru_cache(maxsize=1)
def _boot() -> str:
    """Which kernel this is: two hosts may have one name, and a host that was started again has other processes."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace(pid: int) -> str:
    """Which numbers of processes are meant: each container counts its own."""
    try:
        return os.readlink(_PROC / str(pid) / "ns/pid")
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        return str(os.getuid())


def _start_of_process(pid: int) -> str:
    """When a process started; empty where that cannot be told."""
    state = _stat(pid)
    return state[19] if state else ""


def _stat(pid: int) -> list[str]:
    """State and what follows it; the name before may hold spaces and brackets."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _is_running(pid: int, start: str) -> bool:
    if (_PROC / "self/stat").exists():
        state = _stat(pid)
        return bool(state) and state[0] not in "ZXx" and state[19] == start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def writing(owner_file: str) -> Iterator[None]:
    """Write a piece for a job, as long as its file is there.

    Raises
    ------
    FileNotFoundError
        The job has ended. What was written all the same, from another process, is removed.
    """
    with _writes_change:
        _writes[owner_file] = _writes.get(owner_file, 0) + 1
    try:
        _check_is_there(owner_file)  # once it is counted: who removes the file waits for it from then on
        yield
    finally:
        with _writes_change:
            _writes[owner_file] -= 1
            if not _writes[owner_file]:
                del _writes[owner_file]
            _writes_change.notify_all()
    if not os.path.exists(owner_file):
        shutil.rmtree(os.path.dirname(owner_file), ignore_errors=True)
        _check_is_there(owner_file)


def _check_is_there(owner_file: str) -> None:
    if not os.path.exists(owner_file):
        raise FileNotFoundError(f"{owner_file}: the job that wrote here has ended")


def end_writing(owner_file: Path) -> None:
    """Remove the file of a job, the sign for all to stop, and wait for what this process is writing."""
    with _writes_change:
        owner_file.unlink(missing_ok=True)
        _writes_change.wait_for(lambda: str(owner_file) not in _writes, _IN_HAND)
