"""Masks that say why, on whole detectors, slices and stacks."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, GeometryError, ParameterError
from xsmall.frames.beam import assign_beam
from xsmall.frames.mask import inside
from xsmall.frames.pixels import assign_geometry
from xsmall.vocabulary import PIXEL_DIMS, Reason

CSPAD = "IP 0 CSPAD 0 0 0 100000 90 0 0 0 0 0\nCSPAD 0 SENS2X1:V1 {} 0 0 0 0 0 0 0 0 0"


def cspad(n: int = 2) -> xs.Geometry:
    head, line = CSPAD.split("\n")
    return xs.Geometry.from_psana("\n".join([head, *(line.format(i) for i in range(n))]))


def frames(geometry: xs.Geometry, n_events: int = 3) -> xr.DataArray:
    data = np.zeros((n_events, *geometry.shape), dtype=np.float32)
    return assign_geometry(xr.DataArray(data, dims=("event", *PIXEL_DIMS)), geometry)


@pytest.fixture(scope="module")
def oracle(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "oracles" / "masks.npz") as file:
        return {name: file[name] for name in file.files}


def test_psana_words_give_psana_pixels(oracle: dict[str, np.ndarray]) -> None:
    words = {1: "edges", 2: "central", 4: "unbond", 8: "unbondnbrs", 16: "unbondnbrs8"}
    for bits in (1, 2, 3, 4, 8, 12, 16, 31):
        for width, central in ((1, 1), (3, 2)):
            key = f"p1_SENS2X1_V1_mbits{bits}_w{width}_u{central}"
            if key in oracle:
                asked = {name: True for bit, name in words.items() if bits & bit}
                widths = ({"width": width} if bits & 1 else {}) | ({"wcentral": central} if bits & 2 else {})
                flags = xs.psana_mask(cspad(), **asked, **widths)
                for segment in flags:
                    np.testing.assert_array_equal(segment == 0, oracle[key] == 1, err_msg=key)


def test_status_is_merged_over_the_gain_stages_that_psana_merges(oracle: dict[str, np.ndarray]) -> None:
    status = oracle["status_in"]  # of seven gain stages, the last two derived
    data = xr.DataArray(np.zeros(status.shape[1:]), dims=PIXEL_DIMS)
    labelled = xr.DataArray(status, dims=("gain_stage", *PIXEL_DIMS))
    for given in (status, labelled, xr.Dataset({"status": labelled}), xr.Dataset({"status": labelled[:3]})):
        stages = "012" if isinstance(given, xr.Dataset) and given.sizes["gain_stage"] == 3 else "01234"
        np.testing.assert_array_equal(xs.psana_mask(data, status=given) == 0, oracle[f"p2_status_merge_{stages}"] == 1)


def test_pixel_mask_of_constants_is_calib_and_no_status() -> None:
    status = np.zeros((3, 1, 6, 7), dtype=np.uint64)
    status[0, 0, 1, 1], status[2, 0, 2, 2], status[:, 0, 3, 3] = 1, 1 << 15, 1 << 14  # status, status_extra, pixel_mask
    constants = xr.Dataset({"status": (("gain_stage", *PIXEL_DIMS), status)})
    panel = xs.Panel((0, 0, 0.1), (0, -1e-4, 0), (1e-4, 0, 0), (6, 7))
    data = assign_geometry(xr.DataArray(np.zeros((1, 6, 7)), dims=PIXEL_DIMS), xs.Geometry.from_panels([panel]))

    def bad(**words: object) -> list[list[int]]:
        return np.argwhere(xs.psana_mask(data, **words).values[0]).tolist()  # type: ignore[arg-type]

    assert bad(status=constants) == [[1, 1], [2, 2]]
    assert bad(calib=constants) == [[3, 3]]
    masks = xs.smalldata_masks(data, status=constants, calib=constants)
    held = [bool(masks[name][0, 3, 3] != 0) for name in ("status_mask", "mask", "cmask")]
    assert held == [False, False, True]
    with pytest.raises(DataError, match="pixel_mask"):
        xs.psana_mask(data, calib=xr.Dataset())


def test_our_own_word_for_unbonded_pixels_takes_the_corner_that_psana_leaves() -> None:
    psana = xs.usable(xs.psana_mask(cspad(1), unbondnbrs=True))
    ours = xs.usable(xs.mask(cspad(1), unbonded=True, unbonded_neighbours=4))
    assert np.argwhere((psana != ours).values).tolist() == [[0, 0, 0], [0, 0, 194]]
    assert not ours[0, 0, 0]


def test_gain_stages_and_regions_that_are_none_are_refused() -> None:
    with pytest.raises(ParameterError, match="numbers"):
        xs.mask(cspad(1), status=np.zeros((3, 1, 185, 388), int), gain_stages="a")
    with pytest.raises(ParameterError, match="not a region"):
        inside(cspad(1), 3)  # type: ignore[arg-type]


def test_neighbours_need_something_whose_neighbours_they_are() -> None:
    with pytest.raises(ParameterError, match="neighbours of which"):
        xs.mask(cspad(1), neighbours=2)


def test_smalldata_masks_are_unions_of_psana_words(oracle: dict[str, np.ndarray]) -> None:
    geometry = cspad(1)
    rng = np.random.default_rng(1)
    status = rng.choice([0, 0, 0, 0, 4, 1 << 20], geometry.shape).astype(np.uint32)
    calib = rng.choice([0, 1, 1, 1], geometry.shape)
    masks = xs.smalldata_masks(geometry, status=status, calib=calib)
    good = (status & 0xFFFF) == 0
    np.testing.assert_array_equal(masks.status_mask == 0, good)
    edges_central = oracle["p1_SENS2X1_V1_mbits3_w1_u1"] & oracle["p1_SENS2X1_V1_mbits8_w1_u1"]
    np.testing.assert_array_equal(masks["mask"] == 0, good & (edges_central == 1))
    np.testing.assert_array_equal(masks.cmask == 0, good & (edges_central == 1) & (calib == 1))
    without = xs.smalldata_masks(geometry, mask_central=False)["mask"]
    edges = oracle["p1_SENS2X1_V1_mbits1_w1_u1"] & oracle["p1_SENS2X1_V1_mbits8_w1_u1"]
    np.testing.assert_array_equal(without[0] == 0, edges == 1)


def test_masks_of_psana_take_status_that_names_its_bits() -> None:
    geometry = cspad(1)
    words = np.zeros((3, *geometry.shape), np.uint32)
    words[0, 0, 5, 6], words[2, 0, 7, 8] = 1, 1 << 16
    named = {"flag_masks": [1, 1 << 16], "flag_meanings": "dead bad_gain_code"}
    constants = xr.Dataset({"status": (("gain_stage", *PIXEL_DIMS), words, named)})
    found = xs.smalldata_masks(geometry, status=constants)["status_mask"]
    assert np.argwhere(found.values).tolist() == [[0, 5, 6], [0, 7, 8]]
    assert int(found[0, 5, 6]) == Reason.DEAD


def test_flags_name_their_reasons_and_follow_cf() -> None:
    flags = xs.mask(cspad(), edges=1, central=1, unbonded=True, unbonded_neighbours=4)
    assert flags.dims == PIXEL_DIMS
    assert flags.dtype == np.uint32
    names = dict(zip(flags.attrs["flag_meanings"].split(), flags.attrs["flag_masks"].tolist(), strict=True))
    assert names["edge"] == Reason.EDGE
    assert int(flags[0, 10, 10]) == Reason.UNBONDED
    assert int(flags[0, 11, 10]) == Reason.UNBONDED_NEIGHBOUR
    assert int(flags[0, 0, 0]) == Reason.EDGE | Reason.UNBONDED
    assert int(flags[1, 50, 193]) == Reason.CENTRAL


def test_reasons_that_count_are_chosen_by_name() -> None:
    flags = xs.mask(cspad(), edges=1, central=1)
    edge, central = (flags & int(Reason.EDGE)) != 0, (flags & int(Reason.CENTRAL)) != 0
    np.testing.assert_array_equal(xs.usable(flags), ~(edge | central))
    np.testing.assert_array_equal(xs.usable(flags, ["edge"]), ~edge)
    np.testing.assert_array_equal(xs.usable(flags, ignore=["edge"]), ~central)
    np.testing.assert_array_equal(xs.usable(flags, [Reason.CENTRAL, "edge"], ignore="edge"), ~central)
    assert xs.usable(flags).dtype == np.bool_
    with pytest.raises(ParameterError, match="dead"):
        xs.usable(flags, ["edges"])
    with pytest.raises(DataError, match="uint32"):
        xs.usable(flags == 0)


def test_choosing_reasons_is_lazy(no_compute: None) -> None:
    lazy = xr.DataArray(da.zeros((4, 2), dtype=np.uint32, chunks=1), dims=("event", "segment"))
    assert isinstance(xs.usable(lazy).data, da.Array)


def test_a_mask_of_a_slice_is_the_slice_of_the_mask() -> None:
    data = frames(cspad())
    labels = {d: data[d] for d in PIXEL_DIMS}
    rng = np.random.default_rng(2)
    status = xr.DataArray(rng.choice([0] * 50 + [1], data.shape[1:]), labels, PIXEL_DIMS)
    user = rng.random(data.shape[1:]) > 0.1
    region = xs.Circle((0.0, 0.0), 5e-3)
    given = xr.DataArray(user, labels, PIXEL_DIMS)
    asked = {"edges": (2, 3), "central": 1, "unbonded": True, "status": status, "neighbours": (2, "disk")}
    whole = xs.mask(data, **asked, user=given, shadow=region)
    for cut in (
        {"segment": [1]},
        {"row": slice(3, 90, 4), "column": slice(180, 200)},
        {"segment": slice(None, None, -1)},
    ):
        part = xs.mask(data.isel(cut), **asked, user=given, shadow=region)
        xr.testing.assert_equal(part.drop_vars(["x", "y", "z"]), whole.isel(cut).drop_vars(["x", "y", "z"]))
    cut = {"row": slice(10, 60), "column": slice(20, 50)}
    of_part = xs.mask(data.isel(cut), user=user[:, 10:60, 20:50])
    np.testing.assert_array_equal(of_part == 0, user[:, 10:60, 20:50])
    labelled = given.isel(row=slice(0, 100))
    np.testing.assert_array_equal(xs.mask(data.isel(cut), user=labelled) == 0, user[:, 10:60, 20:50])
    with pytest.raises(DataError, match="does not cover every row"):
        xs.mask(data, user=labelled)


def test_status_of_the_stages_that_count_becomes_reasons_and_grows_to_neighbours() -> None:
    status = np.zeros((3, 2, 20, 30), dtype=np.uint64)
    status[0, 0, 5, 5], status[2, 1, 7, 7] = 1, 2
    data = xr.DataArray(np.zeros((1, 2, 20, 30)), dims=("event", *PIXEL_DIMS))
    constants = xr.Dataset({"status": (("gain_stage", *PIXEL_DIMS), status)}, attrs={"detector_type": "jungfrau"})
    flags = xs.mask(data, status=constants, status_convention="psana2", neighbours=1)
    assert int(flags[0, 5, 5]) == Reason.NOISY
    assert int(flags[1, 7, 7]) == Reason.DEAD
    assert int(flags[0, 5, 6]) == Reason.NEIGHBOUR_OF_BAD
    assert int((flags == int(Reason.NEIGHBOUR_OF_BAD)).sum()) == 8
    assert int((xs.mask(data, status=constants, gain_stages=[0]) != 0).sum()) == 1
    assert int((xs.mask(data, status=constants, status_bits=2) != 0).sum()) == 1
    assert int(xs.mask(data, status=status[0])[0, 5, 5]) == Reason.OTHER_STATUS
    with pytest.raises(ParameterError, match="stages"):
        xs.mask(data, status=constants, gain_stages=[3])


def test_status_with_named_bits_says_its_reasons_itself() -> None:
    words = xr.DataArray(np.array([[[1, 2, 4, 8]]]), dims=PIXEL_DIMS)
    words.attrs = {"flag_masks": np.array([1, 2, 4]), "flag_meanings": "noisy edge something"}
    data = xr.DataArray(np.zeros((1, 1, 4)), dims=PIXEL_DIMS)
    flags = xs.mask(data, status=words).values.ravel()
    assert flags.tolist() == [Reason.NOISY, Reason.EDGE, Reason.OTHER_STATUS, Reason.OTHER_STATUS]


def test_regions_are_the_inside_and_masks_the_outside() -> None:
    data = frames(cspad(1))
    region = xs.Circle((0.0, 0.0), 3e-3)
    held = inside(data, region)
    np.testing.assert_array_equal(xs.usable(xs.mask(data, shadow=region)), ~held)
    np.testing.assert_array_equal(xs.usable(xs.mask(data, user=held)), held)
    q = inside(assign_beam(data, photon_energy=9500, distance=0.1), xs.Band("q", 0.1, 0.3))
    assert 0 < int(q.sum()) < q.size


def test_panels_of_one_segment_that_touch_in_memory_have_joins() -> None:
    def panel(row: int, column: int) -> xs.Panel:
        at = (1e-3 * column, 1e-3 * row, 0.1)
        return xs.Panel(at, (0, 1e-4, 0), (1e-4, 0, 0), (4, 6), segment=0, row=row, column=column)

    geometry = xs.Geometry.from_panels([panel(0, 0), panel(0, 6), panel(4, 0), panel(4, 6)])
    flags = xs.mask(geometry, edges=1, central=1)[0]
    expected = np.zeros((8, 12), dtype=bool)
    expected[3:5], expected[:, 5:7] = True, True
    np.testing.assert_array_equal((flags & int(Reason.CENTRAL)) != 0, expected)
    assert int(((flags & int(Reason.EDGE)) != 0).sum()) == 36


def test_invalid_arguments_are_refused() -> None:
    data = frames(cspad(1))
    bare = xr.DataArray(np.zeros((1, 4, 4)), dims=PIXEL_DIMS)
    with pytest.raises(GeometryError, match="need a geometry"):
        xs.mask(bare, edges=1)
    with pytest.raises(GeometryError, match="need a geometry"):
        xs.mask(bare, shadow=xs.Circle((0, 0), 1))
    with pytest.raises(ParameterError, match="good or bad"):
        xs.mask(bare, user=np.ones((1, 4, 4), dtype=int))
    with pytest.raises(DataError, match="another shape"):
        xs.mask(bare, user=np.ones((4, 4), dtype=bool))
    with pytest.raises(DataError, match="other dims"):
        xs.mask(bare, user=xr.DataArray(np.ones((4, 4), dtype=bool), dims=("row", "column")))
    with pytest.raises(DataError, match="for a geometry or for frames"):
        xs.mask(bare.isel(segment=0))
    with pytest.raises(ParameterError, match="width"):
        xs.mask(data, edges=1.5)
    with pytest.raises(DataError, match="'status'"):
        xs.mask(data, status=xr.Dataset())
