"""The kernel of trust flags against its NumPy twin."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.kernels.gain_code import BLOCK
from xsmall.kernels.reference import trust as twin
from xsmall.kernels.trust import flags_stack

NAMES = np.array([1 << 17, 1 << 18, 1 << 16], np.uint32)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 6),
    n=st.sampled_from([1, BLOCK - 1, BLOCK, 2 * BLOCK + 3]),
    switched=st.sampled_from([0.0, 0.01, 1.0]),
    held=st.integers(0, 3),
    values=st.sampled_from([(0, 2**14), (2000, 6000)]),
)
def test_flags_equal_the_twin(seed: int, k: int, n: int, switched: float, held: int, values: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    code = np.where(rng.random((k, n)) < switched, rng.integers(0, 4, (k, n)), held)
    raw = (rng.integers(*values, (k, n)) | code << 14).astype(np.uint16)
    static = rng.integers(0, 16, n).astype(np.uint32)
    of_stage = (rng.integers(0, 2, (3, n)) << 19).astype(np.uint32)
    limits = np.array([[0, 16000, 0, 12000], [0, 16383, 50, 16383], [0, 0, 0, 0], [1, 16383, 0, 16383]], np.int32)
    plane = np.array([0, 1, -1, 2])
    out = np.empty((k, n), np.uint32)
    flags_stack(
        raw.reshape(-1), n, k, static, plane, static | of_stage, 14, 3, 0x3FFF, limits, NAMES, out.reshape(-1), n
    )
    expected = twin.flags(raw, static, plane, of_stage, 14, 3, 0x3FFF, limits, NAMES)
    np.testing.assert_array_equal(out, expected)
