"""The place of a file that is to be written: one job takes it, lands on it in one step, and any kill leaves it whole.

While ``small.zarr`` is written there lie beside it

* ``small.zarr.lock``, a small file that names the job that has taken the place;
* ``small.zarr.<job>.part``, a folder with the same name tag and, as ``content``, what is being written. It is a folder
  for HDF5 too, so that nobody opens by its ending what is not complete.

Both are gone when the job is done or has failed. What a killed job leaves is found dead by the next one, and removed.
"""

import ctypes
import errno
import fcntl
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from xsmall.errors import ParameterError, WriteError
from xsmall.io.stores.owner import SILENCE, Heartbeat, Owner, end_writing

__all__ = ["OwnedPath", "TakenError", "held", "holder", "holders", "settle", "sync", "sync_all", "taken", "write_file"]

_LOCK: Final = ".lock"
_OWNER: Final = "owner.json"
_CONTENT: Final = "content"
_OLD: Final = "replaced"
_NO_REPLACE: Final = 1  # flags of renameat2
_EXCHANGE: Final = 2
_UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EPERM)
_PATIENCE: Final = 2.0
"""Seconds that a reader waits for a job that is between its two renames."""
_SYNCED_AT_ONCE: Final = 16
_guard: Final = threading.Lock()  # closing any handle of a file frees the locks that its process has on it


class TakenError(WriteError):
    """Another job has the path."""


class OwnedPath:
    """A path that this job alone may write to.

    Attributes
    ----------
    target
        Where the file is to be.
    content
        Where it is to be written.
    owner_file
        A file that is there as long as the job is at work: other processes look before they write.
    """

    def __init__(self, target: Path, owner: Owner, overwrite: bool) -> None:
        self.target = target
        self.owner = owner
        self.part = target.with_name(f"{target.name}.{owner.job}.part")
        self.content = self.part / _CONTENT
        self.owner_file = self.part / _OWNER
        self._overwrite = overwrite

    def is_mine(self) -> bool:
        """Whether the lock still names this job."""
        owner, _ = _holder(_lock_of(self.target))
        return owner is not None and owner.job == self.owner.job

    def land(self) -> None:
        """Move the complete content to the target, in one step where the file system can, and make that durable.

        Raises
        ------
        WriteError
            Another job took the place, or wrote to it without asking.
        """
        if not self.is_mine():
            raise WriteError(
                f"{self.target}: the place was taken by another job while this one was writing",
                expected=f"a sign of life every {SILENCE:.0f} s",
                fix="save again, or under another name",
            )
        sync(self.part)
        if not (self._overwrite and _lies(self.target)):
            try:
                _move(self.content, self.target)
            except FileExistsError:
                raise WriteError(
                    f"{self.target}: another program wrote it while this job was writing",
                    fix="overwrite=True, or another path",
                ) from None
        elif not _rename(self.content, self.target, _EXCHANGE):
            if self.target.is_dir() or self.content.is_dir():
                self.target.rename(self.part / _OLD)  # `settle` brings it back after a kill here
                self.content.rename(self.target)
            else:
                self.content.replace(self.target)
        sync(self.target.parent)


@contextmanager
def taken(path: Path, *, overwrite: bool) -> Iterator[OwnedPath]:
    """Take the place of a file for one job; give it back, and remove what did not land, whatever happens.

    Parameters
    ----------
    path
        Where the file is to be; its folder is there.
    overwrite
        Whether what is there may be replaced.

    Raises
    ------
    ParameterError
        No such folder, or something is there and may not be replaced.
    WriteError
        Another job is writing to it, or nothing can be written there.
    """
    target = path.expanduser().resolve()
    if not target.parent.is_dir():
        raise ParameterError(f"{target.parent}: no such folder", fix=f"os.makedirs({str(target.parent)!r})")
    _check_free(target, overwrite)
    lock = _lock_of(target)
    owner = Owner.this(uuid4().hex[:8])
    place = OwnedPath(target, owner, overwrite)
    _take_place(lock, target, owner)
    try:
        _put_back(target)
        _check_free(target, overwrite)  # the job that had the place before may have landed meanwhile
        for part in _part_folders(target):
            if not _is_alive(part):
                remove(part)
        place.part.mkdir()
        place.owner_file.write_text(owner.written())
        beat = Heartbeat((lock, place.owner_file))
        try:
            yield place
        finally:
            beat.stop()
    finally:
        remove(place.part)
        _give_back(lock, owner)


