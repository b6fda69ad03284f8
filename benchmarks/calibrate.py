"""Raw words to float32, beside copying them to float32 and the NumPy way; with flags, variance and common mode."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks import Case, optional, read
from xsmall.kernels.calibrate import calibrate_stack
from xsmall.kernels.calibrate_cells import calibrate_cells, flag_cells, stages_of_gain, variance_cells
from xsmall.kernels.calibrate_variance import variance_stack
from xsmall.kernels.reference import calibrate as twin
from xsmall.kernels.reference import calibrate_cells as twin_of_cells
from xsmall.kernels.trust import flags_stack

PLANE = np.array([0, 1, -1, 2])
NO_LIMITS = np.empty((0, 2), np.int32)
SATURATION = np.array([[0, 16382], [0, 16383], [0, 16383], [1, 16383]], np.int32)
FLAG_LIMITS = np.array([[0, 16382, 0, 12000], [0, 16383, 500, 16383], [0, 0, 0, 0], [1, 16383, 0, 16383]], np.int32)
NAMES = np.array([1 << 17, 1 << 18, 1 << 16], np.uint32)
K = 4


class Jungfrau:
    """Words and tables of a detector; a fraction of the pixels has left gain 0, one in a hundred is not trusted."""

    def __init__(self, n: int, switched: float, codes: tuple[int, ...] = (1, 1, 3)) -> None:
        rng = np.random.default_rng(1)
        self.n = n
        self.raw = rng.integers(2000, 6000, (K, n)).astype(np.uint16)
        code = np.where(rng.random((K, n)) < switched, rng.choice(codes, (K, n)), 0)
        self.raw |= (code << 14).astype(np.uint16)
        self.pedestal = rng.normal(3000, 50, (3, n)).astype(np.float32)
        self.factor = (1 / np.array([41, -1.45, -0.11])[:, None] * np.ones(n)).astype(np.float32)
        self.factor[:, rng.random(n) < 0.01] = np.nan
        self.static = (rng.random(n) < 0.01).astype(np.uint32)
        self.always = np.broadcast_to(self.static, (3, n)).copy()
        self.out = np.empty((K, n), np.float32)
        self.variances = np.empty((K, n), np.float32)
        self.flags = np.empty((K, n), np.uint32)

    def calibrate(self, limits: np.ndarray = NO_LIMITS, out: np.ndarray | None = None) -> np.ndarray:
        out = self.out if out is None else out
        calibrate_stack(
            self.raw.reshape(-1), self.n, K, PLANE, self.pedestal, self.factor, 14, 3, 0x3FFF, limits,
            out.reshape(-1), self.n,
        )  # fmt: skip
        return out

    def fresh(self) -> np.ndarray:
        out = np.empty_like(self.out)  # freed before the next, as that of astype is
        return self.calibrate(out=out)

    def trust(self) -> np.ndarray:
        flags_stack(
            self.raw.reshape(-1), self.n, K, self.static, PLANE, self.always, 14, 3, 0x3FFF, FLAG_LIMITS, NAMES,
            self.flags.reshape(-1), self.n,
        )  # fmt: skip
        return self.flags

    def variance(self) -> np.ndarray:
        self.calibrate()
        variance_stack(
            self.raw.reshape(-1), self.n, K, PLANE, np.abs(self.factor), 14, 3, 9.5, self.out.reshape(-1), self.n,
            self.variances.reshape(-1), self.n,
        )  # fmt: skip
        return self.variances

    def copy(self) -> np.ndarray:
        np.copyto(self.out, self.raw, casting="unsafe")
        return self.out

    def by_numpy(self) -> np.ndarray:
        return twin.calibrate(self.raw, PLANE, self.pedestal, self.factor, 14, 3, 0x3FFF)


class Agipd:
    """A module in 64 frames of 8 memory cells, its gain beside them; one constant in a hundred is not usable."""

    n_frames, n_cells = 64, 8
    plane = np.array([0, 1, 2, -1])

    def __init__(self, n: int, switched: float) -> None:
        rng = np.random.default_rng(2)
        self.n = n
        frames, tables = (self.n_frames, n), (self.n_cells, 3, n)
        self.raw = rng.integers(4000, 9000, frames).astype(np.uint16)
        self.code = np.where(rng.random(frames) < switched, rng.choice([1, 1, 2], frames), 0).astype(np.uint8)
        self.gain = rng.integers(5000, 9000, frames).astype(np.uint16)
        self.cell = np.arange(self.n_frames) % self.n_cells
        self.pedestal = rng.normal(4500, 50, tables).astype(np.float32)
        self.factor = rng.uniform(0.05, 0.2, tables).astype(np.float32)
        self.factor[rng.random(tables) < 0.01] = np.nan
        self.threshold = np.sort(rng.uniform(5500, 8500, (self.n_cells, 2, n)), axis=1).astype(np.float32)
        self.status, self.static = np.isnan(self.factor).astype(np.uint8), np.zeros(n, np.uint32)
        self.out, self.variances = np.empty(frames, np.float32), np.empty(frames, np.float32)
        self.flags, self.found = np.empty(frames, np.uint32), np.empty(frames, np.uint8)
        self.beside = self.code.reshape(-1), n, self.cell, self.plane

    def calibrate(self) -> np.ndarray:
        calibrate_cells(
            self.raw.reshape(-1), self.n, *self.beside, self.pedestal, self.factor, NO_LIMITS.astype(np.uint16),
            self.out.reshape(-1), self.n,
        )  # fmt: skip
        return self.out

    def stages(self) -> np.ndarray:
        stages_of_gain(self.gain.reshape(-1), self.n, self.cell, self.threshold, self.found)
        return self.found

    def variance(self) -> np.ndarray:
        self.calibrate()
        variance_cells(
            self.out.reshape(-1), self.n, *self.beside, self.factor, 9.5, self.variances.reshape(-1), self.n
        )  # fmt: skip
        return self.variances

    def trust(self) -> np.ndarray:
        flag_cells(
            self.raw.reshape(-1), self.n, *self.beside, self.status, self.static, np.empty((0, 4), np.uint16),
            np.arange(5).astype(np.uint32), self.flags.reshape(-1), self.n,
        )  # fmt: skip
        return self.flags

    def by_numpy(self) -> np.ndarray:
        return twin_of_cells.calibrate_cells(
            self.raw, self.code, self.cell, self.plane, self.pedestal, self.factor
        )  # fmt: skip

    def cases(self, label: str) -> list[Case]:
        """Calibration beside astype and NumPy, and the rest beside calibration."""
        k, floor = self.n_frames, read(self.raw, self.code)
        astype = {"astype float32": lambda: self.raw.astype(np.float32)}
        by_numpy = {"NumPy": self.by_numpy}
        return [
            Case(f"calibrate by cell, {label}", self.calibrate, k, astype | by_numpy, floor),
            Case(f"calibrate and variance by cell, {label}", self.variance, k, {"calibrate": self.calibrate}, floor),
            Case(f"trust flags by cell, {label}", self.trust, k, {"calibrate": self.calibrate}, floor),
        ]


def psana(data: Jungfrau) -> dict[str, Callable[[], object]]:
    """psana's compiled calibration, frame by frame, with its constants in its own layout; nothing where it is not."""
    compiled = optional("psana.pycalgos.utilsdetector")
    if compiled is None:
        return {}
    both = np.zeros((4, data.n, 2), np.float32)
    for code, plane in ((0, 0), (1, 1), (3, 2)):
        both[code, :, 0], both[code, :, 1] = data.pedestal[plane], np.nan_to_num(data.factor[plane])
    frames = data.raw.reshape(K, 1, -1, 1024)
    out = np.empty(frames.shape[1:], np.float32)

    def run() -> object:
        for frame in frames:
            compiled.calib_jungfrau_v3(frame, both.ravel(), min(data.n, 512 * 1024), out)
        return out

    return {"psana": run}


