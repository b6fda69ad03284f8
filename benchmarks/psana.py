"""LCLS-II runs from opening to values, beside psana on the same files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import xsmall as xs
from benchmarks import Case
from benchmarks.reading import FOLDER, by_chunks, open_unknown, write_stream, writer
from xsmall.errors import MissingDependency
from xsmall.io.sources.psana.program import import_psana

EXPERIMENT = "xsmall001"


def streams(name: str, count: int, events: int, rows: int, columns: int) -> Path:
    """Write a run of some streams, each with one segment of a Jungfrau, and their index files."""
    w, folder = writer(), Path(FOLDER.name) / name
    for stream in range(count):
        fields = [("raw", "u2", 3), ("frame_cnt", "u8", 0), ("timestamp", "u8", 0)]
        table = w.Table(0x10, "jungfrau", "raw", fields, segment=stream)
        frame = w.frames(1, 1, rows, columns)
        start = w.start(table, run=1, experiment=EXPERIMENT)
        write_stream(folder, f"{EXPERIMENT}-r0001-s{stream:03d}-c000", start, w.block(table, frame[0], 7, 8), events)
    return folder


def through_psana(folder: Path, value: Callable[[object, object], object]) -> int:
    """Read every event with psana, as its users do."""
    import_psana()
    from psana.psexp.serial_ds import SerialDataSource

    class Offline(SerialDataSource):  # type: ignore[misc]
        def _get_file_info_from_db(self, runnum: int) -> dict[str, object]:
            del runnum
            return {}  # there is no network to ask

    run = next(Offline(exp=EXPERIMENT, run=1, dir=str(folder), skip_calib_load="all").runs())
    detector = run.Detector("jungfrau")
    return sum(value(detector, event) is not None for event in run.events())


def frames_of(folder: Path) -> int:
    """Open the run and read all frames, chunk by chunk as a pass reads them."""
    return by_chunks(open_unknown(folder)["jungfrau/raw"].data)


def numbers_of(folder: Path) -> int:
    """Open the run and read one number of every event."""
    return int(open_unknown(folder)["jungfrau/frame_cnt"].values.size)


def cases(scale: float) -> list[Case]:
    """Frames of four streams, and one number of many events; nothing where psana is not installed."""
    try:
        import_psana()
    except MissingDependency:
        return []
    n, rows, many = max(4, int(100 * scale)), max(16, int(512 * scale)), max(100, int(100_000 * scale))
    large, small = streams("large", 4, n, rows, 1024), streams("many", 1, many, 4, 4)
    frames = xs.open_run(large)["jungfrau/raw"]
    assert frames.shape == (n, 4, rows, 1024)
    raw = partial(through_psana, large, lambda detector, event: detector.raw.raw(event))  # type: ignore[attr-defined]
    number = partial(
        through_psana,
        small,
        lambda _, event: event._dgrams[0].jungfrau[0].raw.frame_cnt,  # type: ignore[attr-defined]
    )
    return [
        Case(f"a run of four streams, {4 * rows * 1024 / 1e6:.2g} Mpixel", lambda: frames_of(large), n, {"psana": raw}),
        Case(f"one number of {many} events", lambda: numbers_of(small), many, {"psana": number}),
    ]