def write_file(path: Path, write: Callable[[Path], object], *, overwrite: bool) -> Path:
    """Write one small file, complete or not there: masks and geometries for other programs.

    Parameters
    ----------
    path
        Where the file is to be.
    write
        Called with the path to write to, which has the same ending.
    overwrite
        Whether what is there may be replaced.

    Raises
    ------
    ParameterError
        No such folder, or something is there and may not be replaced.
    WriteError
        Another job is writing to it, or it cannot be written.
    """
    target = path.expanduser()
    try:
        with taken(target, overwrite=overwrite) as place:
            draft = place.part / f"draft{target.suffix}"
            write(draft)
            sync(draft)
            draft.rename(place.content)
            place.land()
    except OSError as error:
        raise WriteError(
            f"{target}: cannot be written",
            found=error.strerror or str(error),
            expected=f"a folder that this user may write to, with space: {target.parent}",
            fix="write it to another folder; nothing was left behind",
        ) from error
    return target


@contextmanager
def held(path: Path, job: str | None = None) -> Iterator[None]:
    """Take a path for one job that works in a folder of its own, which outlives it; give it back, whatever happens.

    Parameters
    ----------
    path
        What is taken; its folder is there, it itself need not be.
    job
        Name of the job, where several processes work for it: one of them may take what another one has, which the
        job believes to be dead.

    Raises
    ------
    TakenError
        Another job has it.
    """
    target = path.expanduser().resolve()
    lock, owner = _lock_of(target), Owner.this(job or uuid4().hex[:8])
    _take_place(lock, target, owner)
    beat = Heartbeat((lock,))
    try:
        yield
    finally:
        beat.stop()
        _give_back(lock, owner)


def holder(path: Path) -> Owner | None:
    """Return the job that has taken a path and is alive; None where there is none."""
    lock = _lock_of(path.expanduser().resolve())
    if not lock.exists():
        return None
    owner, last_sign = _holder(lock)
    return owner if owner is not None and owner.is_alive(last_sign) else None


def holders(folder: Path) -> dict[str, Owner]:
    """Jobs that are alive and have taken something in a folder, by the name of what they took; locks of the dead go."""
    found = {}
    for lock in folder.glob(f"*{_LOCK}"):
        owner, last_sign = _holder(lock)
        if owner is not None and owner.is_alive(last_sign):
            found[lock.name.removesuffix(_LOCK)] = owner
        elif owner is not None:
            _give_back(lock, owner)
    return found


def settle(path: Path) -> None:
    """Put back what a job that was killed in the middle of replacing ``path`` had moved aside.

    Parameters
    ----------
    path
        What is about to be opened. Nothing happens if it is there, or if nothing was moved aside.

    Notes
    -----
    Where the file system exchanges two files in one step, as local Linux file systems do, there is nothing to put back.
    """
    target = path.expanduser().resolve()
    until = time.monotonic() + _PATIENCE
    while not _lies(target) and target.parent.is_dir():
        aside = [part for part in _part_folders(target) if _lies(part / _OLD)]
        if not aside:
            return
        if not any(map(_is_alive, aside)):
            _put_back(target)
            return
        if time.monotonic() > until:
            return
        time.sleep(0.02)


def _put_back(target: Path) -> None:
    if _lies(target):
        return
    aside = [part / _OLD for part in _part_folders(target) if _lies(part / _OLD) and not _is_alive(part)]
    if aside:
        newest = max(aside, key=lambda old: old.parent.stat().st_mtime)
        with suppress(FileExistsError, FileNotFoundError):  # somebody else put it back
            _move(newest, target)
            sync(target.parent)


def _check_free(target: Path, overwrite: bool) -> None:
    if not _lies(target):
        return
    if not overwrite:
        raise ParameterError(f"{target}: is there already", fix="overwrite=True, or another path")
    if target.is_dir() and not (target / "zarr.json").is_file():
        raise ParameterError(f"{target}: a folder that is no Zarr store is not replaced", fix="another path")
    if not target.is_dir() and not target.is_file():
        raise ParameterError(f"{target}: neither a file nor a folder, it is not replaced", fix="another path")


