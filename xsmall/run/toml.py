"""TOML text of tables: the few kinds of values that recipes have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["toml_of"]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def toml_of(tables: Mapping[str, Any]) -> str:
    """Write tables as TOML: tables of tables get a heading, the innermost are written in one line.

    Examples
    --------
    >>> print(toml_of({"source": "run.zarr", "detectors": {"epix": {"mask": {"edges": 1}, "average": True}}}))
    source = "run.zarr"
    <BLANKLINE>
    [detectors.epix]
    mask = {edges = 1}
    average = true
    <BLANKLINE>
    """
    return "\n".join(_toml_lines(tables, ())) + "\n"


def _toml_lines(table: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[str]:
    own = {key: value for key, value in table.items() if not _has_heading(value, len(above))}
    if above and (own or not table):
        yield f"\n[{'.'.join(map(_toml_key, above))}]"
    for key, value in own.items():
        if value is not None:
            yield f"{_toml_key(key)} = {_toml_value(value)}"
    for key, value in table.items():
        if key in own:
            continue
        if isinstance(value, list):
            for one in value:
                yield f"\n[[{'.'.join(map(_toml_key, (*above, key)))}]]"
                yield from (f"{_toml_key(k)} = {_toml_value(x)}" for k, x in one.items() if x is not None)
        else:
            yield from _toml_lines(value, (*above, key))


def _has_heading(value: Any, depth: int) -> bool:
    """Whether a table gets a heading: that of a detector, and below it where it holds tables, such as reductions."""
    if depth == 0 and isinstance(value, list) and value and isinstance(value[0], Mapping):
        return True
    deep = isinstance(value, Mapping) and any(isinstance(one, Mapping) for one in value.values())
    return isinstance(value, Mapping) and (depth < 2 or (depth == 2 and deep))


def _toml_key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{_toml_key(str(k))} = {_toml_value(x)}" for k, x in value.items() if x is not None) + "}"
        )
    return "[" + ", ".join(map(_toml_value, value)) + "]"
