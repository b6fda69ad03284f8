"""Commands around a production: old configurations, cubes, pictures, constants, darks, scripts of the automation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xsmall.cli.words import save_picture
from xsmall.errors import DataError, FileFormatError, ParameterError, alike

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the commands to those of ``xsmall``."""
    for add in (_add_convert, _add_cube, _add_plot, _add_constants, _add_dark, _add_arp):
        add(commands)


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser(
        "convert-config",
        help="make a recipe of a configuration of smalldata_tools",
        description="Make a recipe of a prod_config_*.py of smalldata_tools. The file is parsed, never executed; what "
        "could not be translated is listed at the top of the recipe.",
    )
    convert.add_argument("config", type=Path, metavar="CONFIG", help="prod_config_*.py")
    convert.add_argument("--run", type=int, required=True, metavar="N", dest="number", help="for run N")
    convert.add_argument("--out", type=Path, default=None, metavar="FILE", help="recipe (default: print it)")
    convert.add_argument("--overwrite", action="store_true", help="replace what is there")
    convert.set_defaults(run=_convert)


def _add_cube(commands: Any) -> None:
    cube = commands.add_parser(
        "cube",
        help="make a cube of a recipe from small data",
        description="Make a cube that a recipe describes from small data of one run or of several. Bins may be about "
        "results of reductions; images are read in a pass of their own.",
    )
    cube.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file")
    cube.add_argument("small", type=Path, nargs="+", metavar="SMALL", help="small data that produce wrote")
    cube.add_argument("--out", type=Path, default=Path("cube.zarr"), metavar="FILE", help="(default: %(default)s)")
    cube.add_argument("--name", default=None, metavar="NAME", help="of the cube, where the recipe has several")
    cube.add_argument("--no-images", action="store_true", help="do not read frames")
    cube.add_argument("--overwrite", action="store_true", help="replace what is there")
    cube.set_defaults(run=_cube)


def _add_plot(commands: Any) -> None:
    plot = commands.add_parser(
        "plot",
        help="draw a variable of small data or of a cube",
        description="Draw a variable of small data or of a cube to a picture; without one, list them.",
    )
    plot.add_argument("file", type=Path, metavar="FILE")
    plot.add_argument("variable", nargs="?", default=None, metavar="VARIABLE")
    plot.add_argument("--group", default=None, metavar="NAME", help="of a detector, such as jungfrau")
    plot.add_argument("--against", default=None, metavar="NAME", help="another variable, or the dim of the axis")
    plot.add_argument(
        "--at", type=_place, action="append", default=[], metavar="DIM=N",
        help="the N-th along a dim (from 0), where a picture has too few for all",
    )  # fmt: skip
    plot.add_argument("--out", type=Path, default=None, metavar="FILE", help="picture (default: VARIABLE.png)")
    plot.set_defaults(run=_plot)


def _add_constants(commands: Any) -> None:
    constants = commands.add_parser(
        "constants",
        help="say what constants are, and copy them",
        description="Open the constants of a detector, say what is in them, and write them to one file.",
    )
    constants.add_argument(
        "source", metavar="SOURCE", help="what xs.open_constants opens: a folder, a file, exp=...,run="
    )
    constants.add_argument("--detector", default=None, metavar="NAME")
    constants.add_argument("--run", type=int, default=None, metavar="N", dest="number")
    constants.add_argument("--detector-type", default=None, metavar="TYPE")
    constants.add_argument("--gain", default=None, metavar="MEANING", help="what the gain means, where nobody says it")
    constants.add_argument("--out", type=Path, default=None, metavar="FILE", help="write them there")
    constants.add_argument("--overwrite", action="store_true", help="replace what is there")
    constants.set_defaults(run=_convert_constants)


def _add_dark(commands: Any) -> None:
    dark = commands.add_parser(
        "dark",
        help="make pedestals, noise and status of dark runs",
        description="Make pedestal, noise and status of every pixel and gain stage from dark runs, one or several.",
    )
    dark.add_argument("source", nargs="+", metavar="RUN", help="what xs.open_run opens")
    dark.add_argument("--detector", required=True, metavar="NAME")
    dark.add_argument("--variable", default="raw", metavar="NAME", help="(default: %(default)s)")
    dark.add_argument("--out", type=Path, required=True, metavar="FILE", help="constants")
    dark.add_argument("--plot", type=Path, default=None, metavar="FILE", help="picture of them")
    dark.add_argument("--overwrite", action="store_true", help="replace what is there")
    dark.set_defaults(run=_dark)


def _add_arp(commands: Any) -> None:
    arp = commands.add_parser(
        "make-arp",
        help="write the scripts with which LCLS's automation produces runs",
        description="Write submit_xsmall.sh, which the automation (ARP) calls for each run, and the job it submits.",
    )
    arp.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file")
    arp.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the outputs")
    arp.add_argument("--scripts", type=Path, default=Path("arp"), metavar="DIR", help="(default: %(default)s)")
    arp.add_argument("--partition", default="milano", help="(default: %(default)s)")
    arp.add_argument("--account", default="lcls", help="(default: %(default)s)")
    arp.add_argument("--cores", type=int, default=16, help="(default: %(default)s)")
    arp.add_argument("--memory", default="64G", help="(default: %(default)s)")
    arp.add_argument("--walltime", default="02:00:00", help="(default: %(default)s)")
    arp.add_argument("--setup", default="", metavar="LINE", help="what makes xsmall available: source .../activate")
    arp.add_argument("--overwrite", action="store_true", help="replace what is there")
    arp.set_defaults(run=_arp)


