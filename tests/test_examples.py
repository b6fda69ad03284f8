"""Every example runs, without a warning, and leaves its figure."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_leaves_its_figure(example: Path, tmp_path: Path) -> None:
    if not (ROOT / "docs").is_dir():
        pytest.skip("docs are in the repository, not in the package")
    runpy.run_path(str(ROOT / "docs" / "examples_to_pages.py"))["run"](example, tmp_path)
    assert (tmp_path / f"{example.stem}.png").stat().st_size > 10_000


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 20
