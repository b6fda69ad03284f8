"""Raw words to float32, beside copying them to float32 and the NumPy way; with flags, variance and common mode."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks import Case, optional, read
from xsmall.kernels.calibrate import calibrate_stack
from xsmall.kernels.calibrate_variance import variance_stack
from xsmall.kernels.reference import calibrate as twin
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
        self.spread = np.empty((K, n), np.float32)
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
            self.spread.reshape(-1), self.n,
        )  # fmt: skip
        return self.spread

    def copy(self) -> np.ndarray:
        np.copyto(self.out, self.raw, casting="unsafe")
        return self.out

    def by_numpy(self) -> np.ndarray:
        return twin.calibrate(self.raw, PLANE, self.pedestal, self.factor, 14, 3, 0x3FFF)


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
    """Segments of 0.5 Mpixel and frames of 4.2 Mpixel, in stacks of four."""
    out = []
    for label, rows in (("0.5 Mpixel", 512), ("4.2 Mpixel", 4096)):
        n = max(int(rows * scale), 2) * 1024
        few, many, all_others = Jungfrau(n, 2e-4), Jungfrau(n, 0.2), Jungfrau(n, 1.0)
        held = Jungfrau(n, 1.0, (1,))
        copies = {"astype float32": lambda d=few: d.raw.astype(np.float32), "copyto float32": few.copy}
        out += [
            Case(f"calibrate {label}, 0.02 % switched", few.calibrate, K, copies, read(few.raw)),
            Case(f"calibrate {label}, psana", few.calibrate, K, psana(few)),
            Case(f"calibrate {label}, NumPy", few.calibrate, K, {"NumPy": few.by_numpy}),
            Case(f"calibrate {label}, new result", few.fresh, K, copies, read(few.raw)),
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
