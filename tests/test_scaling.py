"""Scaling by simulation: who is told what, on graphs whose answer is known, and on the real ones, small."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.test_benchmarks import ROOT


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks are in the repository, not in the package")
def test_tasks_are_scheduled_as_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.production import makespan

    needs: dict[Any, set[Any]] = {"a": set(), "b": set(), "c": set(), "end": {"a", "b", "c"}}
    seconds = {"a": 3.0, "b": 2.0, "c": 2.0, "end": 1.0}
    assert makespan(needs, seconds, 1, 0.0) == 8.0
    assert makespan(needs, seconds, 2, 0.0) == 5.0
    assert makespan(needs, seconds, 64, 0.0) == 4.0
    assert makespan(needs, seconds, 64, 0.25) == 0.25 + 3.0 + 0.25 + 1.0
    many: dict[Any, set[Any]] = {i: set() for i in range(1000)}
    assert makespan(many, dict.fromkeys(many, 0.001), 64, 0.01) == pytest.approx(10.0, rel=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks are in the repository, not in the package")
def test_the_scaling_of_production_is_simulated_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import production

    rows = list(production.scaling(tmp_path, 2000, 32, 64))
    minutes = [took for what, *_, took, _ in rows if what == "produce"]
    assert len(minutes) == len(production.WORKERS)
    # A list schedule may lose a little by one worker more (Graham, SIAM J. Appl. Math. 17, 416 (1969)),
    # and the seconds of tasks are measured: a tenth is allowed.
    assert all(more <= 1.1 * fewer for fewer, more in pairwise(minutes))
    assert minutes[-1] < 0.7 * minutes[0]
