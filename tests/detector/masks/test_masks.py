"""Pixels of masks against psana's arrays, and the conventions of integer arrays."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xsmall.detector.masks import patterns
from xsmall.detector.status_words import STATUS_CONVENTIONS, status_reasons
from xsmall.errors import DataError, ParameterError
from xsmall.vocabulary import Reason

SEGMENTS = {
    "SENS2X1_V1": ("SENS2X1:V1", (185, 388), (185, 194)),
    "EPIX100_V1": ("EPIX100:V1", (704, 768), (352, 384)),
    "JUNGFRAU_V2": ("JUNGFRAU:V2", (512, 1024), (256, 256)),
}


@pytest.fixture(scope="module")
def oracle(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "oracles" / "masks.npz") as file:
        return {name: file[name] for name in file.files}


def psana_geometry_mask(name: str, bits: int, width: int, unused_columns: int) -> np.ndarray:
    segment, shape, asic = SEGMENTS[name]
    bad = np.zeros(shape, dtype=bool)
    if bits & 1:
        bad |= patterns.edge_pixels(shape, width, width)
    if bits & 2:
        bad |= patterns.central_pixels(shape, asic, unused_columns, unused_columns)
    return bad | patterns.psana_unbonded(segment, shape, bits)


def test_pixels_equal_psana1_for_every_width_and_bit(oracle: dict[str, np.ndarray]) -> None:
    checked = 0
    for key, good in oracle.items():
        for name in SEGMENTS:
            if key.startswith(f"p1_{name}_mbits"):
                bits, width, centre = (int(part.lstrip("mbitswu")) for part in key.split("_")[-3:])
                np.testing.assert_array_equal(psana_geometry_mask(name, bits, width, centre), good == 0, err_msg=key)
                checked += 1
    assert checked == 33


def test_edges_and_centres_with_other_numbers_of_rows_than_columns_equal_psana2(oracle: dict[str, np.ndarray]) -> None:
    for name in ("SENS2X1_V1", "EPIX100_V1"):
        segment, shape, asic = SEGMENTS[name]
        edges = patterns.edge_pixels(shape, 3, 2) | patterns.psana_unbonded(segment, shape, 4)
        np.testing.assert_array_equal(edges, oracle[f"p2_{name}_edges_r3c2"] == 0)
        edges = patterns.edge_pixels(shape) | patterns.psana_unbonded(segment, shape, 4)
        np.testing.assert_array_equal(edges, oracle[f"p2_{name}_edges1"] == 0)
        centre = patterns.central_pixels(shape, asic, 2, 1) | patterns.psana_unbonded(segment, shape, 4)
        np.testing.assert_array_equal(centre, oracle[f"p2_{name}_center_r2c1"] == 0)


def test_neighbours_equal_psana(oracle: dict[str, np.ndarray]) -> None:
    bad = oracle["nbr_in"] == 0
    for radius in (1, 2, 5):
        for letter, pattern in {"r": "diamond", "c": "disk", "s": "square"}.items():
            expected = oracle[f"p2_neighbors_rad{radius}_{letter}"] == 0
            np.testing.assert_array_equal(patterns.neighbours_of(bad, radius, pattern), expected)
    np.testing.assert_array_equal(patterns.neighbours_of(bad, 1, "diamond"), oracle["p1_neighbors_all0"] == 0)
    np.testing.assert_array_equal(patterns.neighbours_of(bad, 1, "square"), oracle["p1_neighbors_all1"] == 0)


def test_status_bits_and_merges_over_stages_equal_psana(oracle: dict[str, np.ndarray]) -> None:
    status = oracle["status_in"]
    for bits in (65535, 1, 64, 7):
        reasons = status_reasons(status, convention="psana2", bits=bits)
        np.testing.assert_array_equal(reasons != 0, oracle[f"p2_status_mask_bits{bits}"] == 0)
    for stages in ("012", "01234", "0123456", "3"):
        chosen = status[[int(s) for s in stages]]
        reasons = status_reasons(chosen, convention="psana1", bits=0xFFFF, stage_axis=0)
        np.testing.assert_array_equal(reasons != 0, oracle[f"p2_status_merge_{stages}"] == 0)


@given(
    bad=hnp.arrays(bool, st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9))),
    radius=st.integers(0, 4),
    pattern=st.sampled_from(["diamond", "disk", "square"]),
)
def test_neighbours_are_the_pixels_whose_distance_to_a_bad_one_is_within_the_radius(bad, radius, pattern) -> None:
    distance = {
        "diamond": lambda r, c: abs(r) + abs(c) <= radius,
        "disk": lambda r, c: r * r + c * c <= radius * radius,
        "square": lambda r, c: np.maximum(abs(r), abs(c)) <= radius,
    }[pattern]
    row, column = np.indices(bad.shape[1:])
    expected = np.zeros_like(bad)
    for segment, r, c in np.argwhere(bad):
        expected[segment] |= distance(row - r, column - c)
    np.testing.assert_array_equal(patterns.neighbours_of(bad, radius, pattern), expected)


def test_every_status_bit_gives_some_reason_except_those_that_are_no_faults() -> None:
    words = np.uint64(1) << np.arange(64, dtype=np.uint64)
    for convention in STATUS_CONVENTIONS:
        silent = np.flatnonzero(status_reasons(words, convention=convention) == 0)
        # large pixels; the upper bytes of NeXus; peaks and corrections of CXI
        no_fault = {"euxfel": [22], "nexus": list(range(16, 64)), "cxi": [5, 11, 13, 14]}
        assert silent.tolist() == no_fault.get(convention, [])


def test_status_names_its_reasons() -> None:
    reasons = status_reasons(np.array([1, 2, 4, 0, 1 << 63], dtype=np.uint64), convention="psana2")
    assert [Reason(int(r)) for r in reasons] == [Reason.NOISY, Reason.DEAD, Reason.HOT, Reason(0), Reason.OTHER_STATUS]


def test_an_integer_array_is_refused_until_its_convention_is_named() -> None:
    with pytest.raises(ParameterError, match="convention='good=1'"):
        patterns.mask_from_array(np.array([0, 1]))
    with pytest.raises(ParameterError, match="unknown convention"):
        patterns.mask_from_array(np.array([0, 1]), convention="ones")
    with pytest.raises(DataError, match="0 to 3"):
        patterns.mask_from_array(np.array([0, 3]), convention="bad=1")
    with pytest.raises(DataError, match="integers or booleans"):
        patterns.mask_from_array(np.array([0.5, 1]), convention="bad=1")
    assert patterns.mask_from_array(np.array([0, 1]), convention="good=1").tolist() == [False, True]
    assert patterns.mask_from_array(np.array([0, 1]), convention="bad=1").tolist() == [True, False]
    assert patterns.mask_from_array(np.array([0, 8]), convention="flags").tolist() == [True, False]
    assert patterns.mask_from_array(np.array([False, True])).tolist() == [False, True]
    assert patterns.mask_from_array(np.array([False, True]), convention="bad=1").tolist() == [True, False]


@pytest.mark.parametrize("width", [-1, 300, 1.5, True])
def test_an_invalid_width_is_refused(width: object) -> None:
    with pytest.raises(ParameterError, match="width"):
        patterns.edge_pixels((512, 1024), width, 0)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="width"):
        patterns.central_pixels((512, 1024), (256, 256), width, 0)  # type: ignore[arg-type]


def test_wrong_numbers_of_neighbours_patterns_and_dtypes_are_refused() -> None:
    with pytest.raises(ParameterError, match="4 or 8"):
        patterns.unbonded_neighbours("SENS2X1:V1", (185, 388), 6)
    with pytest.raises(ParameterError, match="pattern"):
        patterns.neighbours_of(np.zeros((2, 2), bool), 1, "star")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="True = bad"):
        patterns.neighbours_of(np.zeros((2, 2), np.uint8), 1)
    with pytest.raises(DataError, match="integers"):
        status_reasons(np.zeros(2), convention="psana2")
    with pytest.raises(ParameterError, match="'psana1'"):
        status_reasons(np.zeros(2, int), convention="psana3")
