"""The reference names everything that is public, and nothing else."""

import re
from pathlib import Path

import pytest

import xsmall as xs

API = Path(__file__).parents[1] / "docs" / "api.md"


@pytest.fixture(scope="module")
def listed() -> list[str]:
    if not API.is_file():
        pytest.skip("docs are in the repository, not in the package")
    return re.findall(r"^   xsmall\.(\w+)$", API.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_public_name_has_its_line_in_the_reference(listed: list[str]) -> None:
    assert sorted(xs._PUBLIC.keys() - {"XsmallError"} - set(listed)) == []


def test_the_reference_names_nothing_twice_and_nothing_that_is_not_public(listed: list[str]) -> None:
    assert sorted(name for name in set(listed) if listed.count(name) > 1) == []
    assert sorted(set(listed) - xs._PUBLIC.keys()) == []


def test_words_that_strangers_do_not_understand_stay_out() -> None:
    package = Path(xs.__file__).parent
    files = (p for p in package.rglob("*.py") if "cannot be meant" in p.read_text(encoding="utf-8"))
    assert {p.name for p in files} <= {"calibrate.py", "ghost.py", "sums.py"}  # which lose them with their next change
