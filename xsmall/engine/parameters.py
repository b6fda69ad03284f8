"""What a result was made with, as JSON in the attribute ``parameters``: each step holds those of the step before."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from xsmall.vocabulary import PARAMETERS

_LONG_TUPLE = re.compile(r"\((?:[^()\[\],]+, ){8,}[^()\[\],]+\)")


def short_repr(value: object) -> str:
    """``repr`` with long tuples of numbers told by their ends: the coordinates of a result hold them all."""
    return _LONG_TUPLE.sub(_ends_of_tuple, repr(value))


def _ends_of_tuple(match: re.Match[str]) -> str:
    numbers = match.group()[1:-1].split(", ")
    return f"({numbers[0]}, {numbers[1]}, ... {len(numbers)} numbers ..., {numbers[-1]})"


def parameters_of(attrs: Mapping[Any, Any]) -> Any:
    """Read the parameters of an earlier step from its attributes; None where there are none."""
    text = attrs.get(PARAMETERS)
    return None if text is None else json.loads(text)


def parameters_attr(function: str, before: Mapping[str, Any], **said: Any) -> dict[str, str]:
    """Make the attribute: the function, what it was told, and under their names the steps before it."""
    known = {name: step for name, step in before.items() if step is not None}
    return {PARAMETERS: json.dumps({"function": function, **said, **known})}
