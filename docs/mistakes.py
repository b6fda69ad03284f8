"""Mistakes of the first days: make each, take what the message says to type, and type it. For the page and its test."""

import os
import re
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

import xsmall as xs


@dataclass(frozen=True)
class Made:
    """A mistake that was made: what was typed, the error, and what works."""

    name: str
    typed: str
    error: Exception
    works: str


def names(folder: Path) -> dict[str, Any]:
    """What the lines speak of."""
    sim = xs.simulate(40, shape=(2, 32, 64), seed=1)
    raw = sim.run["jungfrau"]["raw"]
    det = raw.sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)
    cal = det.sd.calibrate(sim.constants)
    small = cal.sd.reduce({"waxs": xs.azint(bins=9), "spot": xs.roi(xs.Box(segment=0))}).compute()
    xs.save(sim.run, folder / "run.zarr")
    xs.save(small, folder / "small.zarr")
    with h5py.File(folder / "foreign.h5", "w") as file:
        file["data"] = np.zeros((4, 8, 8), "u2")
    return {
        "xs": xs, "np": np, "xr": xr, "folder": folder, "run": sim.run, "raw": raw, "cal": cal, "small": small,
        "bare": raw.astype("f4"), "constants": sim.constants, "geometry": sim.geometry, "beam": sim.beam,
        "foreign": folder / "foreign.h5", "there": folder / "small.zarr", "flags": xs.mask(det, edges=1),
        "cube": small.sd.cube({"delay": xs.bins(-2, 5, n=7), "laser_on": xs.categories()}).compute(),
        "path": xs.save_geometry(sim.beam.align(sim.geometry), folder / "detector.json"),
    }  # fmt: skip


def advice_in(error: Exception) -> str:
    """The part of the advice that is code: up to a word of English behind it."""
    (told,) = re.findall(r"do this:  (.*)", str(error))
    code = re.split(r";| for data in|, whose| rather than|, or no| beside it", told)[0]
    words, colon, rest = code.partition(": ")
    return rest if colon and "(" not in words else code


def made(folder: Path) -> list[Made]:
    """Make all mistakes; the folder is for files."""
    known = names(folder)
    out = []
    with (Path(__file__).parent / "mistakes.toml").open("rb") as file:
        listed = tomllib.load(file)["mistake"]
    for one in listed:
        try:
            eval(one["typed"], dict(known))  # noqa: S307
        except Exception as error:
            works = one["works"].format(advice_in(error)) if "{}" in one["works"] else one["works"]
            out.append(Made(one["name"], one["typed"], error, works))
        else:
            raise AssertionError(f"no mistake: {one['typed']}")
    for done in out:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            eval(done.works, dict(known))  # noqa: S307
    return out


def table(folder: Path) -> str:
    """The mistakes as Markdown: what was typed, what was said, and what works."""
    text = []
    for one in made(folder):
        told = str(one.error).replace(str(folder), ".").replace(os.getcwd(), ".")
        told = "\n".join(line if len(line) <= 160 else line[:160] + " ..." for line in told.splitlines())
        works = one.works.replace(str(folder), ".")
        text.append(f"**{one.name[0].upper()}{one.name[1:]}**\n\n```python\n{one.typed}\n```\n\n```text\n"
                    f"{type(one.error).__name__}: {told}\n```\n\nWhat works: `{works}`\n")  # fmt: skip
    return "\n".join(text)
