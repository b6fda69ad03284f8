"""The layers: imports point down only, and third parties stay where they belong."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "xsmall"
LAYERS = {
    "vocabulary": 0, "errors": 0,
    "kernels": 1, "detector": 1,
    "events": 2, "engine": 2,
    "frames": 3,
    "calibration": 4, "reductions": 4, "cube": 4,
    "io": 5,
    "run": 6,
    "accessor": 7, "plot": 7, "simulation": 7, "demo": 7, "cli": 7,
}  # fmt: skip
# package -> folders it may be imported in
ONLY_IN = {
    "numba": {"kernels"},
    "h5py": {"io"},
    "zarr": {"io"},
    "netCDF4": {"io"},
}
NOT_BELOW = {"xarray": "events", "dask": "engine", "distributed": "engine"}
OPTIONAL = {"psana", "pyFAI", "extra_geom", "extra_data", "dxtbx", "scipy", "flox", "hdf5plugin", "matplotlib"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (module, whether at module level) of every import that runs; type-checking imports do not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                yield child.module or "", top
            yield from walk(child, top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    yield from walk(tree, True)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_only(path: Path) -> None:
    here = place(path)
    if here == "__init__":
        return
    assert here in LAYERS, f"{here} has no layer: add it to the table of layers"
    for module, _ in imports(path):
        if not module.startswith("xsmall.") and module != "xsmall":
            continue
        parts = module.split(".")
        if len(parts) == 1:  # the version, from anywhere
            continue
        assert LAYERS[parts[1]] <= LAYERS[here], f"{path.name} (layer {LAYERS[here]}) imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_parties_stay_in_their_layer(path: Path) -> None:
    here = place(path)
    for module, top in imports(path):
        root = module.split(".")[0]
        if root in ONLY_IN:
            assert here in ONLY_IN[root], f"{path.name} imports {root}"
        if root in NOT_BELOW and here != "__init__":
            assert LAYERS[here] >= LAYERS[NOT_BELOW[root]], f"{path.name} imports {root}"
            assert here != "kernels", f"{path.name} imports {root}"
        if root in OPTIONAL:
            assert not top, f"{path.name} imports the optional {root} at module level"


def test_the_package_imports_only_what_it_declares() -> None:
    free = {"numpy", "xarray", "dask", "distributed", "zarr", "numba", "netCDF4", "h5py", "xsmall"} | OPTIONAL
    import sys

    for path in MODULES:
        for module, _ in imports(path):
            root = module.split(".")[0]
            assert root in free or root in sys.stdlib_module_names, f"{path.name} imports {root}"
