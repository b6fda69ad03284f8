"""The reference names everything that is public, and nothing else."""

import re
import runpy
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


DOCS = API.parent


@pytest.fixture(scope="module")
def pages() -> Path:
    if not API.is_file():
        pytest.skip("docs are in the repository, not in the package")
    return DOCS


def test_every_error_is_explained(pages: Path) -> None:
    from xsmall import errors

    told = (pages / "troubleshooting.md").read_text(encoding="utf-8")
    headings = " ".join(re.findall(r"^## (.*)$", told, re.MULTILINE))
    classes = {name for name in errors.__all__ if name[0].isupper()} - {"XsmallError"}
    assert sorted(name for name in classes if name not in headings) == []
    assert "XsmallError" in told


def test_every_question_has_its_place_among_the_topics(pages: Path) -> None:
    listed = re.findall(r"^howto/(\w+)$", (pages / "howto.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (pages / "howto").glob("*.md"))


def test_every_example_has_its_page_and_its_thumbnail(pages: Path) -> None:
    made = runpy.run_path(str(pages / "examples_to_pages.py"))
    assert len(made["scripts"]()) >= 20
    for script in made["scripts"]():
        code = script.read_text(encoding="utf-8")
        page = made["page"](script, "what it said")
        assert all(line in page for line in code.split('"""')[2].splitlines())
        assert "what it said" in page
        assert f'savefig("{script.stem}.png"' in code
        assert f"{script.stem}.png" in page
        assert f"(gallery/{script.stem}.md)" in made["thumbnail"](script)


def test_issue_forms_and_citation_are_what_their_readers_take(pages: Path) -> None:
    yaml = pytest.importorskip("yaml")
    forms = sorted((pages.parent / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) >= 4
    for form in forms:
        told = yaml.safe_load(form.read_text(encoding="utf-8"))
        if form.stem == "config":
            continue
        assert {"name", "description", "body"} <= told.keys()
        for part in told["body"]:
            assert part["type"] in ("textarea", "input", "dropdown", "checkboxes", "markdown")
            assert {"id", "attributes"} <= part.keys()
            assert part["attributes"]["label"]
    cited = yaml.safe_load((pages.parent / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["license"] == "BSD-3-Clause"