# ---- the lock --------------------------------------------------------------------------------------------------------


def _lock_of(target: Path) -> Path:
    return target.with_name(target.name + _LOCK)


def _take_place(lock: Path, target: Path, owner: Owner) -> None:
    with _locked(lock) as fd:
        before, last_sign = _read_owner(fd)
        if before is not None and before.job != owner.job and before.is_alive(last_sign):
            raise TakenError(
                f"{target}: another job is writing it",
                found=before,
                fix="wait until it is done, or save under another name; after its death the place is free again"
                f" (on another host: {SILENCE:.0f} s after its last sign of life)",
            )
        text = owner.written().encode()
        try:
            os.ftruncate(fd, 0)
            if os.pwrite(fd, text, 0) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(lock))
        except OSError:  # not even this has room: nobody has the place
            lock.unlink()
            raise


def _give_back(lock: Path, owner: Owner) -> None:
    with suppress(FileNotFoundError), _locked(lock, create=False) as fd:
        holder, _ = _read_owner(fd)
        if holder is not None and holder.job == owner.job:
            lock.unlink()


def _holder(lock: Path) -> tuple[Owner | None, float]:
    try:
        with _locked(lock, create=False) as fd:
            return _read_owner(fd)
    except FileNotFoundError:
        return None, 0.0


def _read_owner(fd: int) -> tuple[Owner | None, float]:
    now = os.fstat(fd)
    return Owner.read(os.pread(fd, now.st_size, 0).decode(errors="replace")), now.st_mtime


@contextmanager
def _locked(lock: Path, *, create: bool = True) -> Iterator[int]:
    """Hold the lock file for a moment, so that reading and writing it is one step, between hosts too.

    File systems without locks do without: then two jobs that come within microseconds are told apart when they land.
    """
    with _guard:
        while True:
            fd = os.open(lock, os.O_RDWR | (os.O_CREAT if create else 0) | os.O_CLOEXEC, 0o666)
            try:
                try:
                    fcntl.lockf(fd, fcntl.LOCK_EX)
                except OSError as error:
                    if error.errno not in _UNSUPPORTED:
                        raise
                if _is_at(fd, lock):  # else its holder gave it back while this one waited
                    yield fd
                    return
            finally:
                os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


# ---- parts -----------------------------------------------------------------------------------------------------------


def _part_folders(target: Path) -> list[Path]:
    """Folders of jobs that write, or wrote, to a path."""
    name = re.compile(re.escape(target.name) + r"\.[0-9a-f]{8}\.part")
    return [path for path in target.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]


def _is_alive(part: Path) -> bool:
    """Whether the job of a part is at work. One that was killed before it wrote its name is dead: it had the lock."""
    try:
        file = part / _OWNER
        owner, last_sign = Owner.read(file.read_text()), file.stat().st_mtime
    except OSError:
        return False
    return owner is not None and owner.is_alive(last_sign)


def remove(path: Path) -> None:
    """Remove a part; what others are still writing into it goes as well."""
    end_writing(path / _OWNER)
    for _ in range(50):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.1)
    shutil.rmtree(path)


# ---- file systems ----------------------------------------------------------------------------------------------------


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:  # some file systems have nothing to do for folders, and say so
            raise
    finally:
        os.close(fd)


def sync_all(folder: Path) -> None:
    """Bring all files of a folder, and their names, to the disk; many at a time, for the disk takes them together."""
    files, folders = [], []
    for where, _, names in os.walk(folder):
        folders.append(Path(where))
        files += [Path(where, name) for name in names]
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        for paths in (files, folders):
            for _ in pool.map(sync, paths):
                pass


def _lies(path: Path) -> bool:
    return os.path.lexists(path)


def _move(source: Path, target: Path) -> None:
    """Move to a name that is free; FileExistsError if it is not."""
    if _rename(source, target, _NO_REPLACE):
        return
    if source.is_dir():
        if _lies(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        source.rename(target)
        return
    os.link(source, target)
    source.unlink()


def _rename(source: Path, target: Path, how: int) -> bool:
    """Rename as ``renameat2`` does; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here = ctypes.c_int(-100)  # paths are seen from the working directory
    if call(here, os.fsencode(source), here, os.fsencode(target), ctypes.c_uint(how)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(target))
