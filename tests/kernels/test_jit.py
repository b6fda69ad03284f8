"""The cache of compiled code: a broken one means compiling again, never a crash or stale code."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from xsmall.kernels import jit

MODULE = """
from xsmall.kernels.jit import njit

@njit
def double(values):
    out = 0.0
    for v in values:
        out += {factor} * v
    return out
"""


def run(folder: Path) -> tuple[float, int]:
    """Import the module as a fresh process would; return its result and how often the cache was hit."""
    jit.cache_folder.cache_clear()
    jit._sources.cache_clear()
    spec = importlib.util.spec_from_file_location("probe", folder / "probe.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["probe"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.double(np.arange(4.0))
    return result, sum(module.double.stats.cache_hits.values()) if module.double._cache.cache_path else 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "probe.py").write_text(MODULE.format(factor=2))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("XSMALL_NUMBA_CACHE", raising=False)
    # Python tells its own cached bytecode by size and whole seconds: a module changed within one would stay as it was
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop("probe", None)
    jit.cache_folder.cache_clear()


def files(folder: Path) -> list[Path]:
    return sorted((folder / "cache").rglob("*.bin"))


def test_compiled_code_is_found_again_and_survives_every_kind_of_damage(folder: Path) -> None:
    assert run(folder) == (12.0, 0)
    (kept,) = files(folder)
    assert run(folder) == (12.0, 1)
    whole = kept.read_bytes()
    for damaged in (b"", b"garbage", whole[:-7], whole[:100] + b"\xff" + whole[101:]):
        kept.write_bytes(damaged)
        assert run(folder) == (12.0, 0)
        assert kept.read_bytes() != damaged
    kept.unlink()
    kept.mkdir()  # cannot be replaced by a file either
    assert run(folder) == (12.0, 0)


def test_changed_source_is_compiled_anew(folder: Path) -> None:
    assert run(folder) == (12.0, 0)
    (folder / "probe.py").write_text(MODULE.format(factor=3))
    assert run(folder) == (18.0, 0)


def test_the_cache_can_be_switched_off_or_be_unwritable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XSMALL_NUMBA_CACHE", "0")
    assert run(folder) == (12.0, 0)
    assert not files(folder)
    monkeypatch.delenv("XSMALL_NUMBA_CACHE")
    (folder / "cache").write_text("a file where the folder should be")
    assert run(folder) == (12.0, 0)


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


@pytest.mark.parametrize("path", sorted(Path(jit.__file__).parent.glob("*.py")), ids=lambda p: p.name)
def test_no_compiled_kernel_asks_isfinite_which_reordering_folds_to_true(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and any("njit" in ast.dump(d) for d in node.decorator_list):
            for inner in ast.walk(node):
                asked = isinstance(inner, ast.Attribute) and inner.attr == "isfinite"
                assert not asked, f"{path.name}:{getattr(inner, 'lineno', 0)}: ask abs(x) < np.inf instead"


@jit.njit
def count_finite_differences(a, b):  # type: ignore[no-untyped-def]
    n = 0
    for i in range(a.size):
        if abs(a[i] - b[i]) < np.inf:
            n += 1
    return n


def test_finite_as_kernels_ask_it_holds_for_values_made_in_the_kernel() -> None:
    a, b = np.ones((2, 100), np.float32)
    a[5], a[40], b[77] = np.nan, np.inf, -np.inf
    assert count_finite_differences(a, b) == 97


def test_a_fresh_process_finds_the_code_of_another(folder: Path) -> None:
    assert run(folder) == (12.0, 0)
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); import numpy as np; from probe import double\n"
    program += "print(double(np.arange(4.0)), sum(double.stats.cache_hits.values()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["12.0", "1"]


def test_every_kernel_is_compiled_to_work_without_the_gil() -> None:
    folder = Path(jit.__file__).parent
    modules = [importlib.import_module(f"xsmall.kernels.{path.stem}") for path in sorted(folder.glob("[a-z]*.py"))]
    kernels = {f"{m.__name__}.{name}": f for m in modules for name, f in vars(m).items() if hasattr(f, "targetoptions")}
    assert len(kernels) > 50
    assert [name for name, kernel in kernels.items() if not kernel.targetoptions.get("nogil")] == []
