"""The cache of compiled code: a broken one means compiling again, never a crash or stale code."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xsmall.kernels import jit

PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
from probe import double
print(double(np.arange(4.0)), sum(double.stats.cache_hits.values()) if hasattr(double, "stats") else "")
"""
MODULE = """
from xsmall.kernels.jit import njit

@njit
def double(values):
    out = 0.0
    for v in values:
        out += {factor} * v
    return out
"""


def run(folder: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folder=str(folder))],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "probe.py").write_text(MODULE.format(factor=2))
    return tmp_path


def files(folder: Path) -> list[Path]:
    return sorted((folder / "cache").rglob("*.bin"))


def test_compiled_code_is_found_again_and_survives_every_kind_of_damage(folder: Path) -> None:
    assert run(folder) == ["12.0", "0"]
    (kept,) = files(folder)
    assert run(folder) == ["12.0", "1"]
    whole = kept.read_bytes()
    for damaged in (b"", b"garbage", whole[:-7], whole[:100] + b"\xff" + whole[101:]):
        kept.write_bytes(damaged)
        assert run(folder) == ["12.0", "0"]
        assert kept.read_bytes() != damaged
    kept.unlink()
    kept.mkdir()  # cannot be replaced by a file either
    assert run(folder) == ["12.0", "0"]


def test_changed_source_is_compiled_anew(folder: Path) -> None:
    assert run(folder) == ["12.0", "0"]
    (folder / "probe.py").write_text(MODULE.format(factor=3))
    assert run(folder) == ["18.0", "0"]


def test_the_cache_can_be_switched_off_or_be_unwritable(folder: Path) -> None:
    assert run(folder, XSMALL_NUMBA_CACHE="0") == ["12.0", "0"]
    assert not files(folder)
    (folder / "cache").write_text("a file where the folder should be")
    assert run(folder) == ["12.0", "0"]


def test_a_folder_that_others_may_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XSMALL_NUMBA_CACHE", raising=False)
    monkeypatch.setattr(jit.tempfile, "gettempdir", lambda: str(tmp_path))
    request.addfinalizer(jit.cache_folder.cache_clear)
    jit.cache_folder.cache_clear()
    folder = jit.cache_folder()
    assert folder is not None
    assert folder.is_relative_to(tmp_path)
    folder.parent.chmod(0o777)
    jit.cache_folder.cache_clear()
    assert jit.cache_folder() is None


@jit.guvectorize(["void(float64[:], float64[:])"], "(n)->()")
def total(values, out):  # type: ignore[no-untyped-def]
    out[0] = 0.0
    for v in values:
        out[0] += v


def test_a_gufunc_broadcasts_takes_no_out_and_pickles_by_name() -> None:
    values = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(total(values), values.sum(-1))
    assert "gufunc total" in repr(total)
    assert total.__reduce__() == "total"
    from xsmall.kernels.jit import guvectorize

    assert pickle.loads(pickle.dumps(guvectorize)) is guvectorize
