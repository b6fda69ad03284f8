"""The variables of a pass, taken out of what its tasks return; what they gathered of all events is joined.

A task of a pass returns all variables of its block in one packet, since one reading makes them all. A lazy array for
each is a task for each variable and block: of a million events and five records some twenty thousand, which take a
scheduler longer than all the rest of planning. Where there are many blocks, small variables are therefore taken out of
a few packets at once.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask._task_spec import Task, TaskRef
from dask.highlevelgraph import HighLevelGraph

from xsmall.engine.promises import checked_variables
from xsmall.engine.record import Output, Totals

__all__ = ["TOTALS", "OutputKey", "Results", "finished", "variables_of"]

OutputKey = tuple[str, str]
"""Name of a record and of its variable."""

Results = dict[OutputKey, npt.NDArray[Any]]
"""Arrays (event, ...) by the name of the record and of its variable."""

TOTALS = ""
"""In the place of a variable: what a record has gathered of all events, which is joined before it is finished."""

_MANY_BLOCKS = 256
_TOGETHER = 4
"""Blocks whose small variables are one chunk. More would be fewer tasks, and make a look at a few events costly."""
_SMALL = 4096
"""Bytes of an event, from which a variable is taken out of each packet by itself."""


def variables_of(
    packed: da.Array, outputs: Mapping[OutputKey, Output], sizes: tuple[int, ...], token: str
) -> dict[OutputKey, da.Array]:
    """Make a lazy array of each variable: (event, ...), or of all events together where it is summed.

    Parameters
    ----------
    packed
        The packets, one to a block of events.
    outputs
        What there is in each.
    sizes
        Events of the blocks.
    token
        Of the pass.
    """
    per_event = {key: o for key, o in outputs.items() if not o.summed}
    small = (
        {key: o for key, o in per_event.items() if _bytes_per_event(o) <= _SMALL} if len(sizes) > _MANY_BLOCKS else {}
    )
    large = {key: o for key, o in per_event.items() if key not in small}
    out = _arrays_of_outputs(packed, large, sizes, token) | _summed_outputs(packed, outputs, token)
    if small:
        if len(small) < len(outputs):  # pictures and sums: what waits for its neighbours is without them
            packed = da.map_blocks(
                _only, packed, keys=tuple(small), dtype=object, meta=np.empty(0, object), name=f"small-{token}"
            )
        together, events = _packets_joined(packed, sizes, token)
        out |= _arrays_of_outputs(together, small, events, token)
    return {key: out[key] for key in outputs}


def _bytes_per_event(output: Output) -> int:
    """Bytes of an event; lists count as small, whatever they hold."""
    return output.array_dtype.itemsize * math.prod(output.array_shape)


def _arrays_of_outputs(
    packed: da.Array, outputs: Mapping[OutputKey, Output], sizes: tuple[int, ...], token: str
) -> dict[OutputKey, da.Array]:
    return {
        key: da.map_blocks(
            _pick,
            packed,
            key=key,
            dtype=output.array_dtype,
            chunks=(sizes, *((n,) for n in output.array_shape)),
            new_axis=list(range(1, 1 + len(output.array_shape))),
            meta=np.empty((0,) * (1 + len(output.array_shape)), dtype=output.array_dtype),
            name=f"{'-'.join(key)}-{token}",
        )
        for key, output in outputs.items()
    }


def _packets_joined(packed: da.Array, sizes: tuple[int, ...], token: str) -> tuple[da.Array, tuple[int, ...]]:
    """Packets of a few blocks each, and the events of each."""
    name = f"together-{token}"
    groups = [range(i, min(i + _TOGETHER, len(sizes))) for i in range(0, len(sizes), _TOGETHER)]
    tasks = {
        (name, j): Task((name, j), _join_packets, *(TaskRef((packed.name, i)) for i in group))
        for j, group in enumerate(groups)
    }
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[packed])
    joined = da.Array(graph, name, chunks=((1,) * len(groups),), dtype=object, meta=np.empty(0, object))
    return joined, tuple(sum(sizes[i] for i in group) for group in groups)


def _only(packet: Any, *, keys: tuple[OutputKey, ...]) -> Results:
    return {key: _pick(packet, key=key) for key in keys}


def _join_packets(*packets: Any) -> Results:
    made = [_made(packet) for packet in packets]
    return {key: np.concatenate([one[key] for one in made]) for key in made[0]}


def _pick(packet: Any, *, key: OutputKey) -> Any:
    return _made(packet)[key]


def _made(packet: Any) -> Results:
    out: Results = packet if isinstance(packet, dict) else packet.item()
    return out


# ---- what is gathered of all events --------------------------------------------------------------------------------


def finished(made: Results, outputs: Mapping[OutputKey, Output]) -> dict[OutputKey, Any]:
    """Variables of all events in the place of what was gathered."""
    out = {key: values for key, values in made.items() if key[1] != TOTALS}
    for (name, variable), totals in made.items():
        if variable == TOTALS:
            found = _finish_totals(totals, name=name, outputs=_of_record(outputs, name))  # type: ignore[arg-type]
            out |= {(name, v): values for v, values in found.items()}
    return out


def _summed_outputs(packed: da.Array, outputs: Mapping[OutputKey, Output], token: str) -> dict[OutputKey, Any]:
    """Join what the blocks have gathered, two and two, and finish it: a task for each, and one array per variable."""
    arrays: dict[OutputKey, Any] = {}
    for name in dict.fromkeys(name for (name, _), output in outputs.items() if output.summed):
        blocks = packed.to_delayed(optimize_graph=False).ravel()
        level = [
            dask.delayed(_pick, pure=False)(b, key=(name, TOTALS), dask_key_name=f"totals-{name}-{token}-{i}")
            for i, b in enumerate(blocks)
        ]
        depth = 0
        while len(level) > 1:
            pairs = [
                dask.delayed(_join_two, pure=False)(*level[i : i + 2], dask_key_name=f"join-{name}-{token}-{depth}-{i}")
                for i in range(0, len(level) - 1, 2)
            ]
            level, depth = pairs + level[len(level) - len(level) % 2 :], depth + 1
        finish = functools.partial(_finish_totals, name=name, outputs=_of_record(outputs, name))
        done = dask.delayed(finish, pure=False)(level[0], dask_key_name=f"finish-{name}-{token}")
        for (other, variable), output in outputs.items():
            if other == name and output.summed:
                one = dask.delayed(operator.getitem, pure=False)(
                    done, variable, dask_key_name=f"{variable}-{name}-{token}"
                )
                arrays[name, variable] = da.from_delayed(
                    one, output.array_shape, dtype=output.dtype, name=f"{name}-{variable}-{token}"
                )
    return arrays


def _join_two(a: Totals, b: Totals) -> Totals:
    return a.joined(b)


def _of_record(outputs: Mapping[OutputKey, Output], name: str) -> dict[str, Output]:
    return {variable: output for (other, variable), output in outputs.items() if other == name}


def _finish_totals(totals: Totals, *, name: str, outputs: Mapping[str, Output]) -> Mapping[str, npt.NDArray[Any]]:
    return checked_variables(name, totals.finish(), outputs)
