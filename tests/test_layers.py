"""The layers: imports point down only and never in a circle, and third parties stay where they belong.

Every import counts: those inside functions, and those under ``TYPE_CHECKING``, for a reader has to follow them too.
"""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "xsmall"

# A row for each folder and each file at the top. An import goes to a lower level, or stays in the same top folder at
# the same level. Folders of one level that do not belong together know nothing of each other.
LEVELS = {
    "vocabulary": 0, "errors": 0, "_version": 0, "calls": 1,
    "kernels": 1, "kernels/reference": 2,
    "detector": 3, "detector/geometry": 4, "detector/geometry/formats": 5, "detector/masks": 5,
    "detector/frames": 5,
    "events": 6,
    "engine": 7,
    "frames": 8,
    "calibration": 9, "calibration/common_mode": 9, "calibration/dark": 9,
    "reductions": 9,
    "cube": 9,
    "io": 10, "io/constants": 10, "io/sources": 10, "io/sources/xtc2": 10, "io/sources/psana": 10,
    "io/stores": 10,
    "run": 11,
    "plot": 12, "simulation": 12,
    "plot/explore": 13,
    "notebook": 13,
    "typed": 14,  # the signatures of the accessors, for type checkers
    "accessor": 15,
    "mypy_plugin": 15,
    "__init__": 16,
    "demo": 17,
    "cli": 18,
}  # fmt: skip

# package -> top folders it may be imported in
ONLY_IN = {
    "numba": {"kernels"},
    "llvmlite": {"kernels"},
    "h5py": {"io"},
    "zarr": {"io"},
    "netCDF4": {"io"},
    "matplotlib": {"plot", "demo"},
    "mpl_toolkits": {"plot"},
}
NOT_BELOW = {"xarray": "events", "pandas": "events", "dask": "engine", "distributed": "engine"}
OPTIONAL = {
    "dask_jobqueue",
    "psana",
    "mpi4py",
    "pyFAI",
    "extra_geom",
    "extra_data",
    "dxtbx",
    "flox",
    "hdf5plugin",
    "fabio",
    "PIL",
    "matplotlib",
    "awkward",
    "hyperspy",
    "ipympl",
    "ipywidgets",
    "mypy",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def folder_of(module: str) -> str:
    """Name the row of a module in the table of levels."""
    relative = MODULES[module].relative_to(PACKAGE)
    if relative.with_suffix("").as_posix() in LEVELS:  # a file with a row of its own
        return relative.with_suffix("").as_posix()
    return relative.parent.as_posix() if len(relative.parts) > 1 else relative.stem


@functools.cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """List what each import names, ``module`` or ``module.name``, and whether it runs when the module is imported."""

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                yield from ((f"{child.module}.{alias.name}", top) for alias in child.names)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from walk(child, top and not inside and not _is_for_types(child))

    return tuple(walk(ast.parse(path.read_text(encoding="utf-8")), True))


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@functools.cache
def arrows() -> dict[str, frozenset[str]]:
    """Map each module of the package to the modules of the package that it imports, wherever in the file."""
    found = {}
    for module, path in MODULES.items():
        named = (name for name, _ in imports(path) if name.split(".")[0] == "xsmall")
        whole = {name if name in MODULES else name.rpartition(".")[0] for name in named}
        found[module] = frozenset(whole - {module})
        assert found[module] <= MODULES.keys(), f"{module} imports what is not there: {found[module] - MODULES.keys()}"
    return found


def reachable(graph: dict[str, frozenset[str]], start: str) -> set[str]:
    """Name all modules that ``start`` needs, by one arrow or many."""
    seen, waiting = set[str](), [start]
    while waiting:
        for module in graph[waiting.pop()] - seen:
            seen.add(module)
            waiting.append(module)
    return seen


def circles(graph: dict[str, frozenset[str]]) -> list[list[str]]:
    """List the groups of modules that need each other."""
    needs = {module: reachable(graph, module) for module in graph}
    groups = {frozenset({m} | {n for n in needs[m] if m in needs[n]}) for m in graph if m in needs[m]}
    return sorted(sorted(group) for group in groups)


def points_down(module: str, other: str) -> bool:
    here, there = folder_of(module), folder_of(other)
    same_top = there.split("/")[0] == here.split("/")[0]
    return LEVELS[there] < LEVELS[here] or (LEVELS[there] == LEVELS[here] and same_top)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module: str) -> None:
    here = folder_of(module)
    assert here in LEVELS, f"{here} has no level: add it to the table"
    wrong = {n for n in arrows()[module] if not points_down(module, n)}
    assert not wrong, f"{module}, of level {LEVELS[here]}, may not import {sorted(wrong)}"


def test_every_row_of_the_table_is_a_folder_or_a_file() -> None:
    assert LEVELS.keys() == {folder_of(module) for module in MODULES}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(arrows()) == []


def test_a_circle_would_be_found() -> None:
    graph = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a"), "d": frozenset("a"), "e": frozenset("e")}
    assert circles(graph) == [["a", "b", "c"], ["e"]]


@pytest.mark.parametrize("module", MODULES)
def test_third_parties_stay_in_their_layer(module: str) -> None:
    path, here = MODULES[module], folder_of(module)
    for name, top in imports(path):
        root = name.split(".")[0]
        if root in ONLY_IN:
            assert here.split("/")[0] in ONLY_IN[root], f"{path.name} imports {root}"
        if root in NOT_BELOW:
            assert LEVELS[here] >= LEVELS[NOT_BELOW[root]], f"{path.name} imports {root}"
        if root in OPTIONAL:
            assert not top, f"{path.name} imports the optional {root} at module level"


def test_the_package_imports_only_what_it_declares() -> None:
    free = {"numpy", "xarray", "pandas", "dask", "distributed", "zarr", "numcodecs", "numba", "netCDF4", "h5py"}
    free |= {"google_crc32c", "scipy", "pydantic", "xsmall"} | OPTIONAL
    for path in MODULES.values():
        for name, _ in imports(path):
            root = name.split(".")[0]
            assert root in free | OPTIONAL or root in sys.stdlib_module_names, f"{path.name} imports {root}"