def _convert(options: argparse.Namespace) -> None:
    from xsmall.run.convert import convert_config

    made = convert_config(options.config, options.number, options.out, overwrite=options.overwrite)
    if options.out is None:
        print(made.text(), end="")
        return
    print(f"recipe: {options.out}")
    for line in made.left_out:
        print(f"not translated: {line}")


def _cube(options: argparse.Namespace) -> None:
    from xsmall.run.remake import cube_of_recipe

    path = cube_of_recipe(
        options.recipe, options.small, options.out,
        name=options.name, images=not options.no_images, overwrite=options.overwrite,
    )  # fmt: skip
    print(f"cube: {path}")


def _place(text: str) -> tuple[str, int]:
    """A dim and a place along it."""
    name, _, place = text.partition("=")
    if not name or not place.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not such as delay=3")
    return name, int(place)


def _plot(options: argparse.Namespace) -> None:
    from xsmall.plot.endings import with_ending_of_a_picture
    from xsmall.plot.results import plot

    small = _opened_group(options.file, options.group)
    if options.variable is None:
        for name, values in small.variables.items():
            print(f"{name} ({', '.join(f'{d} {n}' for d, n in values.sizes.items())}) {values.dtype}")
        return
    out = with_ending_of_a_picture(options.out or Path(f"{options.variable}.png"))
    for dim, place in options.at:
        if place >= small.sizes.get(dim, 0):
            dims = small[options.variable].sizes if options.variable in small.variables else small.sizes
            places = ", ".join(f"{d}=0 to {n - 1}" for d, n in dims.items())
            fix = f"--at {next(iter([*alike(dim, map(str, dims)), *dims]), dim)}=0"
            raise ParameterError("no such place", found=f"{dim}={place}", expected=places, fix=fix)
    save_picture(plot(small.isel(dict(options.at)), options.variable, against=options.against).figure, out)


def _opened_group(path: Path, group: str | None) -> xr.Dataset:
    """Small data, a cube, or a group of such a file."""
    import xarray as xr

    if not path.exists():
        raise FileFormatError(f"{path}: no such file", expected="small data or a cube", fix="check the path")
    try:
        groups = xr.open_groups(path, engine="zarr" if path.suffix == ".zarr" else None)
    except (ValueError, OSError, KeyError) as error:
        what = "neither HDF5 nor Zarr" if isinstance(error, ValueError) else str(error).splitlines()[0]
        raise FileFormatError(f"{path}: neither small data nor a cube", found=what) from error
    found = groups.get(f"/{(group or '').strip('/')}")
    known = [name.strip("/") for name in groups if name != "/"]
    if group is None and known and found is not None and not found.variables:
        raise ParameterError(f"{path}: which group?", expected=", ".join(known), fix=f"--group {known[0]}")
    if found is None:
        near = next(iter(alike(str(group), known)), None)
        raise ParameterError(
            f"{path}: no such group", found=group, expected=", ".join(known), fix=f"--group {near}" if near else None
        )
    return found


def _convert_constants(options: argparse.Namespace) -> None:
    from xsmall.io.constants.open import open_constants
    from xsmall.io.stores.results import save

    found = open_constants(
        options.source,
        detector=options.detector,
        run=options.number,
        detector_type=options.detector_type,
        gain=options.gain,
    )
    for name, values in found.data_vars.items():
        unit = values.attrs.get("units", "")
        print(f"{name} ({', '.join(f'{d} {n}' for d, n in values.sizes.items())}) {values.dtype} {unit}".rstrip())
    for key in ("detector_type", "source", "run_range", "experiment"):
        if key in found.attrs:
            print(f"{key}: {found.attrs[key]}")
    if options.out is not None:
        print(f"constants: {save(found, options.out, overwrite=options.overwrite)}")


def _dark(options: argparse.Namespace) -> None:
    from xsmall.calibration.dark.dark import dark
    from xsmall.io.constants.open import open_constants
    from xsmall.io.run import open_run
    from xsmall.io.stores.results import save
    from xsmall.plot.endings import with_ending_of_a_picture
    from xsmall.run.detectors import frames_of

    picture = None if options.plot is None else with_ending_of_a_picture(options.plot)
    frames = []
    for source in options.source:
        found = frames_of(open_run(source), options.detector, options.variable)
        if isinstance(found, str):
            raise DataError(f"{source}: no frames of {options.detector!r}", found=found)
        frames.append(found)
    # Lazy: saving computes, once the place is known to be free.
    made = save(dark(frames), options.out, overwrite=options.overwrite)
    print(f"constants: {made}")
    if picture is not None:
        from xsmall.plot.calibration import plot_dark

        save_picture(plot_dark(open_constants(made)), picture)


def _arp(options: argparse.Namespace) -> None:
    from xsmall.run.arp import make_arp

    names = ("partition", "account", "cores", "memory", "walltime", "setup", "overwrite")
    given = {name: getattr(options, name) for name in names}
    for path in make_arp(options.recipe, options.out, options.scripts, **given):
        print(path)
