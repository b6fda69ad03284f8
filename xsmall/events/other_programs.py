"""What other programs take: tables of pandas, awkward arrays, signals of hyperspy."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import numpy as np
import xarray as xr

from xsmall.errors import DataError, MissingDependency, ParameterError
from xsmall.events.ragged import flatten, list_counts
from xsmall.vocabulary import EVENT, IMAGE_X, IMAGE_Y, SAMPLE_DIMENSION, UNITS

__all__ = ["to_awkward", "to_hyperspy", "to_pandas"]


def to_awkward(small: xr.Dataset) -> Any:
    """Give the lists of small data as an awkward array of records, one entry an event.

    Parameters
    ----------
    small
        Small data with lists, in either form.

    Returns
    -------
    ``ak.Array`` of the length of ``event``, with a field for each variable over ``event`` alone and one for each list.

    Raises
    ------
    MissingDependency
        The package awkward is not installed.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> found = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.droplet(threshold=4.0)
    >>> photons = xs.to_awkward(found)  # doctest: +SKIP
    """
    try:
        import awkward
    except ImportError:
        raise MissingDependency.of("awkward", "awkward", "an array of lists") from None
    flat = flatten(_small_data(small))
    counts = {str(c.attrs[SAMPLE_DIMENSION]): c.values.ravel() for c in list_counts(flat)}
    fields: dict[str, Any] = {}
    for name, v in flat.variables.items():
        if v.dims == (EVENT,):
            fields[str(name)] = v.values
        elif len(v.dims) == 1 and v.dims[0] in counts and not str(name).endswith(f"_{EVENT}"):
            fields[str(name)] = awkward.unflatten(v.values, counts[str(v.dims[0])])
    return awkward.zip(fields, depth_limit=1)


def to_pandas(small: xr.Dataset, dim: str | None = None) -> Any:
    """Give lists as a table of pandas, a row for each entry; or all that has one value per event, a row for each.

    Parameters
    ----------
    small
        Small data, with lists in either form.
    dim
        Which lists, such as ``"droplet"``; ``"event"`` for what has one value per event. Not needed where there is one
        kind of lists, or none.

    Returns
    -------
    ``pandas.DataFrame`` indexed by ``event``: a column for each variable over that dim alone.

    Raises
    ------
    DataError
        Several kinds of lists and none was named, or one that is not there; data without labels of events.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> found = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.droplet(threshold=4.0)
    >>> xs.to_pandas(found).index.name
    'event'
    """
    import pandas

    flat = flatten(_small_data(small))
    dims = [str(c.attrs[SAMPLE_DIMENSION]) for c in list_counts(flat)]
    if dim is None and len(dims) < 2:
        dim = dims[0] if dims else EVENT
    if dim == EVENT:
        if EVENT not in flat.indexes:
            n = flat.sizes.get(EVENT, 1)
            raise DataError(
                "no labels of events",
                found=f"dims {tuple(map(str, flat.dims))}",
                expected=f"small data with an index {EVENT!r}",
                fix=f".expand_dims('event') for one event; .assign_coords(event=range({n})) for events without labels",
            )
        columns = {str(n): v.values for n, v in flat.variables.items() if v.dims == (EVENT,) and n != EVENT}
        return pandas.DataFrame(columns, index=pandas.Index(flat[EVENT].values, name=EVENT))
    if dim not in dims:
        raise DataError(
            "which lists?",
            found=f"dim={dim!r}; lists of {dims}",
            expected="one of them, or 'event'",
            fix=f"dim={(dims or [EVENT])[0]!r}",
        )
    label = f"{dim}_{EVENT}"
    columns = {str(n): v.values for n, v in flat.variables.items() if v.dims == (dim,) and n not in (label, dim)}
    return pandas.DataFrame(columns, index=pandas.Index(flat[label].values, name=EVENT))


def to_hyperspy(data: xr.DataArray) -> Any:
    """Give pictures, spectra or curves as a signal of hyperspy, with their axes.

    Parameters
    ----------
    data
        Pictures (..., image_y, image_x) of :func:`~xsmall.image`, or any array: its last dim is then that of the
        signal, as ``q`` of azimuthal integrals is. The other dims are walked through. Lazy data are computed.

    Returns
    -------
    ``Signal2D`` of pictures, else ``Signal1D``. An axis has the values and the unit of its coordinate where that is a
    number, else it counts.

    Raises
    ------
    MissingDependency
        The package hyperspy is not installed.
    ParameterError
        Data without a dim.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.calibrate(sim.constants)
    >>> signal = xs.to_hyperspy(cal.sd.image())  # doctest: +SKIP
    """
    try:
        from hyperspy import api
    except ImportError:
        raise MissingDependency.of("hyperspy", "hyperspy", "a signal of hyperspy") from None
    given: Any = data
    if isinstance(given, xr.Dataset):
        names = [str(name) for name, v in given.data_vars.items() if v.dims]
        raise DataError(
            "a signal is made of one array",
            found=f"a Dataset of {', '.join(names)}",
            expected="a DataArray",
            fix=f"xs.to_hyperspy(data[{(names or ['image'])[0]!r}])",
        )
    if not data.dims:
        raise ParameterError("a signal needs a dim", found="one number", expected="pictures, spectra or curves")
    two = data.dims[-2:] == (IMAGE_Y, IMAGE_X)
    across = data.dims[-2:] if two else data.dims[-1:]
    kind = api.signals.Signal2D if two else api.signals.Signal1D
    return kind(data.values, axes=[{**_hyperspy_axis(data, dim), "navigate": dim not in across} for dim in data.dims])


def _small_data(small: Any) -> xr.Dataset:
    """Small data, or an error that says what to do with anything else."""
    if isinstance(small, xr.DataArray):
        raise DataError(
            "tables are made of small data",
            found=f"an array over {tuple(map(str, small.dims))}",
            expected="a Dataset over events",
            fix='data.to_dataset(name="value"), or of frames data.sd.reduce({"waxs": xs.azint(bins=500)})',
        )
    if EVENT not in small.dims and not list_counts(small) and EVENT not in small.coords:
        raise DataError(
            "there are no events in it",
            found=f"dims {tuple(map(str, small.dims))}",
            expected="small data: variables over events",
            fix="data.to_dataframe() makes a table of a cube",
        )
    return cast(xr.Dataset, small)


def _hyperspy_axis(data: xr.DataArray, dim: Hashable) -> dict[str, Any]:
    """One axis in the words of hyperspy: evenly spaced, with a value for each place, or counting."""
    out: dict[str, Any] = {"name": str(dim), "size": data.sizes[dim]}
    if dim not in data.coords or data[dim].dtype.kind not in "iuf":
        return out
    values = data[dim].values.astype(np.float64)
    steps = np.diff(values)
    in_units = {**out, "units": str(data[dim].attrs.get(UNITS, ""))}
    if steps.size and np.allclose(steps, steps[0], rtol=1e-6, atol=0):
        return {**in_units, "offset": float(values[0]), "scale": float((values[-1] - values[0]) / steps.size)}
    ordered = steps.size and ((steps > 0).all() or (steps < 0).all())
    return {**in_units, "axis": values} if ordered else out
