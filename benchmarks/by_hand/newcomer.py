"""The way of a newcomer, timed: the steps of ``docs/first_steps.md``, in a fresh environment that has compiled nothing.

``python -m benchmarks.by_hand.newcomer [--here] [--xtc2 RUN]``
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

__all__ = ["steps", "timed"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "first_steps.md"
_OF_ONES_OWN = "A run of your own"
_CHILD = """
import json, sys, time
import matplotlib
matplotlib.use("Agg")
names = {}
for title, code in json.load(sys.stdin):
    start = time.perf_counter()
    exec(code, names)
    print(json.dumps([title, time.perf_counter() - start]), flush=True)
"""


def steps(run: str | None = None, page: Path = PAGE) -> list[tuple[str, str]]:
    """Read title and code of each step; that on a run of one's own only where there is one."""
    found = []
    for part in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        cells = re.findall(r"```\{code-cell\} ipython3\n(?::tags:[^\n]*\n)?(.*?)```", text, re.DOTALL)
        if title == _OF_ONES_OWN and run is not None:
            cells = [c.replace("run42.xtc2", run) for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
        if cells:
            found.append((title, "\n".join(cells)))
    return found


def timed(python: str, run: str | None = None, folder: Path | None = None) -> list[tuple[str, float]]:
    """Run the steps in one fresh process; return the seconds of each.

    Compiled code is kept in ``folder``, for a second call to find; without one the process compiles for itself.
    """
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [python, "-c", _CHILD],
            input=json.dumps(steps(run)),
            env={**os.environ, "NUMBA_CACHE_DIR": str(folder or scratch), "DASK_XSMALL__PROGRESS": "False"},
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return [(str(title), float(seconds)) for title, seconds in told]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="The way of a newcomer, timed.")
    parser.add_argument("--here", action="store_true", help="in this environment, without installing")
    parser.add_argument("--xtc2", metavar="RUN", help="a run of one's own: a file or folder")
    options = parser.parse_args()
    own = None if options.xtc2 is None else str(Path(options.xtc2).resolve())
    with tempfile.TemporaryDirectory() as scratch:
        python, told = sys.executable, []
        if not options.here:
            start = time.perf_counter()
            venv.create(Path(scratch) / "venv", with_pip=True)
            python = str(Path(scratch) / "venv" / "bin" / "python")
            subprocess.run([python, "-m", "pip", "install", "-q", str(ROOT)], check=True)
            told = [("Install", time.perf_counter() - start)]
        kept = Path(scratch) / "compiled"
        kept.mkdir(mode=0o700)
        first = [*told, *timed(python, own, kept)]
        second = dict(timed(python, own, kept))
    print(f"{'step':28s} {'first time':>10s} {'again':>8s}   [s]")
    for title, seconds in first:
        print(f"{title:28s} {seconds:10.1f} " + (f"{second[title]:8.1f}" if title in second else " " * 8))
    print(f"{'all':28s} {sum(s for _, s in first):10.1f} {sum(second.values()):8.1f}")


if __name__ == "__main__":
    main()
