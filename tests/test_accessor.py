"""The accessors: stateless methods, and a repr that helps."""

import inspect
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.accessor import SdDataArray, SdDataset, SdDataTree
from xsmall.errors import ArgumentError, ParameterError
from xsmall.frames.variance import paired


def frames() -> xr.DataArray:
    data = da.zeros((6, 2, 4, 5), chunks=(2, 2, 4, 5), dtype="u2")
    return xr.DataArray(data, dims=("event", "segment", "row", "column"), name="raw")


def methods(accessor: type) -> list[str]:
    return accessor._methods()


@pytest.mark.parametrize("accessor", [SdDataArray, SdDataset, SdDataTree])
def test_every_method_forwards_to_a_documented_function(accessor: type) -> None:
    assert methods(accessor)
    for name in methods(accessor):
        function = getattr(accessor, name)
        assert (function.__doc__ or "").strip(), name


def test_a_method_has_the_signature_of_its_function_without_the_object() -> None:
    from xsmall.reductions.reduce import reduce

    method = frames().sd.reduce
    assert list(inspect.signature(method).parameters) == list(inspect.signature(reduce).parameters)[1:]
    assert method.__doc__ == reduce.__doc__


def test_a_record_method_has_the_signature_of_its_record() -> None:
    method = frames().sd.azint
    assert list(inspect.signature(method).parameters) == list(inspect.signature(xs.azint).parameters)


@pytest.mark.parametrize("name", ["roi", "azint", "droplet", "projection", "lineout", "histogram", "rebin"])
def test_help_of_a_reduction_says_that_a_dataset_comes_back(name: str) -> None:
    method = getattr(frames().sd, name)
    returns = inspect.getdoc(method).split("Returns\n-------\n")[1]
    assert returns.startswith("A Dataset over the events")
    assert str(inspect.signature(method)).endswith("-> xr.Dataset")


def test_annotations_are_shown_without_quotes() -> None:
    assert "'" not in str(inspect.signature(frames().sd.assign_geometry))


def test_completion_offers_what_fits(computing_is_forbidden: Callable[[], Any]) -> None:
    raw = frames()
    small = xr.Dataset({"sum": ("event", np.zeros(3))})
    bins = xr.Dataset({"sum": ("delay", np.zeros(3)), "count": ("delay", np.ones(3, int))})
    with computing_is_forbidden():
        assert {"roi", "calibrate", "average"} <= set(dir(raw.sd))
        assert {"calibrate", "trust"}.isdisjoint(dir((raw * 1.0).sd))
        assert {"image", "plot", "fit_beam"} <= set(dir(raw.isel(event=0).sd))
        assert {"roi", "azint"} <= set(dir(raw.isel(event=0).sd))  # without a label: a picture
        assert "calibrate" not in dir(raw.isel(event=0).sd)
        assert "cube" in dir(small.sd)
        assert {"roi", "difference", "image"}.isdisjoint(dir(small.sd))
        assert "difference" in dir(bins.sd)
        assert "cube" not in dir(bins.sd)
        assert callable(small.sd.roi)  # its error says what is missing


def test_the_repr_says_what_is_there_and_what_to_do_and_computes_nothing(
    computing_is_forbidden: Callable[[], Any],
) -> None:
    with computing_is_forbidden():
        text = repr(frames().sd)
    assert "6 events of 2 x 4 x 5 pixels, uint16" in text
    assert "assign_geometry" in text
    assert "azint" in text


def test_the_repr_of_something_else_says_which_dims_are_needed() -> None:
    assert "reductions need" in repr(xr.DataArray(np.zeros((3, 4)), dims=("y", "x")).sd)


def test_the_repr_of_small_data_names_what_bins_may_be_made_of() -> None:
    small = xr.Dataset({"sum": ("event", np.zeros(3))}, coords={"delay": ("event", np.zeros(3))})
    text = repr(small.sd)
    assert "delay" in text
    assert "cube" in text


