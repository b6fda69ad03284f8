"""One name, one thing: no two classes of the package share a name that others can import."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import xsmall as xs

PACKAGE = Path(xs.__file__).parent


def types_of(path: Path) -> Iterator[str]:
    """Classes of a module, and names for types; but for arrays, which have the same names everywhere."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value and "NDArray" not in ast.unparse(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (t.id for t in targets if isinstance(t, ast.Name))
            yield from (name for name in names if re.fullmatch(r"_?[A-Z]\w*[a-z]\w*", name))


SAME_TYPES = {
    "Groups": {"io/sources/hdf5_run.py", "io/sources/zarr_run.py"},  # see SHARED
    "Method": {"accessor.py", "typed.py"},  # a method of ``.sd``, and its type
}


def test_no_two_types_share_a_name() -> None:
    homes = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in types_of(path):
            homes[name.removeprefix("_")].add(path.relative_to(PACKAGE).as_posix())
    assert {"Geometry", "Part", "Frames", "Place"} <= homes.keys()
    assert {name: files for name, files in homes.items() if len(files) > 1} == SAME_TYPES


SHARED = {
    # two formats of one contract: what is asked of an HDF5 file is asked of a Zarr store
    "_Groups": {"io/sources/hdf5_run.py", "io/sources/zarr_run.py"},
    "_dtype": {"io/sources/hdf5_run.py", "io/sources/zarr_run.py"},
    "_labels": {"io/sources/hdf5_run.py", "io/sources/zarr_run.py"},
    "_layout": {"io/sources/hdf5_run.py", "io/sources/zarr_run.py"},
    # one step of one kernel, for words that hold the gain and for words beside it
    "_blank_outside": {"kernels/calibrate.py", "kernels/calibrate_cells.py"},
    "_mend": {"kernels/calibrate.py", "kernels/calibrate_cells.py"},
    "_one_code": {"kernels/calibrate.py", "kernels/calibrate_cells.py"},
}
"""Helpers that do one thing in two places, and are called alike on purpose."""


def test_helpers_that_have_nothing_to_do_with_each_other_share_no_name() -> None:
    homes = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.startswith("_"):
                file = path.relative_to(PACKAGE).as_posix()
                homes[node.name].add(file.replace("kernels/reference/", "kernels/"))  # a twin is called as its kernel
    shared = {name: files for name, files in homes.items() if len(files) > 1}
    assert {name: files for name, files in shared.items() if SHARED.get(name) != files} == {}
    assert {name for name in SHARED if name not in shared} == set()
