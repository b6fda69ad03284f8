"""Every benchmark runs, small and once: a smoke test, no timing is judged."""

import sys
from pathlib import Path

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
