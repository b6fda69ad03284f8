"""The one file that knows numba's flags, and where compiled code is kept.

Kernels are ``njit`` functions: they release the GIL, divide as NumPy does and may be reordered by the compiler as far
as NaN and infinity keep their meaning. They are compiled when they are first called, so that importing one costs
nothing.

Reordering may turn ``x - x == 0`` into True whatever x is, and ``np.isfinite(x)`` is that to numba; where x was
computed in the kernel ask ``abs(x) < np.inf``, which stays what it says.

Compiled code is kept in a private folder of this host, under the CPU, the versions and the sources that went into it.
numba's own cache looks at the one file a function stands in and would serve stale code after a change in another;
its index is shared by all signatures, which concurrent writers break. Here every signature has a file of its own with
a checksum, so that anything unreadable means compiling again.

Environment: ``XSMALL_NUMBA_CACHE=0`` switches the cache off, ``NUMBA_CACHE_DIR`` says where it lies.
``XSMALL_PLAIN_KERNELS=1`` does without anything that reaches into numba: no cache, and plain loops in place of
:mod:`xsmall.kernels.vectors`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import platform
import re
import stat
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, overload

import numba
import numpy as np

__all__ = ["FASTMATH", "PLAIN", "njit"]

_OFF = {"", "0", "no", "off", "false"}

PLAIN = os.environ.get("XSMALL_PLAIN_KERNELS", "").strip().lower() not in _OFF
"""Whether to do without what reaches into numba."""

FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp"})
"""What the compiler may do to floating arithmetic: reorder and fuse, but never assume that NaN does not occur."""

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}


@overload
def njit(function: Callable[..., Any], /) -> Callable[..., Any]: ...
@overload
def njit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...


def njit(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Compile a kernel on first use: no GIL, NumPy's division, :data:`FASTMATH`, cached per host.

    Parameters
    ----------
    function
        The function, when used as a bare decorator.
    **options
        Options of ``numba.njit`` that replace the ones above, e.g. ``fastmath=False``.

    Returns
    -------
    The compiled function.

    Examples
    --------
    >>> @njit
    ... def total(values):
    ...     out = 0.0
    ...     for v in values:
    ...         out += v
    ...     return out
    >>> import numpy as np
    >>> total(np.ones(3))
    3.0
    """
    if function is None:
        return functools.partial(_njit, options=options)
    return _njit(function, options=options)


def _njit(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    chosen = {**_OPTIONS, **options}
    chosen["fastmath"] = _as_flags(chosen["fastmath"])
    dispatcher = numba.njit(**chosen)(function)
    keep = _CodeCache.of(function, chosen)
    if keep is not None and hasattr(dispatcher, "_cache"):
        dispatcher._cache = keep
    return dispatcher  # type: ignore[no-any-return]


def _as_flags(fastmath: Any) -> Any:
    return set(fastmath) if isinstance(fastmath, frozenset | set) else fastmath


class _CodeCache:
    """Compiled code of one function on disk, in the place of numba's own cache object of a dispatcher."""

    def __init__(self, folder: Path, base: str, salt: str) -> None:
        self._folder = folder
        self._base = base
        self._salt = salt

    @classmethod
    def of(cls, function: Callable[..., Any], options: dict[str, Any]) -> _CodeCache | None:
        """Return the cache of ``function``, or None where it cannot have one."""
        folder = cache_folder()
        source = getattr(function, "__code__", None) and Path(function.__code__.co_filename)
        if folder is None or source is None or not source.is_file() or function.__closure__ is not None:
            return None
        salt = repr(sorted((k, sorted(v) if isinstance(v, set) else v) for k, v in options.items()))
        with contextlib.suppress(OSError):
            text = _sources(source) + function.__code__.co_code.hex()
            return cls(folder, f"{source.stem}.{function.__name__}-{function.__code__.co_firstlineno}", salt + text)
        return None

    @property
    def cache_path(self) -> str:
        """Folder of the files."""
        return str(self._folder)

    def _path(self, sig: Any, codegen: Any) -> Path:
        key = f"{sig}|{codegen.magic_tuple()}|{self._salt}"
        return self._folder / f"{self._base}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.bin"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled code of a signature, or None: then numba compiles."""
        try:
            target_context.refresh()
            data = self._path(sig, target_context.codegen()).read_bytes()
            if hashlib.sha256(data[32:]).digest() != data[:32]:
                return None
            from numba.core import compiler

            return compiler.CompileResult._rebuild(target_context, *pickle.loads(data[32:]))  # noqa: S301 own folder
        except Exception:  # whatever is wrong with a cache, compiling again is right
            return None

    def save_overload(self, sig: Any, result: Any) -> None:
        """Keep the compiled code of a signature; a disk that does not take it is no harm."""
        if any(not lifted.can_cache for lifted in result.lifted) or result.library.has_dynamic_globals:
            return
        with contextlib.suppress(Exception):
            from numba.core import serialize

            data = serialize.dumps(result._reduce())
            path = self._path(sig, result.codegen)
            fresh = path.with_suffix(f".{os.getpid()}.{os.urandom(4).hex()}")
            try:
                fresh.write_bytes(hashlib.sha256(data).digest() + data)
                fresh.replace(path)
            finally:
                fresh.unlink(missing_ok=True)

    def flush(self) -> None:
        """Do nothing: files are named after their content."""


@functools.cache
def cache_folder() -> Path | None:
    """Return the private folder of compiled code of this host, made if need be, or None where there is none to trust.

    Code that is loaded is code that runs: a folder that belongs to somebody else or that others may write to is not
    used.
    """
    if PLAIN or os.environ.get("XSMALL_NUMBA_CACHE", "").strip().lower() in _OFF - {""}:
        return None
    named = os.environ.get("NUMBA_CACHE_DIR")
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    try:
        root = Path(named) / "xsmall" if named else Path(tempfile.gettempdir()) / f"xsmall-compiled-{user}"
        folder = root / _fingerprint()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not named and not (_private(root) and _private(folder)):
            return None
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return folder


def _private(folder: Path) -> bool:
    status = folder.lstat()
    if not hasattr(os, "getuid"):
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _fingerprint() -> str:
    """Name host and versions; the CPU is in the name of each file."""
    known = [platform.node(), platform.machine(), sys.version, numba.__version__, version("llvmlite"), np.__version__]
    known.append(Path(__file__).read_text(encoding="utf-8"))
    return hashlib.sha256("|".join(known).encode()).hexdigest()[:20]


_KERNEL_IMPORT = re.compile(r"^\s*(?:from|import)\s+xsmall((?:\.\w+)+)", re.MULTILINE)


@functools.cache
def _sources(path: Path) -> str:
    """Hash a source file and all files of xsmall that it imports, for what is called or read there is compiled in."""
    package = Path(__file__).parents[1]
    waiting, seen = [path], dict[Path, bytes]()
    while waiting:
        file = waiting.pop()
        if file in seen or not file.is_file():
            continue
        seen[file] = file.read_bytes()
        for dotted in _KERNEL_IMPORT.findall(seen[file].decode()):
            module = package.joinpath(*dotted[1:].split("."))
            waiting += [module.with_suffix(".py"), *module.glob("*.py")]
    digest = hashlib.sha256()
    for file in sorted(seen):
        digest.update(os.path.relpath(file, package).encode() + b"\0" + seen[file])
    return digest.hexdigest()