def cases(scale: float) -> list[Case]:
    """Segments of 0.5 Mpixel and frames of 4.2 Mpixel, in stacks of four; modules whose constants go by memory cell."""
    out = []
    for switched in (0.0, 0.01, 0.2):
        module = Agipd(max(int(512 * scale), 2) * 128, switched)
        out += module.cases(f"{switched:.0%} switched")
    out.append(Case("stages of an analogue gain", module.stages, module.n_frames, floor=read(module.gain)))
    for label, rows in (("0.5 Mpixel", 512), ("4.2 Mpixel", 4096)):
        n = max(int(rows * scale), 2) * 1024
        few, some, many, all_others = (Jungfrau(n, share) for share in (2e-4, 0.02, 0.2, 1.0))
        held = Jungfrau(n, 1.0, (1,))
        copies = {"astype float32": lambda d=few: d.raw.astype(np.float32), "copyto float32": few.copy}
        out += [
            Case(f"calibrate {label}, 0.02 % switched", few.calibrate, K, copies, read(few.raw)),
            Case(f"calibrate {label}, psana", few.calibrate, K, psana(few)),
            Case(f"calibrate {label}, NumPy", few.calibrate, K, {"NumPy": few.by_numpy}),
            Case(f"calibrate {label}, new result", few.fresh, K, copies, read(few.raw)),
            Case(f"calibrate {label}, 2 % switched", some.calibrate, K, copies, read(some.raw)),
            Case(f"calibrate {label}, 20 % switched", many.calibrate, K, copies, read(many.raw)),
            Case(f"calibrate {label}, all switched", all_others.calibrate, K, copies, read(all_others.raw)),
            Case(f"calibrate {label}, held in gain 1", held.calibrate, K, copies, read(held.raw)),
            Case(
                f"calibrate {label}, saturated to NaN", lambda d=few: d.calibrate(SATURATION), K,
                {"without": few.calibrate}, read(few.raw),
            ),
            Case(f"trust flags {label}", few.trust, K, {"calibrate": few.calibrate}, read(few.raw)),
            Case(f"calibrate and variance {label}", few.variance, K, {"calibrate": few.calibrate}, read(few.raw)),
        ]  # fmt: skip
    return out
