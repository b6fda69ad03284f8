"""Runs through psana, where it is not installed; ``tests/validation/test_psana_engine.py`` runs it."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

import xsmall as xs
from xsmall.errors import MissingDependency, ParameterError


def test_without_psana_the_package_is_named(tmp_path: Path, xtc2: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xtc2"
    path.write_bytes(xtc2.plain_run()[0])
    monkeypatch.setitem(sys.modules, "psana", None)
    monkeypatch.setenv("XSMALL_CACHE", "0")
    monkeypatch.setenv("LCLS_CALIB_HTTP", "http://127.0.0.1:9")
    with pytest.raises(MissingDependency, match=r"xsmall\[psana\]"):
        xs.open_run(path, engine="psana")


def test_nobody_gets_psana_without_asking(tmp_path: Path, xtc2: ModuleType) -> None:
    path = tmp_path / "a.xtc2"
    path.write_bytes(xtc2.plain_run()[0])
    with pytest.raises(ParameterError, match="cannot be opened with read="):
        xs.open_run(path, read=["jungfrau.raw.calib"])
