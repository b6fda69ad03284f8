"""All advice of the package: what is code parses, names what there is, and, where it is whole, runs as it stands."""

import ast
import inspect
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import xarray as xr

import xsmall as xs
from xsmall.accessor import SdDataArray, SdDataset, SdDataTree

PACKAGE = Path(xs.__file__).parent
HOLE = "HOLE"
CALL = re.compile(r"(?<![\w.\])])(?:[A-Za-z_]\w*)?(?:\.[A-Za-z_]\w*)*\(")
FURTHER = re.compile(r"(?:\.[A-Za-z_]\w*)*[(\[]")
PROSE = re.compile(r"\([^()]*\)")
ENGLISH = {"there", "record", "records", "dark", "HOLE", "of"}


def texts(node: ast.AST) -> Iterator[str]:
    """The texts that an argument can be; what is filled in is a hole."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(v.value) if isinstance(v, ast.Constant) else HOLE for v in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from (a + b for a in texts(node.left) for b in texts(node.right))


def constants_of(nodes: list[ast.AST]) -> dict[str, list[str]]:
    """Texts that have a name of their own: _FIX = "..."."""
    return {
        target.id: list(texts(node.value))
        for node in nodes
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def advice() -> Iterator[tuple[str, str]]:
    """Place and text of everything that an error says to do."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "fix=" not in text:
            continue
        nodes = list(ast.walk(ast.parse(text)))
        named = constants_of(nodes)
        for node in nodes:
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg == "fix":
                    held = named.get(keyword.value.id, []) if isinstance(keyword.value, ast.Name) else []
                    for text in (*texts(keyword.value), *held):
                        yield f"{path.relative_to(PACKAGE)}:{keyword.value.lineno}", text


ALL = sorted(set(advice()))


def closed(text: str, at: int) -> int:
    """Where the bracket closes that opens at a place."""
    depth = 0
    for end in range(at, len(text)):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return end + 1
    return len(text)


def calls(text: str) -> Iterator[str]:
    """The calls in a text, each with its arguments and what is called of its result."""
    at = 0
    while (found := CALL.search(text, at)) is not None:
        end = closed(text, found.end() - 1)
        while (more := FURTHER.match(text, end)) is not None:
            end = closed(text, more.end() - 1)
        yield text[found.start() : end]
        at = end


CODE = [
    (place, call)
    for place, text in ALL
    for call in calls(text)
    if call.partition("(")[0] not in ENGLISH and not PROSE.fullmatch(call)
]


def callee(function: ast.expr) -> Any:
    """What a call of advice calls; None where only the data can tell."""
    if isinstance(function, ast.Name):
        return getattr(xs, function.id, None) if function.id in dir(xs) else None
    if not isinstance(function, ast.Attribute) or HOLE in function.attr:
        return None
    owner = function.value
    if isinstance(owner, ast.Name):
        module = {"xs": xs, "np": np, "xr": xr, "pandas": pandas, "os": os}.get(owner.id)
        if module is not None:
            return getattr(module, function.attr)
    if isinstance(owner, ast.Attribute) and owner.attr == "sd" and function.attr != "rebin":  # of frames, or of bins
        kinds = [
            getattr(kind, function.attr)
            for kind in (SdDataArray, SdDataset, SdDataTree)
            if hasattr(kind, function.attr)
        ]
        assert kinds, f"no method .sd.{function.attr}"
        return kinds[0] if callable(kinds[0]) else None
    return None


def test_all_advice_is_found() -> None:
    assert len(ALL) > 450
    assert len(CODE) > 150


@pytest.mark.parametrize(("place", "code"), CODE, ids=[f"{place} {code[:40]}" for place, code in CODE])
def test_code_in_advice_parses_and_names_what_there_is(place: str, code: str) -> None:
    whole = f"DATA{code}" if code.startswith(".") else code
    for node in ast.walk(ast.parse(whole, mode="eval")):
        if not isinstance(node, ast.Call):
            continue
        function = callee(node.func)
        names = [k.arg for k in node.keywords if k.arg is not None and HOLE not in k.arg]
        if function is None or not names:
            continue
        known = inspect.signature(function).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
        assert anything or set(names) <= set(known), f"{place}: {code}"


# ---- what is whole runs as it stands --------------------------------------------------------------------------------

WHOLE = sorted({code for _, code in CODE if HOLE not in code and "..." not in code})

ELSEWHERE = {
    'xs.open_constants("exp=mfx101332224,run=7", detector="jungfrau")': "a run of LCLS",
    "xs.open_run(path, parallel_gain=True)": "a run of LPD",
    "raw.copy(data=gain)": "values of a gain that the user has",
    '.add(xs.Circle((0, 0), 1e-3), "spot")': "of a view that is open in a notebook",
    'xs.open_run("run.xtc2")': "a run of LCLS",
    'xs.event_variables(xs.open_run("run.xtc2"), "xpp")': "a run of LCLS",
    'xs.waveforms(run["hsd/waveform"])': "a run with digitizers",
    "coarsen()": "of xarray, in a sentence that advises against it",
    "function(frame, constant)": "inside a lambda of the user's",
}
"""Advice for what a test does not have."""


