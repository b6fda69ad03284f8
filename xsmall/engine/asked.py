"""What was asked of the functions that made a result, so that a recipe can ask the same again.

Records remember the call that made them. The attribute ``parameters`` of a result holds these calls as JSON; arrays
that were given (masks, noise) stand there as a token, and the arrays themselves are kept in this process.
"""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from threading import Lock
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

import dask
import numpy as np
import xarray as xr

from xsmall.vocabulary import PEDESTAL

__all__ = [
    "ARRAY",
    "ASKED",
    "FUNCTION",
    "OTHER",
    "Call",
    "Remembering",
    "ask",
    "chained",
    "keep",
    "kept",
    "remember",
    "remembered",
    "said",
    "said_of",
    "tell",
    "told_of",
]

ASKED: Final = "asked"
"""Key of the parameters under which the calls stand."""
ARRAY: Final = "array"
FUNCTION: Final = "function"
OTHER: Final = "other"
_CALL: Final = "_call"
_MOST_KEPT: Final = 64

Tokens: TypeAlias = dict[int, tuple[Any, str]]
"""Arrays by their ``id``, with their tokens: constants of many MB are hashed once, not for each result."""
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_KEPT: OrderedDict[str, Any] = OrderedDict()
_LOCK = Lock()


class Call:
    """A function's name and the arguments it was given, or the calls of a chain. It does not travel with its record."""

    def __init__(self, name: str = "", given: Mapping[str, Any] | None = None, chain: Sequence[Call] = ()) -> None:
        self.name, self.given, self.chain = name, dict(given or {}), tuple(chain)
        self.tokens: Tokens = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Call, ()  # arrays among the arguments would travel with every task


class Remembering:
    """What remembers the call that made it."""

    _call: Call | None = None


def ask(function: Callable[P, R]) -> Callable[P, R]:
    """Let the records that a function makes remember its arguments."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def asking(*args: P.args, **kwargs: P.kwargs) -> R:
        made = function(*args, **kwargs)
        if isinstance(made, Remembering):
            remember(made, function.__name__, signature.bind(*args, **kwargs).arguments)
        return made

    return asking


def remember(made: T, name: str, given: Mapping[str, Any]) -> T:
    """Let a record remember the call that made it."""
    object.__setattr__(made, _CALL, Call(name, given))
    return made


def tell(function: Callable[P, R]) -> Callable[P, R]:
    """Let the arrays that a function returns remember its arguments, the first aside, until they are changed."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> R:
        made = function(*args, **kwargs)
        given = dict(list(signature.bind(*args, **kwargs).arguments.items())[1:])
        arrays = [made] if isinstance(made, xr.DataArray) else list(getattr(made, "data_vars", {}).values())
        for array in arrays:
            array.encoding[ASKED] = Call(function.__name__, given)  # arithmetic drops the encoding
        return made

    return telling


def told_of(array: xr.DataArray) -> Any:
    """The arguments of the function that returned this very array, as JSON; None where it was changed since."""
    call = array.encoding.get(ASKED)
    if not isinstance(call, Call) or not call.name:
        return None
    return {key: said(value, call.tokens) for key, value in call.given.items()}


def chained(first: Remembering, following: Remembering, made: T) -> T:
    """Let what was made of two remember the calls of both."""
    calls = [one._call for one in (first, following)]
    known = [part for call in calls if call is not None for part in (call.chain or (call,))]
    if None not in calls:
        object.__setattr__(made, _CALL, Call(chain=known))
    return made


def remembered(before: Remembering, made: T) -> T:
    """Let another form of a record remember the call of the record."""
    if before._call is not None:
        object.__setattr__(made, _CALL, before._call)
    return made


def said_of(record: Remembering) -> Any:
    """The call of a record as JSON: ``{"kind": name, **arguments}``, a list of them for a chain."""
    call = record._call
    if call is None:
        return said(record)
    made = [
        {"kind": one.name, **{key: said(value, one.tokens) for key, value in one.given.items()}}
        for one in call.chain or (call,)
    ]
    return made if call.chain else made[0]


def said(value: Any, tokens: Tokens | None = None) -> Any:
    """An argument as JSON. What is no number, text or list is a table with one key: its type.

    Arrays are kept under their tokens: those of ``tokens``, to which new ones are added.
    """
    tokens = {} if tokens is None else tokens
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, xr.Dataset):  # which is a mapping too
        return {ARRAY: _keep_once(value, tokens)}
    if isinstance(value, Mapping):
        return {"table": {str(k): said(x, tokens) for k, x in value.items()}}
    if isinstance(value, tuple | list):
        return [said(x, tokens) for x in value]
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iuf":
        return value.tolist()
    if isinstance(value, np.ndarray | xr.DataArray):
        return {ARRAY: _keep_once(value, tokens)}
    if is_dataclass(value) and not isinstance(value, type | Remembering):
        given = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        return {type(value).__name__: {k: said(x, tokens) for k, x in given.items() if x is not None}}
    if callable(value) and hasattr(value, "__qualname__"):
        return {FUNCTION: f"{value.__module__}:{value.__qualname__}"}
    return {OTHER: repr(value)[:200]}


def _keep_once(value: Any, tokens: Tokens) -> str:
    _, token = tokens.setdefault(id(value), (value, ""))
    tokens[id(value)] = value, keep(value, token or None)
    return tokens[id(value)][1]


def keep(value: Any, token: str | None = None) -> str:
    """Keep something in this process, and return the token by which it is found."""
    if token is None:
        of = value[PEDESTAL] if isinstance(value, xr.Dataset) and PEDESTAL in value else value  # tables of many MB
        token = dask.base.tokenize(getattr(of, "variables", getattr(of, "variable", of)))
    with _LOCK:
        _KEPT[token] = value
        _KEPT.move_to_end(token)
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    return token


def kept(token: str) -> Any:
    """What was kept under a token; None where this process does not know it."""
    with _LOCK:
        return _KEPT.get(token)
