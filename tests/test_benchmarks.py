"""Every benchmark runs, small and once: a smoke test, no timing is judged."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.filterwarnings("ignore")  # baselines are other people's packages
@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks are in the repository, not in the package")
def test_every_benchmark_runs_small(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick"])
    from benchmarks.__main__ import main

    main()
    lines = capsys.readouterr().out.splitlines()
    assert sum("azint" in line and "Mpixel" in line for line in lines) >= 4
    assert any("droplet" in line and "times ours" not in line for line in lines)
