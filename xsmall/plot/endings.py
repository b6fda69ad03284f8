"""Endings of the pictures that can be drawn."""

from __future__ import annotations

from pathlib import Path

from xsmall.errors import ParameterError

__all__ = ["with_ending_of_a_picture"]


def with_ending_of_a_picture(path: Path) -> Path:
    """Return the path of a picture that can be drawn, before anything is computed for it.

    Raises
    ------
    ParameterError
        Another ending.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in known:
        raise ParameterError(
            "the ending of the path says the format of a picture",
            found=path.name,
            expected=" ".join(f".{ending}" for ending in known),
            fix=f"{path.stem}.png",
        )
    return path
