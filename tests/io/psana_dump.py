"""Writes all that psana sees in an XTC2 file to a pickle: run as a program, because psana needs its own process.

psana asks for MPI even where it is not used; where there is none, an empty stand-in keeps its import alive.
"""

import os
import pickle
import sys
import types
from unittest.mock import MagicMock

import numpy as np


def stand_in_for_mpi():
    """Keep psana's import alive without MPI."""
    os.environ["PS_PARALLEL"] = "none"
    try:
        from mpi4py import MPI  # noqa: F401
    except (ImportError, RuntimeError):
        stand_in = types.ModuleType("mpi4py")
        stand_in.MPI = MagicMock()
        stand_in.MPI.COMM_WORLD.Get_size.return_value = 1
        stand_in.MPI.COMM_WORLD.Get_rank.return_value = 0
        sys.modules["mpi4py"] = stand_in


def values_of(container, prefix=""):
    """Yield (field, value): enumerations as (value, {number: label})."""
    for name, value in vars(container).items():
        if name == "_xtc":
            continue
        if isinstance(value, int | float | str | np.ndarray | np.generic):
            yield prefix + name, np.copy(value) if isinstance(value, np.ndarray) else value
        elif hasattr(value, "value"):
            yield prefix + name, (value.value, dict(getattr(value, "names", {}) or {}))
        else:
            yield from values_of(value, f"{prefix}{name}.")


def content_of(d):
    for detector, segments in vars(d).items():
        if not isinstance(segments, dict) or detector == "software":
            continue
        for segment, algs in segments.items():
            for alg, container in vars(algs).items():
                if alg not in ("_xtc", "detid", "dettype"):
                    for field, value in values_of(container):
                        yield (detector, segment, alg, field), value


def main(path, out):
    stand_in_for_mpi()
    from psana import dgram

    config = dgram.Dgram(file_descriptor=os.open(path, os.O_RDONLY))
    datagrams, d = [], config
    while True:
        datagrams.append((d.service(), d.timestamp(), dict(content_of(d))))
        try:
            d = dgram.Dgram(config=config)
        except StopIteration:
            break
    with open(out, "wb") as file:
        pickle.dump(datagrams, file)


def run(folder, out):
    """Write time, number of the step and values of each stream for every event of a whole run."""
    stand_in_for_mpi()
    from psana import DataSource
    from psana.psexp import ds_base

    ds_base.DataSourceBase._get_file_info_from_db = lambda self, run: {}  # there is no network to ask
    events = []
    source = DataSource(exp="xpptut15", run=14, dir=folder, skip_calib_load="all")
    for number, step in enumerate(next(source.runs()).steps()):
        for event in step.events():
            streams = [None if d is None else dict(content_of(d)) for d in event._dgrams]
            events.append((event.timestamp, number, streams))
    with open(out, "wb") as file:
        pickle.dump(events, file)


if __name__ == "__main__":
    (run if os.path.isdir(sys.argv[1]) else main)(*sys.argv[1:])
