"""The files that reach into numba, which a new numba may break: no others do."""

import ast
from pathlib import Path

import numba

import xsmall as xs

PLAIN = "set XSMALL_PLAIN_KERNELS=1 to run without it"


def test_a_new_numba_still_tells_what_is_compiled_and_how() -> None:
    from numba.core import event

    for name in ("Listener", "register"):
        assert hasattr(event, name), f"numba {numba.__version__} has no event.{name}: {PLAIN}"
    kernel = numba.njit(nogil=True)(lambda x: x)
    assert kernel.targetoptions["nogil"], f"numba {numba.__version__} keeps its options elsewhere: kernels/user.py"


def test_no_other_file_reaches_into_numba() -> None:
    fence = {f"kernels/{name}.py" for name in ("jit", "vectors", "compiling")}
    reaching = set()
    for path in Path(xs.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
        names |= {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
        if any(name.startswith(("numba.", "llvmlite")) for name in names):
            reaching.add(path.relative_to(Path(xs.__file__).parent).as_posix())
    assert reaching == fence
