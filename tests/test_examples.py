"""Every example runs by itself and leaves its figure."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_leaves_its_figure(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")
    mpl.pyplot.close("all")
    assert (tmp_path / f"{example.stem}.png").stat().st_size > 10_000


def test_the_first_example_runs_in_a_fresh_process(tmp_path: Path) -> None:
    (example,) = (path for path in EXAMPLES if path.stem == "quickstart")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 20
