"""Commands of production: ``recipe``, ``produce``, ``status``."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xsmall.cli.words import in_words_of_the_shell

if TYPE_CHECKING:
    from xsmall.run.state import RunState

__all__ = ["add_commands"]

FAILED: Final = 1  # a run failed, or was refused
WITH_FAULTS: Final = 3  # all runs are done, and some events could not be read or computed


def add_commands(commands: Any) -> None:
    """Add the commands to those of ``xsmall``."""
    recipe = commands.add_parser(
        "recipe",
        help="check a recipe, and show what it means for a run",
        description="Check a recipe and show, as JSON, what it means for a run; or print the JSON schema for editors.",
    )
    what = recipe.add_mutually_exclusive_group(required=True)
    what.add_argument("file", type=Path, nargs="?", metavar="RECIPE", help="a TOML file")
    what.add_argument("--schema", action="store_true", help="print the JSON schema of recipes")
    recipe.add_argument("--run", type=int, default=None, metavar="N", dest="number", help="show it for run N")
    recipe.set_defaults(run=_recipe)

    produce = commands.add_parser(
        "produce",
        help="make small data of runs as a recipe says",
        description="Make small data of runs as a recipe says, one output per run. Stopped or killed, the same command "
        "goes on where it was. Exit code: 0 all done; 3 all done, some events could not be read or computed and are "
        "flagged; 1 a run failed or was refused; 130 Ctrl-C.",
    )
    produce.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file")
    produce.add_argument("--run", required=True, metavar="RUNS", dest="runs", help='such as "12" or "10-60,75"')
    produce.add_argument("--out", type=Path, default=None, metavar="DIR", help="folder of the outputs")
    where = produce.add_mutually_exclusive_group()
    where.add_argument("--scheduler", default=None, metavar="ADDRESS", help="scheduler of a dask cluster")
    where.add_argument(
        "--slurm", default=None, metavar="KEY=VALUE,...",
        help="jobs of a queue: queue=milano,account=lcls:mfx100123,jobs=8,cores=8,memory=64GB,walltime=01:00:00",
    )  # fmt: skip
    where.add_argument("--workers", type=_number_of_workers, default=None, metavar="N", help="processes; else threads")
    again = produce.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="leave finished runs, try again what was lost in them")
    again.add_argument("--overwrite", action="store_true", help="begin anew, and replace what is there")
    again.add_argument("--join", action="store_true", help="help another job that makes the runs; else as --resume")
    again.add_argument("--dry-run", action="store_true", help="say what it would cost, and do nothing")
    produce.add_argument(
        "--follow", type=float, nargs="?", const=60.0, default=None, metavar="SECONDS",
        help="wait for runs that are not there or still written: until no file has changed for so long (default: 60)",
    )  # fmt: skip
    produce.add_argument("--post", default=None, metavar="URL", help="send counters of the progress there, as JSON")
    produce.add_argument("--no-report", action="store_true", help="write no pages; `xsmall report` does it later")
    produce.add_argument("--quiet", action="store_true", help="print nothing but errors")
    produce.set_defaults(run=_produce)

    report = commands.add_parser(
        "report",
        help="write a page for each run of a production, and one over all",
        description="Write a page with figures for each run, and one over all runs, to be opened in a browser.",
    )
    report.add_argument("folder", type=Path, metavar="DIR", help="the folder that produce writes to")
    report.add_argument("--run", type=int, default=None, metavar="N", dest="number", help="of run N alone")
    report.set_defaults(run=_print_report)

    status = commands.add_parser(
        "status",
        help="tell how far the runs of a production are",
        description="Tell how far the runs of a production are, a line for each. Exit codes are those of produce.",
    )
    status.add_argument("folder", type=Path, metavar="DIR", help="the folder that produce writes to")
    status.add_argument("--json", action="store_true", help="for other programs")
    status.set_defaults(run=_print_status)


def _number_of_workers(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of workers")
    return int(text)


def _recipe(options: argparse.Namespace) -> None:
    from xsmall.run.recipe import open_recipe, recipe_schema

    if options.schema:
        print(json.dumps(recipe_schema(), indent=2))
        return
    recipe = open_recipe(options.file)
    print(repr(recipe) if options.number is None else recipe.for_run(options.number).model_dump_json(indent=2))


def _produce(options: argparse.Namespace) -> int:
    from xsmall.run.plan import forecast
    from xsmall.run.pool import slurm_options
    from xsmall.run.produce import produce
    from xsmall.run.progress import bar, both, poster
    from xsmall.run.recipe import open_recipe
    from xsmall.run.text import runs_of

    recipe = open_recipe(options.recipe)
    if options.dry_run:
        for run in runs_of(options.runs):
            print(forecast(recipe, run).text())
        return 0
    states = produce(
        recipe,
        options.runs,
        options.out or Path.cwd(),
        resume=options.resume,
        overwrite=options.overwrite,
        join=options.join,
        scheduler=options.scheduler,
        workers=options.workers,
        slurm=None if options.slurm is None else slurm_options(options.slurm),
        follow=options.follow,
        progress=both(
            None if options.quiet else bar(changing=sys.stdout.isatty()),
            None if options.post is None else poster(options.post),
        ),
    )
    if not options.no_report and any(state.state != "refused" for state in states):
        _write_reports(options.out or Path.cwd(), states)
    for state in states:
        if state.state in ("failed", "refused"):
            print(f"xsmall produce: run {state.run}: {in_words_of_the_shell(state.why)}", file=sys.stderr)
    return exit_code(states)


def _write_reports(folder: Path, states: list[RunState]) -> None:
    """Write the pages of runs; a page that cannot be drawn is told and costs no run."""
    from xsmall.plot.report import write_index, write_page

    pages: list[tuple[str, Callable[[], object]]] = [
        (f"run {s.run}", functools.partial(write_page, folder, s)) for s in states if s.state != "refused"
    ]
    pages.append(("all runs", functools.partial(write_index, folder)))
    for what, write in pages:
        try:
            write()
        except Exception as error:  # whatever is in the data: the run itself is done
            print(f"xsmall produce: {what}: no page: {type(error).__name__}: {error}", file=sys.stderr)


def exit_code(states: list[RunState]) -> int:
    """The exit code that tells how runs ended."""
    if any(state.state != "done" for state in states):
        return FAILED
    return WITH_FAULTS if any(state.n_faults for state in states) else 0


def _print_report(options: argparse.Namespace) -> None:
    from xsmall.plot.report import report

    print(report(options.folder, options.number))


def _print_status(options: argparse.Namespace) -> int:
    from xsmall.run.state import production_status

    states = production_status(options.folder)
    if options.json:
        print(json.dumps([state.as_json() for state in states], indent=2))
    else:
        for state in states:
            print(in_words_of_the_shell(state.line()))
        if not states:
            print(f"{options.folder}: no run was produced here")
    return exit_code(states)
