"""What reaches into numba: one test that says what a new numba broke, and the way to run without it."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import xsmall as xs
from xsmall.kernels import jit

PLAIN = "set XSMALL_PLAIN_KERNELS=1 to run without it"


def digests(given: Path) -> list[str]:
    """Results of every kernel that has vector code, as short texts; of frames that are given, with their constants."""
    from xsmall.kernels.droplet_bits import WORD, ZERO, levels_of, mark_rows
    from xsmall.kernels.median import column_medians, row_medians

    rng = np.random.default_rng(1)
    image = rng.normal(0, 3, (37, 64)).astype(np.float32)
    image[3, 5] = np.nan
    use = (rng.random(image.shape) > 0.1).astype(np.uint8)
    large = np.round(rng.normal(0, 3, (80, 96))).astype(np.float32)
    raw, constants, geometry = pickle.loads(given.read_bytes())
    both = raw.sd.calibrate(constants, common_mode="recommended", variance=True, photon_energy=9500)
    placed = raw.sd.assign_geometry(geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
    calibrated = raw.sd.calibrate(constants)
    frame = np.ascontiguousarray(calibrated.values[0, 0, :, :1000])  # the last word of a row is no whole one
    frame.flags.writeable = False
    rows, words = frame.shape[0], -(-frame.shape[1] // WORD)
    seeds, busy = np.zeros((rows + 2, words + 2), np.uint64), np.zeros(rows + 2, bool)
    used = rng.integers(ZERO, ~ZERO, (rows, words), np.uint64)
    # of droplets only this: what follows has no vector code, and takes seconds to compile
    mark_rows(frame, None, levels_of(frame, None), np.float32(1), np.float32(9), used, (0, rows), seeds, busy)
    arrays = [
        *both.data_vars.values(),
        calibrated,
        seeds,
        busy.view(np.uint8),
        xs.trust(raw, constants),
        *row_medians(image, use),
        *row_medians(image, use, 8),
        *column_medians(image, use),
        *row_medians(large.reshape(1, -1)),
        *placed.sd.calibrate(constants).sd.azint(bins=40).data_vars.values(),
    ]
    plain_zero = (np.asarray(a) + np.asarray(a).dtype.type(0) for a in arrays)  # -0 and 0 are one value
    return [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()[:16] for a in plain_zero]


def test_results_are_the_same_without_vector_code_and_cache(tmp_path: Path) -> None:
    sim = xs.simulate(5, shape=(1, 512, 1024), seed=2)
    given = tmp_path / "given"  # what simulates need not be compiled once more
    given.write_bytes(pickle.dumps((sim.run["jungfrau"]["raw"].compute(), sim.constants, sim.geometry)))
    code = (
        f"import pathlib, runpy; found = runpy.run_path({__file__!r}); "
        f"print(found['jit'].PLAIN, *found['digests'](pathlib.Path({str(given)!r})))"
    )
    environment = {**os.environ, "XSMALL_PLAIN_KERNELS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", *digests(given)]


def test_a_new_numba_still_has_what_the_cache_of_compiled_code_replaces() -> None:
    from numba.core import compiler, serialize

    kernel = numba.njit(lambda x: x)
    assert hasattr(kernel, "_cache"), f"numba {numba.__version__} keeps its cache elsewhere: {PLAIN}"
    for owner, names in ((compiler.CompileResult, ("_rebuild", "_reduce")), (serialize, ("dumps",))):
        for name in names:
            assert hasattr(owner, name), f"numba {numba.__version__} has no {owner.__name__}.{name}: {PLAIN}"


@pytest.mark.skipif(jit.PLAIN, reason="runs without vector code")
def test_a_new_numba_still_has_what_vector_code_is_written_with() -> None:
    from numba.core import cgutils
    from numba.extending import intrinsic

    for name in ("ir", "alloca_once_value", "for_range_slice", "get_or_insert_function"):
        assert hasattr(cgutils, name), f"numba {numba.__version__} has no cgutils.{name}: {PLAIN}"
    pointer = cgutils.ir.FloatType().as_pointer()
    assert pointer.pointee == cgutils.ir.FloatType(), f"llvmlite has no pointers with a type any more: {PLAIN}"
    assert callable(intrinsic)