def test_a_list_per_event_is_nothing_to_bin_or_select_by() -> None:
    sim = xs.simulate(6, shape=(1, 16, 32), seed=1)
    small = sim.run["jungfrau/raw"].sd.calibrate(sim.constants).sd.reduce({"d": xs.droplet(5, 2)}).compute()
    said = repr(small.sd)
    assert "d_n_droplets" in said
    assert "d_sum" not in said
    for call in (
        lambda: small.sd.select(d_sum=(1, None)),
        lambda: small.sd.cube({"d_sum": xs.bins(0, 10, n=2)}),
        lambda: small.sd.delay(stage="d_sum"),
    ):
        with pytest.raises(ParameterError, match=r"'d_sum' has a list per event") as told:
            call()
    advice = str(told.value).split("do this:")[1].split(", and use")[0]
    one = eval(advice, {"small": small, "np": np})["one"]
    assert one.values[0] == small["d_sum"].values[0].max()
    with pytest.raises(ParameterError, match=r'do this:  io=xs.cut\("i0", ...\)'):
        small.sd.select(io=(1, 2))
    with pytest.raises(ArgumentError, match=r"\.sd\.select\(i0=\.\.\.\)"):
        small.sd.select("i0 > 0.5")


def test_bins_of_a_cube_and_averages_say_that_they_are_reduced() -> None:
    sim = xs.simulate(8, shape=(1, 16, 32), seed=1)
    cal = sim.run["jungfrau/raw"].sd.calibrate(sim.constants)
    bins = sim.run["events"].to_dataset().sd.cube({"laser_on": xs.categories()}, images={"j": cal})["j"]
    said = " ".join(repr(bins.sd).split())
    assert "bins of laser_on 2, each 1 x 16 x 32 pixels" in said
    assert "reductions need" not in said
    for pictures in (bins, cal.sd.average()["calibrated"]):
        assert {"roi", "reduce", "projection", "image"} <= set(dir(pictures.sd))
        assert {"calibrate", "average", "select"}.isdisjoint(dir(pictures.sd))
        assert pictures.sd.roi(xs.Box(segment=0))["sum"].notnull().any()
    one = cal.isel(event=0)
    assert "isel(event=[0]) keeps an event a frame" in " ".join(repr(one.sd).split())
    assert "roi" not in dir(one.sd)
    assert "roi" in dir(cal.isel(event=[0]).sd)


def test_the_accessor_keeps_no_state() -> None:
    assert set(vars(frames().sd)) == {"_obj"}


def test_the_repr_of_frames_with_their_variance_says_so() -> None:
    both = paired(xr.Dataset({"image": frames().astype("f4"), "image_variance": frames().astype("f4")}))
    text = repr(both.sd)
    assert "6 events" in text
    assert "variance: carried through" in text


def test_an_unknown_method_is_an_attribute_error_that_names_those_alike() -> None:
    with pytest.raises(AttributeError, match=r"\.sd has no attribute 'calibarte': did you mean calibrate\?"):
        frames().sd.calibarte  # noqa: B018
    assert not hasattr(frames().sd, "_repr_pretty_")


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda sd: sd.azint(npt=100), "azint(bins=100)"),
        (lambda sd: sd.azint(bin=100), "azint(bins=100)"),
        (lambda sd: sd.azint(unit="q_A^-1"), "azint(quantity=...)"),
        (lambda sd: sd.assign_beam(energy=9500), "assign_beam(photon_energy=9500)"),
        (lambda sd: sd.calibrate(const=3), "calibrate(constants=3)"),
        (lambda sd: sd.roi(), "roi(places)"),
        (lambda sd: sd.azint(zzz=3), "without zzz=: .sd.azint()"),
        (lambda sd: sd.droplet(5, thresholdLow=2), "droplet(5, threshold_low=2)"),
    ],
)
def test_a_wrong_argument_says_which_is_meant_before_anything_runs(call: Any, meant: str) -> None:
    with pytest.raises(xs.XsmallError) as raised:
        call(frames().sd)
    assert isinstance(raised.value, TypeError)
    assert str(raised.value).endswith(meant)
