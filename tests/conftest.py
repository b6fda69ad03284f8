"""Fixtures that several test modules share."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest
from hypothesis import settings

# Compiling takes seconds: no deadlines. On a CI machine the examples are the same each time.
settings.register_profile("xsmall", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("xsmall")


def _shared_folder() -> Path | None:
    """Where reference data lie: ``XSMALL_TEST_DATA``, or ``shared`` beside the checkout."""
    named = os.environ.get("XSMALL_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with ``data/`` and ``oracles/``; the test is skipped where it is not there."""
    folder = _shared_folder()
    if folder is None:
        pytest.skip("reference data not found: put them at ../shared or set XSMALL_TEST_DATA")
    return folder


@pytest.fixture
def no_compute() -> Iterator[None]:
    """Fail when anything computes a dask graph during the test."""
    with forbid_compute():
        yield


@contextmanager
def forbid_compute() -> Iterator[None]:
    """Make every dask computation inside the block an error."""

    def refuse(dsk: object, keys: object, **kwargs: object) -> None:
        raise AssertionError("something computed that had to stay lazy")

    with dask.config.set(scheduler=refuse):
        yield


@pytest.fixture
def computing_is_forbidden() -> Callable[[], object]:
    """Give the context manager :func:`forbid_compute` to a test that computes elsewhere."""
    return forbid_compute
