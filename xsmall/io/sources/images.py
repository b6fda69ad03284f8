"""Single images as frames: CBF, EDF, TIFF and whatever else fabio reads."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.base import tokenize

from xsmall.engine.faults import unreadable
from xsmall.errors import DamagedDataError, FileFormatError, MissingDependency
from xsmall.io.files import Identity, identify, open_file
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.tiff import compressed_page, is_tiff, pages_in

__all__ = ["ImageFiles", "images_as_frames"]

_COUNTED_BY_HEADER = ("CbfImage", "EdfImage")


def _fabio() -> Any:
    try:
        import fabio
    except ImportError:
        raise MissingDependency.of("fabio", "images", "reading single images") from None
    return fabio


class _Errors(logging.Handler):
    """What fabio logs as an error in this thread: it fills what it cannot read with zeros and says so there only."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.found.append(record.getMessage())


@contextmanager
def _errors_raised() -> Iterator[None]:
    handler, logger = _Errors(), logging.getLogger("fabio")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if handler.found:
        raise OSError(handler.found[0])


class ImageFiles:
    """Images of files as (event, segment, row, column), each read when it is indexed."""

    def __init__(self, files: tuple[Identity, ...], frames: tuple[int, ...], like: npt.NDArray[Any]) -> None:
        self.files = files
        self.starts = np.concatenate([[0], np.cumsum(frames)])
        self.dtype = like.dtype.newbyteorder("=")
        self.shape = (int(self.starts[-1]), 1, *like.shape)
        self.ndim = len(self.shape)
        self.storage_events = 1

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (type(self).__qualname__, self.files, self.starts.tolist())

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read; each part of ``key`` is an integer, a slice or a 1-D array of positions (outer indexing)."""
        keys = list(key) if isinstance(key, tuple) else [key]
        keys += [slice(None)] * (self.ndim - len(keys))
        events = np.atleast_1d(np.arange(self.shape[0])[keys[0]])
        out = np.empty((events.size, *self.shape[1:]), self.dtype)
        for place, event in enumerate(events.tolist()):
            out[place, 0] = self._image(event)
        for axis, k in reversed(list(enumerate(keys))):
            if axis and not (isinstance(k, slice) and k == slice(None)):
                out = out[(slice(None),) * axis + (k,)]
        return out[0] if np.ndim(keys[0]) == 0 and not isinstance(keys[0], slice) else out

    def _image(self, event: int) -> Any:
        number = int(np.searchsorted(self.starts, event, side="right")) - 1
        file = self.files[number]
        open_file(file)  # says so if it is another one now
        try:
            data = _read(Path(file.path), event - int(self.starts[number]), int(np.diff(self.starts)[number]))
            if data.shape != self.shape[2:] or not np.can_cast(data.dtype, self.dtype):
                raise ValueError(f"{data.dtype} {data.shape} among images of {self.dtype} {self.shape[2:]}")
            return data
        except Exception as error:  # of fabio, which has many
            told = DamagedDataError(
                f"{file.path}: this image cannot be read",
                found=f"{type(error).__name__}: {error}",
                expected=f"an image of {self.shape[2]} x {self.shape[3]} pixels",
                fix="leave the file out",
            )
            return unreadable(told, self.dtype)


def _read(path: Path, number: int, count: int | None = None) -> npt.NDArray[Any]:
    """Read one image of a file, which has to have as many as its header said."""
    page = compressed_page(path, number) if is_tiff(path) else None
    if page is not None:
        return page
    with _errors_raised(), _fabio().open(str(path)) as image:
        if count is not None and image.nframes != count:
            raise ValueError(f"{image.nframes} images, where its header said {count}")
        return np.asarray(image.get_frame(number).data)


def images_as_frames(paths: tuple[Path, ...], chunks: int | str | None) -> da.Array:
    """Open images one behind the other, lazily.

    Raises
    ------
    FileFormatError
        The first is no image, or a header cannot be read.
    MissingDependency
        fabio is not installed.

    Notes
    -----
    Cost: the first image is read, and of each file the header (CBF, EDF, TIFF); of other formats the first image of
    each file, since their headers do not say how many there are. An image that is not the first one of its file is
    read with that one.
    """
    fabio = _fabio()
    try:
        like = _read(paths[0], 0)
    except Exception as error:
        raise FileFormatError(f"{paths[0]}: no image", found=f"{type(error).__name__}: {error}") from error
    if like.ndim != 2 or like.dtype.kind not in "iuf":
        raise FileFormatError(f"{paths[0]}: no image of one number per pixel", found=f"{like.dtype} {like.shape}")
    frames = tuple(_frames_in(fabio, path) for path in paths)
    array = ImageFiles(tuple(identify(path) for path in paths), frames, like)
    n = events_per_chunk(like.nbytes, chunks)
    meta = np.empty((0,) * array.ndim, array.dtype)
    return da.from_array(array, (n, *array.shape[1:]), name=f"images-{tokenize(array, n)}", meta=meta)


def _frames_in(fabio: Any, path: Path) -> int:
    """How many images a file has. Headers of some formats (NumPy) tell of the first alone: those are opened."""
    try:
        if is_tiff(path):
            return pages_in(path)
        with _errors_raised(), fabio.openheader(str(path)) as header:
            if type(header).__name__ in _COUNTED_BY_HEADER:
                return int(header.nframes)
        with _errors_raised(), fabio.open(str(path)) as image:
            return int(image.nframes)
    except Exception as error:
        raise FileFormatError(f"{path}: no image", found=f"{type(error).__name__}: {error}") from error
