"""The figures of the demo, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall import vocabulary as v
from xsmall.demo.analysis import DARK_Q, PATTERN, Findings
from xsmall.plot.detector import plot
from xsmall.simulation.recipe import SimulatedScan, response_to

__all__ = ["draw"]

INK: Final = "#1f2933"
ACCENT: Final = "#c2410c"
TRUTH: Final = "#2563eb"
GAP: Final = "#d9dde2"
STYLE: Final = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.dpi": 160,
}


def draw(folder: Path, found: Findings, cube: xr.Dataset, small: xr.Dataset) -> list[Path]:
    """Draw all figures into ``folder`` and return their paths."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        return [
            _save_figure(
                folder / "average_image.png", (7.4, 4.0), lambda f: _draw_average(f.subplots(), cube, "right", 0.78)
            ),
            _save_figure(folder / "difference.png", (8.2, 4.2), lambda f: _difference(f, found, cube)),
            _save_figure(folder / "droplets.png", (5.6, 3.8), lambda f: _droplets(f.subplots(), found, small)),
            _save_figure(folder / "overview.png", (12.5, 4.0), lambda f: _overview(f, found, cube)),
        ]


def _save_figure(path: Path, size: tuple[float, float], fill: Any) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    fill(figure)
    figure.savefig(path)
    return path


def _draw_average(axes: Any, cube: xr.Dataset, bar: str, shrink: float) -> None:
    """Mean over all events of the cube, in the lab frame."""
    number = cube["jungfrau" + v.COUNT_SUFFIX]
    bins = (v.DELAY, v.LASER_ON)
    mean = (cube["jungfrau"] * number).sum(bins) / number.sum(bins)
    top = float(mean.quantile(0.995))
    plot(mean, log=True, vmin=0.01, vmax=top, cmap="magma", outlines=False, colorbar=False, ax=axes)
    axes.set_facecolor(GAP)
    axes.set_xlabel("x [mm], looking downstream")
    axes.set_ylabel("y [mm]")
    axes.set_title("Average image (grey: gaps and bad pixels)")
    label = "mean energy per pixel [keV]"
    axes.figure.colorbar(axes.images[-1], ax=axes, label=label, shrink=shrink, extend="both", location=bar, pad=0.02)


def _difference(figure: Any, found: Findings, cube: xr.Dataset) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _difference_map(left, cube)
    _delay_curve(right, found)


def _difference_map(axes: Any, cube: xr.Dataset) -> None:
    change = 100.0 * cube.sd.difference(v.LASER_ON, relative=True)[PATTERN].sel({v.Q: slice(0.68, 2.36)})
    delay = _borders(cube, v.DELAY)
    q = change[v.Q].values
    step = q[1] - q[0]
    shown = axes.pcolormesh(
        np.append(q - step / 2, q[-1] + step / 2),
        delay,
        change.transpose(v.DELAY, v.Q).values,
        cmap="RdBu_r",
        vmin=-12,
        vmax=12,
        rasterized=True,
    )
    axes.set_xlabel("q [1/Å]")
    axes.set_ylabel("delay [ps]")
    axes.set_title("Azimuthal intensity, laser on against off")
    axes.figure.colorbar(shown, ax=axes, label="relative change [%]", extend="both")


def _borders(cube: xr.Dataset, dim: str) -> npt.NDArray[np.float64]:
    bounds = cube[dim + v.BOUNDS_SUFFIX].values
    return np.append(bounds[:, 0], bounds[-1, 1])


def _delay_curve(axes: Any, found: Findings) -> None:
    middle, half = 0.5 * (found.delay[1:] + found.delay[:-1]), 0.5 * np.diff(found.delay)
    fine = np.linspace(found.delay[0], found.delay[-1], 800)
    values = found.delay_curve.values
    curve = response_to(SimulatedScan(t0=values["t0"], rise=abs(values["rise"]), decay=values["decay"]), fine)
    axes.axhline(0, color=GAP, linewidth=1, zorder=0)
    axes.plot(fine, 100 * values["height"] * curve, color=ACCENT, linewidth=1.4, label="fit")
    axes.errorbar(
        middle,
        100 * found.signal,
        yerr=100 * found.error,
        xerr=half,
        fmt="o",
        color=INK,
        markersize=3.2,
        linewidth=1.0,
        label="cube",
    )
    axes.set_xlabel("delay [ps]")
    axes.set_ylabel("change of one ring [%]")
    axes.set_title("Delay curve")
    axes.legend(loc="lower right", handlelength=1.5)
    lines = [
        rf"${symbol}$ = {abs(values[key]):.3f} ± {found.delay_curve.errors[key]:.3f} ps  (true {truth:.3f})"
        for symbol, key, truth in (
            ("t_0", "t0", found.truth["delay curve: t0 [ps]"]),
            (r"\tau", "decay", found.truth["delay curve: decay [ps]"]),
        )
    ]
    axes.text(0.97, 0.97, "\n".join(lines), transform=axes.transAxes, ha="right", va="top", fontsize=8.5)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))


def _droplets(axes: Any, found: Findings, small: xr.Dataset) -> None:
    centers = 0.5 * (found.energy[1:] + found.energy[:-1])
    values = found.line.values
    axes.stairs(found.droplets, found.energy, color=INK, linewidth=1.0, fill=False, label="droplets")
    near = np.linspace(values["energy"] - 1.2 * values["width"], values["energy"] + 1.8 * values["width"], 100)
    axes.plot(
        near,
        values["height"] * np.exp(-0.5 * ((near - values["energy"]) / values["width"]) ** 2),
        color=ACCENT,
        linewidth=2.0,
        label=f"peak {values['energy']:.2f} keV",
    )
    line = found.truth["line [keV]"]
    axes.axvline(line, color=TRUTH, linestyle="--", linewidth=1.0, label=f"photon energy {line:g} keV")
    axes.axvline(2 * line, ymax=0.6, color=TRUTH, linestyle=":", linewidth=1.0, label="two photons in one droplet")
    axes.set_yscale("log")
    axes.set_ylim(0.7, 3.0 * max(int(found.droplets.max()), 1))
    axes.set_xlim(centers[0], centers[-1])
    axes.set_xlabel("energy of a droplet [keV]")
    axes.set_ylabel(f"droplets per {1000 * (found.energy[1] - found.energy[0]):.0f} eV")
    axes.set_title(f"Single photons beyond q = {DARK_Q:g} 1/Å, {int(small['line_n_droplets'].sum()):,} droplets")
    axes.legend(loc="upper right", fontsize=8.5, handlelength=1.5)


def _overview(figure: Any, found: Findings, cube: xr.Dataset) -> None:
    first, second, third = figure.subplots(1, 3, width_ratios=(1.5, 1.1, 1.0))
    _draw_average(first, cube, "bottom", 0.8)
    _difference_map(second, cube)
    _delay_curve(third, found)
