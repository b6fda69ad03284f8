"""What is said about installing agrees with pyproject.toml: the page on dependencies, and the conda recipe."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import xsmall as xs

ROOT = Path(__file__).parents[1]
NAMES_OF_CONDA = {"dask": "dask-core", "matplotlib": "matplotlib-base"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    if not (ROOT / "conda").is_dir():
        pytest.skip("the recipe is in the repository, not in the package")
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    found: dict[str, Any] = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    return found


def split(requirement: str) -> tuple[str, str]:
    """Name and version of a requirement: ``dask[array]>=2025.1`` is dask, >=2025.1."""
    ((name, version),) = re.findall(r"^([\w-]+)(?:\[[\w,]+\])?\s*(.*)$", requirement)
    return name.lower(), version


def test_the_page_says_what_each_dependency_and_extra_is_for(project: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", page, re.MULTILINE))
    needed = {split(r)[0] for r in project["dependencies"]}
    extras = set(project["optional-dependencies"])
    developers = {"test", "docs", "dev", "browser", "validation", "conda"}
    assert set(rows) == needed | (extras - developers)
    assert all(f"`{name}`" in page for name in developers)
    assert developers <= extras


def test_the_conda_recipe_needs_what_pip_needs(project: dict[str, Any], recipe: dict[str, Any]) -> None:
    run = dict(split(r) for r in recipe["requirements"]["run"])
    assert run.pop("python") == project["requires-python"]
    pip = dict(split(r) for r in project["dependencies"])
    assert run == {NAMES_OF_CONDA.get(name, name): version for name, version in pip.items()}


def test_the_conda_recipe_makes_the_same_package(project: dict[str, Any], recipe: dict[str, Any]) -> None:
    assert recipe["context"]["version"] == xs.__version__
    assert recipe["package"] == {"name": project["name"], "version": "${{ version }}"}
    said = dict(line.split(" = ") for line in recipe["build"]["python"]["entry_points"])
    assert said == project["scripts"]
    assert recipe["about"]["summary"] == project["description"]
    assert recipe["about"]["license"] == project["license"]
    assert [recipe["about"]["license_file"]] == project["license-files"]
    assert {"python", "hatchling", "pip"} == {split(r)[0] for r in recipe["requirements"]["host"]}


def test_the_commands_that_the_conda_recipe_runs_are_there(recipe: dict[str, Any]) -> None:
    from xsmall.cli import _parser

    commands = [line for test in recipe["tests"] for line in test.get("script", [])]
    assert len(commands) == 2
    for line in commands:
        program, *arguments = line.split()
        assert program == "xsmall"
        assert callable(_parser().parse_args(arguments).run)


def test_the_conda_recipe_renders(recipe: dict[str, Any]) -> None:
    rattler = pytest.importorskip("rattler_build", reason="pip install 'xsmall[conda]'; conda/build.py builds it")
    (rendered,) = rattler.Stage0Recipe.from_file(ROOT / "conda" / "recipe.yaml").render(rattler.VariantConfig())
    made = rendered.recipe.to_dict()
    assert made["package"]["version"] == xs.__version__
    assert len(made["requirements"]["run"]) == len(recipe["requirements"]["run"])
