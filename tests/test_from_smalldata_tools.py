"""The page for those who come from smalldata_tools names calls that work: each of its tables is executed."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "from_smalldata_tools.md"
OF_FILES = (
    "xs.open_",
    "xr.open_",
    "xs.produce",
    "xs.forecast",
    "xs.report",
    "xs.make_arp",
    "xs.beam_from_poni",
    "xs.waveforms",
)
"""Calls with files that the page does not have; pages about them execute them."""
OF_WAVES = ("xs.waveform_",)


def ours() -> Iterator[str]:
    """Code in the second column of the tables."""
    if not PAGE.is_file():
        return
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and not set(cells[0]) <= {"-"}:
            yield from (code.replace("\\|", "|") for code in re.findall(r"`([^`]+)`", cells[1]))


ALL = sorted(set(ours()))
CODE = [code for code in ALL if not code.startswith(("xsmall ", "[", *OF_FILES))]


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the calls of the tables are about."""
    sim = xs.simulate(4, shape=(2, 256, 256), seed=1, chunks=4)
    det = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry)
    raw = det.sd.assign_beam(photon_energy=sim.beam.photon_energy, distance=sim.beam.distance, center=(0.0, 0.0))
    cal = raw.sd.calibrate(sim.constants)
    run = xs.simulate(200, shape=(1, 8, 16), seed=1).run
    events = run["events"].to_dataset().compute()
    box = xs.Box(segment=1, row=(10, 90), column=(2, 250))
    n = events.sizes["event"]
    events["scan_lxt_ttc"] = ("event", np.linspace(-1e-12, 4e-12, n))
    times = np.arange(500.0)
    waves = xr.DataArray(
        np.exp(-(((times - 200) / 9) ** 2)) * (1 + np.arange(6.0)[:, None]) + 0.01 * np.sin(times),
        dims=("event", "sample"),
        coords={"event": np.arange(6), "sample": np.arange(500)},
    )
    later = events.assign_coords(event=events["event"].values + np.timedelta64(1, "D"))
    average = cal.isel(event=0).compute()
    good = xr.ones_like(average, dtype=bool).drop_vars([c for c in average.coords if c not in average.dims])
    pixels = {"pedestal": sim.constants["pedestal"].values, "gain": sim.constants["gain"].values}
    return {
        "xs": xs, "raw": raw, "cal": cal, "run": run, "small": events, "box": box,
        "spot": xs.Box(segment=1, row=(10, 30), column=(20, 60)), "good": good, "waves": waves,
        "edges": np.linspace(0.1, 1, 9), "geometry": sim.geometry, "constants": sim.constants,
        "average": average.isel(row=slice(128)),  # rings are searched for in fewer pixels
        "region": xs.Circle((0.0, 0.0), 0.01), "flat": xr.ones_like(average), "beam": sim.beam,
        "templates": xs.waveform_basis(waves, 1, (100, 400)), "mine": lambda frame: float(np.nanmax(frame)),
        "slow": run["jungfrau"]["raw"].isel(event=slice(None, None, 4)), "photons": cal.sd.sparse(),
        "counts": cal.sd.apply(xs.droplet(4.0) | xs.photon(9.5)), "darks": run["jungfrau"]["raw"],
        "noise": (sim.constants["noise"] / sim.constants["gain"]).isel(gain_stage=0),
        "another": later.sd.cube({"laser_on": xs.categories()}).compute(),
        "cube": events.sd.cube({"laser_on": xs.categories()}).compute(), **pixels,
    }  # fmt: skip


@pytest.mark.skipif(not PAGE.is_file(), reason="docs are in the repository, not in the package")
def test_the_tables_are_read() -> None:
    assert len(CODE) > 70
    assert len(ALL) - len(CODE) < 15


@pytest.mark.parametrize("code", CODE)
def test_every_call_of_the_tables_works(code: str, names: dict[str, Any]) -> None:
    made = eval(code, dict(names))
    if isinstance(made, xs.Record):
        frames = (
            names["waves"]
            if code.startswith(OF_WAVES)
            else names["cal"].drop_vars(["tt_position", "tt_amplitude", "tt_fwhm"])
        )
        if isinstance(made, type(xs.photon(1.0))) and "thr_fraction" not in code and "droplet" not in code:
            made = xs.droplet(4.0) | made
        assert frames.sd.apply(made).sizes
