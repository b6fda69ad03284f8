"""Every benchmark runs, small and once: a smoke test, no timing is judged."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xsmall as xs

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


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks are in the repository, not in the package")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux tells it")
def test_growth_is_measured_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from distributed import LocalCluster

    from benchmarks import growth

    constants = xs.save(xs.simulate(1, shape=(growth.SEGMENTS, 8, growth.WIDTH)).constants, tmp_path / "c.zarr")
    for what in growth.WHAT:
        assert growth.compute(what, 32, 8)["seconds"] > 0
        with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
            found = growth.plan(what, 1000, 8, cluster.scheduler_address, str(constants))
        assert 0 < found["sent_mb"] < 1


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks are in the repository, not in the package")
def test_results_of_two_checkouts_are_compared_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.same_results import compare

    values = np.array([1.0, np.nan, 4.0])
    before, now = tmp_path / "before.npz", tmp_path / "now.npz"
    np.savez(before, roi=values, mask=[True], only=[1])
    np.savez(now, roi=values, mask=[True])
    assert compare(before, now)
    assert "2 results, 2 the same to the last bit" in capsys.readouterr().out
    np.savez(now, roi=values + np.array([0, 0, 1e-6]), mask=[1])
    assert not compare(before, now)
    told = capsys.readouterr().out
    assert "roi: 1 of 3 values, by 2.5e-07 of the largest" in told
    assert "mask: bool (1,) beside int64 (1,)" in told


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
    assert minutes == sorted(minutes, reverse=True)
