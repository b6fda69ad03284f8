"""Gain control bits from the configuration of each family, beside psana's own functions."""

from types import SimpleNamespace

import numpy as np
import pytest

from xsmall.detector.gain_control import assemble_uhr, configured_control

pytestmark = pytest.mark.validation
RNG = np.random.default_rng(4)
TRBITS = [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("trbit", TRBITS)
@pytest.mark.parametrize(
    ("kind", "function", "shape"),
    [
        ("epix10ka", "cbits_config_epix10ka", (4, 176, 192)),
        ("epixhr2x2", "cbits_config_epixhr2x2", (110592,)),
        ("epixhr1x4", "cbits_config_epixhr1x4", (144, 768)),
    ],
)
def test_bits_of_pixels_and_trbit_equal_psana(kind: str, function: str, shape: tuple[int, ...], trbit: list) -> None:
    psana = pytest.importorskip("psana.detector.UtilsEpix10ka")
    config = {"asicPixelConfig": RNG.integers(0, 16, shape).astype(np.uint8), "trbit": np.array(trbit, np.uint8)}
    expected = getattr(psana, function)(SimpleNamespace(**{n: x.copy() for n, x in config.items()}))
    np.testing.assert_array_equal(configured_control(kind, config), expected)
    segments = {name: np.stack([x, x]) for name, x in config.items()}
    np.testing.assert_array_equal(configured_control(kind, segments), np.stack([expected, expected]))


def test_bits_of_a_whole_panel_equal_psana() -> None:
    psana = pytest.importorskip("psana.detector.UtilsEpix10ka")
    config = {"cbitsConfig": RNG.choice([0, 8, 12, 16, 28], (352, 384)).astype(np.uint8)}
    expected = psana.cbits_config_epix10ka_v02(SimpleNamespace(**config))
    np.testing.assert_array_equal(configured_control("epix10ka", config), expected)


def test_words_and_frames_of_an_epixuhr_equal_psana() -> None:
    psana = pytest.importorskip("psana.detector.UtilsEpixUHR")
    config = {
        "gainAsic": np.array([0, 56, 0, 1, 0, 0], np.uint8),
        "gainCSVAsic": RNG.integers(0, 64, (6, 32256)).astype(np.uint8),
    }
    expected = psana.cbits_config_segment(SimpleNamespace(**{n: x.copy() for n, x in config.items()}))
    np.testing.assert_array_equal(configured_control("epixuhr", config), expected)
    words = RNG.integers(0, 4096, (6, 168, 192)).astype(np.uint16)
    np.testing.assert_array_equal(assemble_uhr(words), psana.stack_2x3_asics(words))
