"""Mistakes of the first days, as the page shows them: each message helps, and what it says to type works."""

import runpy
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from xsmall.errors import XsmallError

PAGE = Path(__file__).parents[1] / "docs" / "mistakes.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """All mistakes, made; that what works does so is seen meanwhile."""
    if not PAGE.is_file():
        pytest.skip("docs are in the repository, not in the package")
    mpl.use("Agg")
    found: list[Any] = runpy.run_path(str(PAGE))["made"](tmp_path_factory.mktemp("mistakes"))
    return found


def test_there_are_eighty_of_them(made: list[Any]) -> None:
    assert len({one.name for one in made}) == len(made) >= 80


def test_each_is_told_by_one_error_that_says_what_is_meant(made: list[Any]) -> None:
    for one in made:
        told = str(one.error)
        if isinstance(one.error, XsmallError):
            assert one.error.__cause__ is None or "do this:" in told, one.name
            assert "do this:" in told or "expected:" in told, one.name
        else:
            assert isinstance(one.error, AttributeError), one.name
            assert "did you mean" in told, one.name


def test_nearly_all_say_what_to_type(made: list[Any]) -> None:
    silent = [one.name for one in made if "do this:" not in str(one.error) and "did you mean" not in str(one.error)]
    assert silent == []