def typed_as(code: str) -> list[str]:
    """What advice may be typed as: behind whatever it is a method of, with whatever its word for data means."""
    if code.startswith("."):
        behind = [f"{name}{code}" for name in ("raw", "cal", "small", "cube", "explorer")]
    else:
        behind = [code]
    kinds = ("", "_of_one", "_of_geometry", "_of_cells")
    return [
        re.sub(r"\b(data|path|raw|constants|gain)\b(?!=)", lambda found, kind=kind: found[1] + kind, one)
        for one in behind
        for kind in kinds
    ]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What advice may speak of, by the names that it uses."""
    folder = tmp_path_factory.mktemp("advice")
    sim = xs.simulate(12, shape=(3, 16, 32), seed=1)
    raw = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)
    cal = raw.sd.calibrate(sim.constants).compute()
    box = xs.Box(segment=0, row=(2, 12), column=(3, 20))
    events = sim.run["events"].to_dataset()
    small = cal.sd.roi(box).isel(roi=0)
    cubes = [small.isel(event=part).sd.cube({"delay": xs.bins(-2, 5, n=4)}) for part in (slice(0, 6), slice(6, 12))]
    pair = raw.sd.calibrate(sim.constants, variance=True, photon_energy=9500)
    values, variance = pair["calibrated"], pair["calibrated_variance"]
    photons, sparse = cal.sd.photon(9.5), cal.sd.photon(9.5, sparse=True)
    mask = xr.DataArray(np.ones((3, 16, 32), bool), dims=cal.dims[1:], coords={d: cal[d] for d in cal.dims[1:]})
    xs.save_geometry(xs.Beam(distance=0.1).align(sim.geometry), folder / "geometry.data")
    lists = cal.sd.droplet(5.0, 2.5)["sum"]
    waves = xr.DataArray(np.random.default_rng(0).normal(0, 1, (12, 400)), dims=("event", "sample"))
    cell = (np.arange(12) % 4).astype("i4")
    path = xs.save(sim.run, folder / "run.zarr")
    stages = np.broadcast_to(np.array([9.0, 3.0, 1.0])[:, None, None, None], (3, 3, 16, 32)).copy()
    cells = xr.DataArray(np.zeros((4, 3, 16, 32), np.uint16), dims=cal.dims, attrs={"detector_type": "agipd"})
    return {name: getattr(xs, name) for name in dir(xs)} | {
        "path": path,
        "path_of_geometry": xs.save_geometry(sim.geometry, folder / "detector.geom", beam=sim.beam),
        "raw_of_a_dark_run": raw,
        "gain": stages,
        "raw_of_cells": cells,
        "gain_of_cells": xr.zeros_like(cells, dtype=np.uint8),
        "constants_of_cells": xs.constants("agipd", 0 * stages, gain=stages, gain_unit="1"),
        "mode": xs.CommonMode(steps=(xs.Subtract(name="row", rows=1),)),
        "x0": 0.0,
        "y0": 0.0,
        "x1": 1e-3,
        "y1": 0.0,
        "x2": 0.0,
        "y2": 1e-3,
        "array": mask,
        "edges": np.linspace(0, 9, 4),
        "times": pandas.date_range("2026-03-01", periods=3, tz="UTC"),
        "fraction": 0.1,
        "result": small,
        "status": sim.constants["status"],
        "pedestal": sim.constants["pedestal"].values,
        "front": cal.sd.azint(5),
        "back": cal.sd.azint(5),
        "xs": xs,
        "np": np,
        "xr": xr,
        "pandas": pandas,
        "os": os,
        "folder": folder,
        "cell": cell,
        "sim": sim,
        "run": sim.run,
        "raw": raw,
        "cal": cal,
        "constants": sim.constants.assign_attrs(run_range=[1, 9]),
        "geometry": sim.geometry,
        "frames": cal,
        "obj": cal,
        "data": cal,
        "data_of_one": cal.isel(event=0),
        "box": box,
        "region": xs.Circle((0, 0), 1e-3),
        "regions": {"a": box},
        "small": small,
        "cube": cubes[0],
        "cubes": cubes,
        "bins": {"laser_on": xs.categories()},
        "dark": raw,
        "mask": mask,
        "flags": xs.mask(cal, edges=1),
        "values": values,
        "variance": variance,
        "pair": pair,
        "a": pair,
        "b": pair,
        "photons": photons,
        "sparse": sparse,
        "lists": lists,
        "waves": waves,
        "i0": events["i0"],
        "function": lambda jungfrau, i0: np.nansum(jungfrau) / i0,
        "run1": cal[:6],
        "run2": cal[6:],
        "view": cal.sd.explore(),
    }


@pytest.mark.parametrize("code", [code for code in WHOLE if code not in ELSEWHERE])
def test_advice_that_is_whole_runs(code: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(names["folder"])
    errors = []
    for typed in typed_as(code):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert eval(typed, dict(names)) is not None
        except Exception as error:
            errors.append(f"{typed}: {type(error).__name__}: {error}")
        else:
            return
    raise AssertionError("\n".join(errors))


def test_little_is_not_tried_and_is_advice_still() -> None:
    assert set(ELSEWHERE) <= set(WHOLE)
    assert len(WHOLE) > 95
    assert len(ELSEWHERE) < 12
