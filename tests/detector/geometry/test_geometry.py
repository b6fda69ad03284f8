"""Geometry: positions against psana's numbers, the rule as a value, and what bad text does."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.detector.geometry.formats.crystfel import to_crystfel
from xsmall.detector.geometry.geometry import Geometry, Panel, PixelAxis
from xsmall.detector.geometry.psana import format_psana, parse_psana
from xsmall.detector.geometry.rotation import rotation
from xsmall.detector.geometry.segments import segment_type
from xsmall.errors import FileFormatError, GeometryError, XsmallError

DETECTORS = ("cspad", "epix100a", "epix10kaquad", "jungfrau05M", "jungfrau1M", "jungfrau4M")
TWO = """# a comment
CAM 0 MTRX:V2:4:6:75:75 0  1000.5 0 0  90 0 0  0.1 0 0
CAM 0 MTRX:V2:4:6:75:75 1 -1000.5 0 0   0 0 0  0 0 0.2
IP  0 CAM 0  0 0 100000  0 0 0  0 0 0
"""


def text_of(*lines: str) -> str:
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("wide", ["nominal", "true"])
@pytest.mark.parametrize("detector", DETECTORS)
def test_positions_equal_those_of_psana(shared: Path, detector: str, wide: str) -> None:
    known = np.load(shared / f"oracles/geometry/psana2-{detector}{'-wpc' if wide == 'true' else ''}.npz")
    geometry = Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data", wide_pixels=wide)  # type: ignore[arg-type]
    assert geometry.shape == tuple(known["shape"])
    lab = geometry.positions() * 1e6
    psana = -lab[..., 1], -lab[..., 0], -lab[..., 2]
    sample = np.ix_(range(geometry.shape[0]), known["sub_rows"], known["sub_cols"])
    for ours, name in zip((*psana, lab[..., 0]), ("sub_x", "sub_y", "sub_z", "lab_sub_x"), strict=True):
        np.testing.assert_allclose(ours[sample], known[name], rtol=0, atol=1e-6)
    stats = [[v.min(), v.max(), v.mean(), v.std()] for v in psana]
    np.testing.assert_allclose(stats, known["stats"], rtol=0, atol=1e-6)
    assert geometry.distance * 1e6 == pytest.approx(-known["stats"][2, 2], abs=1e-6)


@pytest.mark.parametrize("detector", DETECTORS)
def test_areas_and_asics_equal_those_of_psana_where_psana_is_right(shared: Path, detector: str) -> None:
    known = np.load(shared / f"oracles/geometry/psana2-{detector}.npz")
    kind = segment_type(Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data").panels[0].name)
    area = np.multiply.outer(kind.rows.sizes(), kind.columns.sizes())
    if kind.name == "JUNGFRAU:V2":  # psana2 counts upwards there
        assert sorted(np.unique(area)) == [1, 2, 4]
        assert (area == 4).sum() == 2 * 6
    else:
        np.testing.assert_allclose(area, known["seg_area"])
    if "asic0" in known:
        assert kind.asic_corners == tuple(map(tuple, known["asic0"]))
        assert kind.asic_shape == tuple(known["asic_rc"])


def test_rows_of_epixhr1x4_are_evenly_spaced() -> None:
    kind = segment_type("EPIXHR1X4:V1")
    assert kind.origin == (-38825.0, 7150.0)
    assert set(np.diff(kind.rows.centres())) == {1.0}
    assert [float(d) for d in np.diff(kind.columns.centres()) if d != 1] == [4.5, 3.5, 4.5]


def test_true_centres_of_epixuhr3x2_move_the_pixels_at_the_joins() -> None:
    nominal, true = (segment_type("EPIXUHR3X2:V1", wide_pixels=w).columns.centres() for w in ("nominal", "true"))
    moved = np.flatnonzero(nominal != true)
    assert moved.tolist() == [191, 192, 383, 384]
    np.testing.assert_allclose((true - nominal)[moved] * 100, [81.25, -81.25, 81.25, -81.25])


def test_wide_pixels_fill_the_join_and_sit_in_the_middle_of_their_borders() -> None:
    for name in ("SENS2X1:V1", "EPIX100:V1", "EPIX10KA:V1", "EPIXHR2X2:V1", "EPIXUHR3X2:V1", "JUNGFRAU:V2"):
        for axis in (segment_type(name, wide_pixels="true").rows, segment_type(name, wide_pixels="true").columns):
            edges = axis.edges()
            np.testing.assert_allclose(edges[1:, 0], edges[:-1, 1], atol=1e-12)
            np.testing.assert_allclose(edges.mean(axis=1), axis.centres(), atol=1e-12)


def of_segment(name: str, **options: object) -> Geometry:
    text = text_of(f"CAM 0 {name} 0 0 0 0 0 0 0 0 0 0", "IP 0 CAM 0 0 0 100000 0 0 0 0 0 0")
    return Geometry.from_psana(text, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "psana", "gap", "area"),
    [("EPIX10KA:V1", None, 350, 2.25), ("EPIX10KA:V1", 2, 350, 2.25), ("EPIX10KA:V1", 1, 400, 2.5)]
    + [("EPIX10KA:V2", psana, 350, 2.25) for psana in (None, 1, 2)],
)
def test_wide_pixels_of_an_epix10ka_are_those_of_the_psana_the_file_is_for(
    name: str, psana: int | None, gap: float, area: float
) -> None:
    geometry = of_segment(name, psana=psana)
    across = -geometry.positions()[0, 0, 191:193, 1] * 1e6  # psana's x along the columns
    np.testing.assert_allclose(np.diff(across), gap)
    np.testing.assert_allclose(geometry.areas()[0, 0, 191] / 1e-8, area)
    back = Geometry.from_psana(Geometry(geometry.panels, geometry.shape).to_psana(), psana=psana)  # type: ignore[arg-type]
    np.testing.assert_allclose(back.positions(), geometry.positions(), atol=1e-12)


def test_a_text_with_a_type_that_only_psana1_knows_is_one_of_psana1() -> None:
    both = text_of(
        "CAM 0 EPIX10KA:V1 0 0 0 0 0 0 0 0 0 0",
        "CAM 0 EPIX10KA:V2 1 50000 0 0 0 0 0 0 0 0",
        "IP 0 CAM 0 0 0 100000 0 0 0 0 0 0",
    )
    x = -Geometry.from_psana(both).positions()[:, 0, :, 1] * 1e6
    np.testing.assert_allclose(np.diff(x)[:, 191], [400, 350])


def test_a_jungfrau_of_psana1_has_nominal_centres_and_the_same_borders() -> None:
    old, new = of_segment("JUNGFRAU:V2", psana=1), of_segment("JUNGFRAU:V2")
    assert of_segment("JUNGFRAU:V2", psana=1, wide_pixels="true") == new
    x = -old.positions()[0, 0, :, 1] * 1e6
    np.testing.assert_allclose(x[[0, 255, 256, 1023]], 75 * np.array([-514.5, -259.5, -256.5, 514.5]))
    moved = np.flatnonzero(abs(old.positions() - new.positions())[0, 0].max(axis=-1) > 30e-6)
    assert set(moved.tolist()) == {255, 256, 511, 512, 767, 768}
    np.testing.assert_allclose(old.corners(), new.corners(), atol=1e-12)


def test_an_unknown_version_of_psana_is_refused() -> None:
    with pytest.raises(GeometryError, match="version of psana"):
        of_segment("EPIX10KA:V1", psana=3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Geometry.from_psana(None),
        lambda: Geometry.from_psana(b"IP"),
        lambda: Geometry.from_panels([1, 2]),
        lambda: Geometry.from_panels([]),
        lambda: Panel((0, 0, 0), (0, 1, 0), (1, 0, 0), "ab"),
        lambda: Panel((0, 0, 0), (0, 1, 0), (1, 0, 0), (2.5, 2)),
        lambda: Panel("abc", (0, 1, 0), (1, 0, 0), (2, 2)),
        lambda: to_crystfel(of_segment("EPIX100:V1"), layout="stack"),
    ],
)
def test_what_is_no_geometry_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(XsmallError):
        make()


def test_the_convention_of_wide_pixels_does_not_stick_to_later_geometries() -> None:
    nominal = of_segment("EPIX100:V1").positions()
    true = of_segment("EPIX100:V1", wide_pixels="true").positions()
    np.testing.assert_array_equal(of_segment("EPIX100:V1").positions(), nominal)
    np.testing.assert_allclose(abs(true - nominal).max() * 1e6, 62.5)


def test_archon_has_no_positions_where_columns_are_no_pixels() -> None:
    text = text_of("CAM 0 ARCHON:V2 0 0 0 0 0 0 0 0 0 0", "IP 0 CAM 0 0 0 0 0 0 0 0 0 0")
    geometry = Geometry.from_psana(text, segment_shape=(3, 4800))
    assert geometry.shape == (1, 3, 4800)
    x = -geometry.positions()[0, :, :, 1] * 1e6  # psana's x
    assert np.isnan(x).reshape(3, 16, 300).sum(axis=-1).tolist() == [[36] * 16] * 3
    real = x[0][np.isfinite(x[0])]
    np.testing.assert_allclose(np.diff(real), 10)
    assert real[0] == pytest.approx(-real[-1])
    assert np.isnan(x[0, :36]).all()


def test_matrices_of_the_first_version_start_in_pixel_0_with_rows_along_x() -> None:
    text = text_of("CAM 0 MTRX:3:5:20:30.5 0 0 0 0 0 0 0 0 0 0", "IP 0 CAM 0 0 0 0 0 0 0 0 0 0")
    at = Geometry.from_psana(text).positions()[0] * 1e6
    np.testing.assert_allclose(-at[2, 4, 1], 2 * 20)
    np.testing.assert_allclose(-at[2, 4, 0], 4 * 30.5)


def test_json_and_pickle_give_back_an_equal_geometry(shared: Path) -> None:
    for detector in DETECTORS:
        geometry = Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data")
        for back in (Geometry.from_json(geometry.to_json()), pickle.loads(pickle.dumps(geometry))):
            assert back == geometry
            assert hash(back) == hash(geometry)
            assert back.token == geometry.token
            assert back.text == geometry.text
            np.testing.assert_array_equal(back.positions(), geometry.positions())


def test_the_token_is_the_same_in_another_process_and_fits_into_int64() -> None:
    geometry = Geometry.from_psana(TWO)
    code = "import sys, xsmall; print(xsmall.Geometry.from_psana(sys.argv[1]).token)"
    other = subprocess.run([sys.executable, "-c", code, TWO], capture_output=True, text=True, check=True)
    assert int(other.stdout) == geometry.token
    assert 0 <= geometry.token < 2**63
    assert Geometry.from_psana(TWO.replace("# a comment", "# another")).token == geometry.token
    assert Geometry.from_psana(TWO.replace("1000.5", "1000.6")).token != geometry.token


def test_z_below_the_interaction_point_is_along_the_beam_whatever_its_sign() -> None:
    assert Geometry.from_psana(TWO).distance == pytest.approx(0.1)
    assert Geometry.from_psana(TWO.replace(" 100000", " -100000")) == Geometry.from_psana(TWO)


@given(st.lists(st.floats(-180, 180), min_size=3, max_size=3))
def test_rotations_keep_lengths_and_handedness(angles: list[float]) -> None:
    turn = rotation(*angles)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)


@given(st.integers(-8, 8))
def test_quarter_turns_are_exact(quarters: int) -> None:
    assert set(np.abs(rotation(90 * quarters, -90 * quarters, 90 * quarters)).ravel()) <= {0.0, 1.0}


def test_objects_written_as_text_read_back_exactly() -> None:
    objects = parse_psana(TWO)
    assert [o.matrix().tolist() for o in parse_psana(format_psana(objects))] == [o.matrix().tolist() for o in objects]
    assert [o.position for o in parse_psana(format_psana(objects))] == [o.position for o in objects]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TWO.replace("1000.5 0 0", "1000.5 0"), "line 2: wrong number of fields"),
        (TWO.replace("1000.5 0 0", "nan 0 0", 1), "line 2: a number that is not finite"),
        (TWO.replace("1000.5 0 0", "1O 0 0", 1), "line 2: not a number"),
        (TWO.replace("MTRX:V2:4:6:75:75", "MTRX:V2:4:6:75"), "line 2: unknown segment type"),
        (TWO.replace("MTRX:V2:4:6:75:75", "WHATEVER:V1", 1), "line 2: unknown segment type"),
        (TWO.replace("MTRX:V2:4:6:75:75", "MTRX:V2:4:6:75:0"), "no size"),
        (TWO.replace("MTRX:V2:4:6:75:75", "MTRX:V2:0:6:75:75"), "invalid length"),
        (TWO.replace("MTRX:V2:4:6:75:75 1", "MTRX:V2:4:7:75:75 1"), "different shapes"),
        (TWO.replace("IP  0 CAM", "CAM 0 CAM"), "do not form one tree"),
        (TWO + "A 0 B 0" + " 0" * 9 + "\nB 0 A 0" + " 0" * 9, "circle"),
        (TWO + "IP2 0 CAM 0" + " 0" * 9, "placed twice"),
        (TWO + "TOP 0 EPIX100:V1 0" + " 0" * 9, "one tree"),
        ("# nothing\n", "no object"),
    ],
)
def test_bad_text_raises_one_error_that_names_the_line(text: str, says: str) -> None:
    with pytest.raises(GeometryError, match=says):
        Geometry.from_psana(text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no_such_file"):
        Geometry.from_psana(tmp_path / "no_such_file.data")


fields = st.sampled_from(
    ["IP", "CAM", "A", "0", "1", "-1", "EPIX100:V1", "MTRX:V2:2:3:75:75", "nan", "1e400", "#", "ä"]
)
lines = st.lists(fields, min_size=0, max_size=15).map(" ".join)
tree_lines = st.tuples(
    st.sampled_from(["IP", "A", "B", "C", "MTRX:V2:2:3:75:75"]),
    st.integers(0, 1),
    st.sampled_from(["A", "B", "C", "MTRX:V2:2:3:75:75", "JUNGFRAU:V2"]),
    st.integers(0, 2),
).map(lambda t: " ".join(map(str, t)) + " 0" * 9)


@settings(max_examples=200)
@given(st.lists(lines | tree_lines | st.text(max_size=30), max_size=12))
def test_any_text_gives_a_geometry_or_an_error_of_ours(rows: list[str]) -> None:
    try:
        geometry = Geometry.from_psana("\n".join([*rows, ""]) + "\n")
    except XsmallError:
        return
    assert np.isfinite(geometry.positions()).any()


@given(st.text(max_size=60) | st.just(json.dumps({"format": "xsmall geometry", "version": 1})))
def test_any_json_gives_a_geometry_or_an_error_of_ours(rule: str) -> None:
    with pytest.raises(XsmallError):
        Geometry.from_json(rule)


def test_panels_that_share_pixels_or_lie_outside_are_refused() -> None:
    panel = Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8), segment=0)
    with pytest.raises(GeometryError, match="share pixels"):
        Geometry.from_panels([panel, panel])
    with pytest.raises(GeometryError, match="outside"):
        Geometry.from_panels([panel], shape=(1, 4, 7))
    with pytest.raises(GeometryError, match="others do not"):
        Geometry.from_panels([panel, Panel(origin=(0, 0, 0.1), slow=(0, 1, 0), fast=(1, 0, 0), shape=(4, 8))])
    with pytest.raises(GeometryError, match="made of panels"):
        Geometry.from_panels([])
    with pytest.raises(GeometryError, match="invalid size"):
        Geometry.from_panels([panel], shape=(2**20, 64, 64))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.integers(0, 9), st.integers(1, 4)), max_size=6))
def test_panels_are_refused_exactly_when_they_share_a_pixel(blocks: list[tuple[int, int, int, int]]) -> None:
    blocks = [*blocks, (20, 1, 20, 1)]
    count = np.zeros((21, 21), int)
    for row, rows, column, columns in blocks:
        count[row : row + rows, column : column + columns] += 1
    at = {"origin": (0, 0, 0.1), "slow": (0, 1e-4, 0), "fast": (1e-4, 0, 0), "segment": 0}
    panels = [Panel(**at, shape=(b[1], b[3]), row=b[0], column=b[2]) for b in blocks]  # type: ignore[arg-type]
    if count.max() > 1:
        with pytest.raises(GeometryError, match="share pixels"):
            Geometry.from_panels(panels)
    else:
        assert np.isfinite(Geometry.from_panels(panels).positions()[0, ..., 0]).sum() == count.sum()


@pytest.mark.parametrize(
    "wrong",
    [
        {"slow": (1e-4, 0, 0)},
        {"fast": (0, 0, 0)},
        {"origin": (float("nan"), 0, 0)},
        {"origin": (0, 0)},
        {"shape": (0, 8)},
        {"rows": PixelAxis(5)},
        {"row": -1},
    ],
)
def test_invalid_panels_are_refused(wrong: dict[str, object]) -> None:
    right = {"origin": (0, 0, 0.1), "slow": (0, 1e-4, 0), "fast": (1e-4, 0, 0), "shape": (4, 8)}
    with pytest.raises(GeometryError):
        Panel(**(right | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("detector", ["cspad", "epix10kaquad", "jungfrau4M"])
def test_psf_vectors_equal_those_of_psana_where_asics_begin_with_regular_pixels(shared: Path, detector: str) -> None:
    known = np.load(shared / f"oracles/geometry/psana2-{detector}.npz")["psf_lab"]
    psf = Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data").psf() * 1e6
    assert psf.shape == known.shape
    regular = slice(None)
    if detector == "jungfrau4M":  # true centres: psana's vectors of ASICs that begin with a wide pixel are 112.5 um
        regular = slice(None, None, 8)
        np.testing.assert_allclose(np.linalg.norm(psf[:, 1:], axis=-1), 75, rtol=1e-12)
    np.testing.assert_allclose(psf[regular], known[regular], rtol=0, atol=1e-6)


@pytest.mark.parametrize("detector", DETECTORS)
def test_regular_pixels_follow_from_the_psf_vectors_of_their_asic(shared: Path, detector: str) -> None:
    geometry = Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data")
    at, areas = geometry.positions(), geometry.areas()
    regular = areas < 1.01 * areas.min()
    for asic, (position, slow, fast) in zip(geometry.asics(), geometry.psf(), strict=True):
        r, c = np.indices(asic.shape)
        made = position + r[..., None] * slow + c[..., None] * fast
        np.testing.assert_allclose(made[regular[asic.memory]], at[asic.memory][regular[asic.memory]], atol=1e-13)


def test_corners_surround_true_centres_and_span_the_area(shared: Path) -> None:
    geometry = Geometry.from_psana(shared / "data/geometry/geometry-def-epix10kaquad.data", wide_pixels="true")
    corners = geometry.corners()
    np.testing.assert_allclose(corners.mean(axis=-2), geometry.positions(), atol=1e-15)
    diagonals = corners[..., 2, :] - corners[..., 0, :], corners[..., 3, :] - corners[..., 1, :]
    np.testing.assert_allclose(np.linalg.norm(np.cross(*diagonals), axis=-1) / 2, geometry.areas(), rtol=1e-9)


@pytest.mark.parametrize("detector", DETECTORS)
def test_psana_text_is_written_back_to_the_letter(shared: Path, detector: str) -> None:
    text = (shared / f"data/geometry/geometry-def-{detector}.data").read_text()
    geometry = Geometry.from_psana(text)
    assert geometry.to_psana() == text
    assert Geometry.from_json(geometry.to_json()).to_psana() == text


@pytest.mark.parametrize("wide", ["nominal", "true"])
@pytest.mark.parametrize("detector", DETECTORS)
def test_a_geometry_without_text_is_written_as_panels_that_read_back(shared: Path, detector: str, wide: str) -> None:
    path = shared / f"data/geometry/geometry-def-{detector}.data"
    geometry = Geometry.from_psana(path, wide_pixels=wide)  # type: ignore[arg-type]
    bare = Geometry.from_panels(geometry.panels)
    back = Geometry.from_psana(bare.to_psana(), wide_pixels=wide)  # type: ignore[arg-type]
    assert back.shape == geometry.shape
    np.testing.assert_allclose(back.positions(), geometry.positions(), rtol=0, atol=1e-12)


@given(st.tuples(*[st.floats(-170, 170)] * 3), st.floats(-0.1, 0.1), st.floats(1e-5, 1e-3))
def test_any_flat_panel_goes_through_psana_text(angles: tuple[float, float, float], x: float, pitch: float) -> None:
    turn = rotation(*angles)
    panel = Panel(origin=(x, 0.01, 0.2), slow=tuple(turn[0] * pitch), fast=tuple(turn[1] * 1e-4), shape=(3, 5))
    geometry = Geometry.from_panels([panel, panel])
    back = Geometry.from_psana(geometry.to_psana())
    np.testing.assert_allclose(back.positions(), geometry.positions(), rtol=0, atol=1e-12)


def test_several_panels_in_a_segment_cannot_be_said_to_psana() -> None:
    left = Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8), segment=0)
    right = Panel(origin=(1, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8), segment=0, column=8)
    with pytest.raises(GeometryError, match="one flat panel per segment"):
        Geometry.from_panels([left, right]).to_psana()
