"""The command ``xsmall``. Parts are imported when their command runs."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from xsmall._version import __version__
from xsmall.cli import production, tools
from xsmall.cli.words import in_words_of_the_shell, save_picture, with_warnings_told
from xsmall.errors import XsmallError

__all__ = ["main"]

FAILED = 1  # what was asked for could not be done
STOPPED = 130  # by Ctrl-C, as shells count it
_LAST_WAIT: Final = 1.0
"""Seconds that Python has to end, once all that is kept is on the disk."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the entry point ``xsmall``.

    Parameters
    ----------
    arguments
        Words after the name of the program; those of the process by default.

    Returns
    -------
    0, or 1 where an error of xsmall or of the system was reported on stderr, or 130 after Ctrl-C; of ``produce`` also 1
    where a run failed, and 3 where all are done and some events could not be read or computed. A command that is
    invalid leaves by ``SystemExit(2)``, as argparse does.

    Examples
    --------
    >>> from xsmall.cli import main
    >>> main([])  # doctest: +ELLIPSIS
    usage: xsmall ...
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 0
    try:
        with with_warnings_told(options.command):
            return int(options.run(options) or 0)
    except XsmallError as error:
        print(f"xsmall {options.command}: {in_words_of_the_shell(str(error))}", file=sys.stderr)
        return FAILED
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"xsmall {options.command}: {error.strerror or error}{where}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"xsmall {options.command}: stopped", file=sys.stderr)
        if arguments is None:
            _leave_soon()
        return STOPPED


def _leave_soon() -> None:
    """See to it that this process ends, although a thread of it may be in a function that never returns."""
    last = threading.Timer(_LAST_WAIT, os._exit, (STOPPED,))
    last.daemon = True
    last.start()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xsmall", description="Small, right, labelled data from millions of X-ray area-detector frames."
    )
    parser.add_argument("--version", action="version", version=f"xsmall {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")

    _add_demo(commands)
    _add_looking(commands)
    production.add_commands(commands)
    tools.add_commands(commands)
    _add_export(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="simulate a pump-probe run and analyse it, from raw frames to figures",
        description="Simulate a pump-probe run on disk, calibrate and reduce it, write small data, a cube and figures, "
        "and compare what was found with the truth.",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("xsmall-demo"), metavar="DIR", help="folder (default: %(default)s)"
    )
    demo.add_argument(
        "--events", type=_number_of_events, default=1500, metavar="N", help="events (default: %(default)s)"
    )
    demo.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed, another run (default: %(default)s)"
    )
    demo.add_argument("--quiet", action="store_true", help="print nothing but errors")
    demo.set_defaults(run=_demo)


def _add_looking(commands: Any) -> None:
    info = commands.add_parser("info", help="say what is in a run, small-data or cube file")
    info.add_argument("file", nargs="+", metavar="FILE", help='or "exp=xpptut15,run=14"')
    info.set_defaults(run=_info)

    look = commands.add_parser(
        "look",
        help="say what is in a run, and draw a first look at it",
        description="Say what is in a run, and draw an average of every detector, the intensity and the scan.",
    )
    look.add_argument("source", metavar="RUN", help="what xs.open_run opens: a folder, a file, exp=...,run=...")
    look.add_argument("--detector", default=None, metavar="NAME", help="only this one (default: all with frames)")
    look.add_argument(
        "--events", type=_number_of_events, default=100, metavar="N", help="averaged (default: %(default)s)"
    )
    look.add_argument(
        "--out", type=Path, default=Path("look.png"), metavar="FILE", help="figure (default: %(default)s)"
    )
    look.set_defaults(run=_look)

    warm_up = commands.add_parser(
        "warm-up",
        help="compile the kernels once, so that the first calls of a session do not wait",
        description="Compile the kernels and keep them; once after installing, on every host.",
    )
    warm_up.set_defaults(run=_warm_up)

    doctor = commands.add_parser("doctor", help="versions, threads, memory, and what is missing for what")
    doctor.set_defaults(run=_doctor)


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export-lcls1",
        help="write the script that brings runs of LCLS-I to raw HDF5, inside psana1",
        description="Write a script that needs psana1, h5py and NumPy alone (Python 3.6). Copy it to where these are: "
        "python export_lcls1.py EXPERIMENT RUN --detector NAME --out run.h5; xs.open_run opens what it writes.",
    )
    export.add_argument(
        "script", type=Path, nargs="?", default=Path("export_lcls1.py"), help="where to write it (default: %(default)s)"
    )
    export.set_defaults(run=_export)


def _number_of_events(text: str) -> int:
    """A whole number of at least 1, or the error that argparse reports."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of events")
    return number


def _demo(options: argparse.Namespace) -> None:
    from xsmall.demo import run_demo

    run_demo(options.out, events=options.events, seed=options.seed, progress=not options.quiet)


def _info(options: argparse.Namespace) -> None:
    from xsmall.io.info import describe

    for path in options.file:
        print(describe(path))


def _export(options: argparse.Namespace) -> None:
    from importlib import resources

    text = resources.files("xsmall.io").joinpath("export_lcls1.py").read_bytes()
    with options.script.open("xb") as file:
        file.write(text)
    print(f"{options.script}: copy it to where psana1 is; python {options.script.name} --help")


def _look(options: argparse.Namespace) -> None:
    from xsmall.io.run import open_run
    from xsmall.notebook.facts import facts_of
    from xsmall.notebook.text import as_text
    from xsmall.plot.endings import with_ending_of_a_picture
    from xsmall.plot.quicklook import quicklook

    out = with_ending_of_a_picture(options.out)
    run = open_run(options.source)
    print(as_text(facts_of(run, ["quicklook", "event_variables", "integrate", "save"])))
    save_picture(quicklook(run, options.detector, events=options.events), out, "figure")


def _warm_up(options: argparse.Namespace) -> None:
    from xsmall.demo.warm_up import warm_up

    del options
    for what, seconds in warm_up():
        print(f"{what:<24} {seconds:5.1f} s", flush=True)


def _doctor(options: argparse.Namespace) -> None:
    from xsmall.notebook.versions import show_versions

    del options
    print(show_versions())
