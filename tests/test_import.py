"""What ``import xsmall`` may and may not do."""

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import xsmall as xs

HEAVY = ("numba", "dask", "zarr", "h5py", "distributed", "matplotlib", "netCDF4")


def test_importing_loads_none_of_the_heavy_packages() -> None:
    code = f"import sys, xsmall; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(xs._PUBLIC))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(xs, name)
    assert (value.__doc__ or "").strip(), f"xs.{name} has no docstring"
    assert name in dir(xs)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'azimt': did you mean azint"):
        xs.azimt  # noqa: B018


def test_a_public_name_stays_itself_when_its_module_is_imported() -> None:
    for name, module in xs._PUBLIC.items():
        importlib.import_module(module)
        assert name == "tutorial" or not isinstance(getattr(xs, name), type(sys)), f"xs.{name} is a module"


def test_the_stub_for_type_checkers_is_that_of_the_list_of_names() -> None:
    names = Path(__file__).with_name("public_names.py")
    made = runpy.run_path(str(names))
    assert made["STUB"].read_text(encoding="utf-8") == made["text"](), "type: python tests/public_names.py"
