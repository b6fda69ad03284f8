"""Gain control bits of the ePix10ka: bad input. That they are psana's is tested with the real files."""

import numpy as np
import pytest

from xsmall.detector.gain_control import configured_control, gain_control
from xsmall.errors import DataError


def test_segments_in_front_are_kept() -> None:
    config = np.random.default_rng(1).integers(0, 16, (2, 4, 178, 192))
    trbit = np.array([[0, 1, 0, 1], [1, 1, 0, 0]])
    bits = gain_control(config, trbit)
    assert bits.shape == (2, 352, 384)
    assert bits.dtype == np.uint8
    for k in range(2):
        np.testing.assert_array_equal(bits[k], gain_control(config[k], trbit[k]))


@pytest.mark.parametrize("shape", [(4, 177, 192), (3, 176, 192), (176, 192), (4, 192, 176)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"(?s)not the pixel configuration.*found.*expected"):
        gain_control(np.zeros(shape), np.zeros(4))


def test_trbit_of_other_asics_is_refused() -> None:
    with pytest.raises(DataError, match="trbit"):
        gain_control(np.zeros((4, 176, 192)), np.zeros(3))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("epix10ka", {"asicPixelConfig": np.zeros((4, 176, 192))}),
        ("epix10ka", {"asicPixelConfig": np.zeros((4, 170, 192)), "trbit": np.zeros(4)}),
        ("epix10ka", {"cbitsConfig": np.zeros((352, 380))}),
        ("epixhr2x2", {"asicPixelConfig": np.zeros((144, 768)), "trbit": np.zeros(4)}),
        ("epixuhr", {"gainAsic": np.zeros(6), "gainCSVAsic": np.zeros((6, 32000))}),
        ("epixuhr", {"gainAsic": np.zeros(6)}),
        ("jungfrau", {"asicPixelConfig": np.zeros((4, 176, 192)), "trbit": np.zeros(4)}),
        ("epix10ka", {}),
    ],
)
def test_a_configuration_that_does_not_say_the_gain_gives_no_bits(kind: str, config: dict) -> None:
    assert configured_control(kind, config) is None
