"""The command line: what it prints, and how it fails."""

import subprocess
import sys
from pathlib import Path

import pytest

import xsmall as xs
from xsmall import cli
from xsmall.errors import DataError


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == f"xsmall {xs.__version__}"


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["docs/api.md", "CHANGELOG.md"])
def test_every_command_is_in_the_reference_and_in_the_changelog(page: str) -> None:
    file = Path(__file__).parents[1] / page
    if not file.exists():
        pytest.skip("pages are in the repository, not in the package")
    actions = cli._parser()._subparsers._group_actions  # type: ignore[union-attr]
    text = file.read_text(encoding="utf-8")
    assert {name for name in actions[0].choices if f"`xsmall {name}" not in text} == set()


@pytest.mark.parametrize("words", [["fly"], ["demo", "--events", "0"], ["demo", "--events", "many"], ["info"]])
def test_an_invalid_command_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert "usage: xsmall" in capsys.readouterr().err


def test_an_error_of_xsmall_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise DataError("nothing there", found="0 events", fix="take more")

    monkeypatch.setattr("xsmall.demo.run_demo", fail)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("xsmall demo: nothing there\n  found:    0 events")
    assert "Traceback" not in told


def test_a_file_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["info", str(tmp_path / "none.zarr")]) == 1
    assert "none.zarr" in capsys.readouterr().err


def test_a_file_in_place_of_the_folder_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.write_text("")
    assert cli.main(["demo", "--out", str(path)]) == 1
    assert "taken" in capsys.readouterr().err


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xsmall.demo.run_demo", stop)
    assert cli.main(["demo"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_what_the_demo_is_told_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr("xsmall.demo.run_demo", lambda out, **more: seen.update(out=out, **more))
    assert cli.main(["demo", "--out", "here", "--events", "7", "--seed", "5", "--quiet"]) == 0
    assert seen == {"out": Path("here"), "events": 7, "seed": 5, "progress": False}


def test_info_says_what_is_in_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from xsmall.io.stores.runs import write_run

    path = write_run(xs.simulate(5, shape=(1, 8, 8)).run, tmp_path / "run.zarr")
    assert cli.main(["info", str(path)]) == 0
    assert "jungfrau" in capsys.readouterr().out


def test_the_module_runs_and_loads_no_kernels_for_its_help() -> None:
    code = "import sys; from xsmall.cli import main; main([]); assert 'numba' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_info_of_an_experiment_and_number_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("xsmall.io.info.describe", lambda what: asked.append(what) or "told")
    assert cli.main(["info", "exp=xpptut15,run=14"]) == 0
    assert asked == ["exp=xpptut15,run=14"]
