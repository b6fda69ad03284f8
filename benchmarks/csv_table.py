"""Tables of the docs that a benchmark makes anew: one command line, and a file written when all is measured."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

__all__ = ["DOCS", "write_table"]

DOCS = Path(__file__).parents[1] / "docs" / "howto"


def write_table(
    about: str | None,
    file: Path,
    columns: Sequence[str],
    rows: Callable[[bool], Iterable[Sequence[object]]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Print rows as they are measured, and write all of them at the end: a run that is stopped changes no file.

    Parameters
    ----------
    about
        The docstring of the benchmark, for ``--help``.
    file
        The table of the docs, unless the command line names another with ``--out``.
    columns
        Names of the columns.
    rows
        Measures; called with whether it is to be quick, small and without meaning.
    arguments
        Words of the command line; those of the process by default.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=file, metavar="FILE", help="table (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small, once: shows that it runs; needs --out")
    options = parser.parse_args(arguments)
    if options.quick and options.out == file:
        parser.error("numbers of --quick mean nothing, and do not replace the table of the docs: give --out FILE")
    told = [list(columns)]
    for row in rows(options.quick):
        told.append([f"{x:.4g}" if isinstance(x, float) else str(x) for x in row])
        print(*told[-1], sep="\t", file=sys.stderr, flush=True)
    with options.out.open("w", newline="") as out:
        csv.writer(out).writerows(told)
