"""Fixtures of the tests of files."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def xtc2() -> ModuleType:
    """The writer of synthetic XTC2 bytes."""
    spec = importlib.util.spec_from_file_location("xtc2_writer", Path(__file__).with_name("xtc2_writer.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
