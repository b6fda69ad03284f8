"""Names and memory that a cube needs, looked at before anything is averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import xarray as xr
from dask.utils import format_bytes

from xsmall.engine.machine import machine
from xsmall.errors import ParameterError, PlanError
from xsmall.vocabulary import BIN_EDGE, BINNED_EVENTS, BOUNDS_SUFFIX, COUNT, EVENT, GEOMETRY, REPLICA

__all__ = ["check_dims", "check_names_of_bins", "check_room", "check_variables"]

_TAKEN: Final = (EVENT, COUNT, BIN_EDGE, BINNED_EVENTS, REPLICA, GEOMETRY)
"""Names that mean something else in a cube."""
_BYTES: Final = 64
"""Of each value of each bin: the accumulator, another one that is merged into it, and results."""


def check_names_of_bins(names: Iterable[str]) -> None:
    """Refuse to bin by what has a name that the cube needs itself."""
    given = list(names)
    for name in given:
        if name in _TAKEN or any(name == f"{other}{BOUNDS_SUFFIX}" for other in given):
            raise ParameterError(
                f"a cube cannot have bins of the name {name!r}",
                found=name,
                expected="another name: it means something else there",
                fix=f'small.assign(by_{name}=("{EVENT}", small["{name}"].values)), and bins of "by_{name}"',
            )


def check_dims(what: str, dims: Iterable[Any], names: Sequence[str]) -> None:
    """Refuse data over a dim of the name of the bins."""
    for dim in dims:
        if dim in names:
            raise ParameterError(
                f"{what} have a dim of the name of the bins",
                found=repr(dim),
                expected="bins of another name",
                fix=f'small.assign(by_{dim}=("{EVENT}", small["{dim}"].values)), and bins of "by_{dim}"',
            )


def check_room(
    n_bins: int, variables: Mapping[str, xr.Variable], memory: int | None = None, *, replicas: int = 1
) -> None:
    """Refuse more bins of variables (event, ...) than fit into memory; pictures have a plan of their own.

    Raises
    ------
    PlanError
        They do not fit.
    """
    has = machine(memory).memory
    each = {name: math.prod(n for d, n in x.sizes.items() if d != EVENT) for name, x in variables.items()}
    name, values = max(each.items(), key=lambda of: of[1], default=(COUNT, 1))
    needs = replicas * n_bins * max(values, 1) * _BYTES
    if needs > has:
        fewer = has // (replicas * max(values, 1) * _BYTES)
        raise PlanError(
            "this cube does not fit into memory",
            found=f"{n_bins} bins" + (f" in {replicas} replicas" if replicas > 1 else "") + f" of {values} values of "
            f"{name!r}: {format_bytes(needs)}",
            expected=f"at most {format_bytes(has)}",
            fix=f"at most {fewer} bins over all dims" if fewer else f"leave {name!r} out: small.drop_vars({name!r})",
        )


def check_variables(variables: Mapping[str, xr.Variable], result: xr.Dataset) -> None:
    """Refuse variables of a cube whose names or dims clash with its bins and labels, or with each other.

    Parameters
    ----------
    variables
        What was made.
    result
        The cube without them: bins, labels, and what stays.
    """
    sizes: dict[Any, int] = dict(result.sizes)
    dims = {d for x in variables.values() for d in x.dims} | set(sizes)
    for name, variable in variables.items():
        if name in result.variables or name in dims or (name in _TAKEN and name != COUNT):
            raise ParameterError(
                f"{name!r} would be there twice", found="a variable and a coordinate", fix="rename one"
            )
        for dim, n in zip(variable.dims, variable.shape, strict=True):
            if sizes.setdefault(dim, n) != n:
                raise ParameterError(
                    f"{name} does not go with the others into one cube",
                    found=f"{n} along {dim!r}, elsewhere {sizes[dim]}",
                    fix="a cube for each detector",
                )
