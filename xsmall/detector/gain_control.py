"""Gain configuration of ePix detectors: from what the detector was told to bits per pixel in the layout of frames."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError

_ROWS: Final = 176
_COLUMNS: Final = 192
_ASICS: Final = 4
_GAIN_BITS: Final = 12  # g = 4 and ga = 8; test (1) and mask (2) say nothing about the gain
_TRBIT: Final = 16
_KEPT: Final = _GAIN_BITS | _TRBIT
_PIXEL_CONFIG: Final = "asicPixelConfig"
_PANEL_CONFIG: Final = "cbitsConfig"
_TRBITS: Final = "trbit"
_CODE_OF_ASIC: Final = "gainAsic"
_CODE_OF_PIXEL: Final = "gainCSVAsic"
CONTROL_FIELDS: Final = frozenset({_PIXEL_CONFIG, _PANEL_CONFIG, _TRBITS, _CODE_OF_ASIC, _CODE_OF_PIXEL})
"""Fields of a configuration that tell the gain of pixels."""
_FLAT: Final[Mapping[str, tuple[tuple[int, ...], ...]]] = MappingProxyType(
    {"epixhr2x2": ((1, 3), (0, 2)), "epixhr1x4": ((0, 1, 2, 3),)}
)
"""Where in a frame the ASICs lie whose configuration comes as one array of the frame's layout."""
_FLAT_ASIC: Final = (144, 192)
_UHR_ASIC: Final = (168, 192)


def gain_control(pixel_config: npt.NDArray[Any], trbit: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Assemble the gain control bits of ePix10ka panels from the configuration of their ASICs.

    Parameters
    ----------
    pixel_config
        Configuration word of each pixel, (..., 4 ASICs, 176 or 178 rows, 192 columns); rows beyond 176 are the
        calibration rows of the ASIC, which the frame does not have.
    trbit
        Transition bit of each ASIC, (..., 4): 0 or not.

    Returns
    -------
    numpy.ndarray
        uint8 (..., 352, 384): 4 (g) and 8 (ga) as configured, plus 16 where the ASIC's trbit is set. With bit 32 for
        the gain bit of the raw word, the value names the gain range of a pixel.

    Raises
    ------
    DataError
        The arrays are not those of four ASICs.

    Notes
    -----
    Seen like the frame, ASIC 2 is top left and ASIC 1 top right, both turned by 180 degrees; ASIC 3 is bottom left
    and ASIC 0 bottom right, as they are. Source: psana2, ``detector/UtilsEpix10ka.py``. Costs a few copies.

    Examples
    --------
    >>> import numpy as np
    >>> bits = gain_control(np.full((4, 178, 192), 12), np.array([1, 0, 0, 0]))
    >>> bits.shape, int(bits[0, 0]), int(bits[351, 383])
    ((352, 384), 12, 28)
    """
    config, bits = np.asarray(pixel_config), np.asarray(trbit)
    shape = config.shape[-3:]
    if len(shape) < 3 or shape[0] != _ASICS or shape[1] not in (_ROWS, _ROWS + 2) or shape[2] != _COLUMNS:
        raise DataError(
            "this is not the pixel configuration of an ePix10ka panel",
            found=f"shape {config.shape}",
            expected="(..., 4, 176 or 178, 192)",
        )
    if bits.shape != config.shape[:-2]:
        raise DataError(
            "trbit and pixel configuration are not of the same ASICs",
            found=f"trbit of shape {bits.shape}",
            expected=f"{config.shape[:-2]}",
        )
    asics = (config[..., :_ROWS, :].astype(np.uint8) & _GAIN_BITS) | np.where(bits, _TRBIT, 0)[..., None, None].astype(
        np.uint8
    )
    a0, a1, a2, a3 = (asics[..., k, :, :] for k in range(_ASICS))
    top = np.concatenate([a2[..., ::-1, ::-1], a1[..., ::-1, ::-1]], axis=-1)
    bottom = np.concatenate([a3, a0], axis=-1)
    return np.concatenate([top, bottom], axis=-2)


def configured_control(kind: str, config: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8] | None:
    """Gain control bits of each pixel from the fields of a configuration, however its firmware brings them.

    Parameters
    ----------
    kind
        Name of the detector type, as :data:`~xsmall.detector.types.DETECTOR_TYPES` has it.
    config
        Arrays by the name of the field, steps and segments in front.

    Returns
    -------
    uint8 (..., row, column), as :func:`~xsmall.calibration.tables.control_stages` reads them; None where the
    configuration does not say them.

    Notes
    -----
    ePix10ka: ``asicPixelConfig`` of four ASICs and ``trbit``, or ``cbitsConfig`` of the panel, which has both. ePixHR:
    ``asicPixelConfig`` of the panel and ``trbit``. ePixUHR: ``gainAsic``, and where that is 0 ``gainCSVAsic``. Source:
    psana2, ``detector/UtilsEpix10ka.py`` and ``UtilsEpixUHR.py``.

    Examples
    --------
    >>> import numpy as np
    >>> bits = configured_control("epixhr2x2", {"asicPixelConfig": np.zeros(110592), "trbit": np.array([0, 1, 0, 0])})
    >>> bits.shape, int(bits[0, 0]), int(bits[287, 0])
    ((288, 384), 16, 0)
    """
    if kind == "epix10ka" and _PANEL_CONFIG in config:
        panel = config[_PANEL_CONFIG]
        return _bits(panel, _KEPT) if panel.shape[-2:] == (2 * _ROWS, 2 * _COLUMNS) else None
    if kind == "epixuhr":
        return _uhr_control(config.get(_CODE_OF_ASIC), config.get(_CODE_OF_PIXEL))
    pixels, trbit = config.get(_PIXEL_CONFIG), config.get(_TRBITS)
    if pixels is None or trbit is None or trbit.shape[-1:] != (_ASICS,):
        return None
    if kind == "epix10ka":
        fits = pixels.ndim >= 3 and pixels.shape[-3] == _ASICS and pixels.shape[-1] == _COLUMNS
        return gain_control(pixels, trbit) if fits and pixels.shape[-2] in (_ROWS, _ROWS + 2) else None
    return _flat_control(pixels, trbit, _FLAT[kind]) if kind in _FLAT else None


def _bits(values: npt.NDArray[Any], kept: int) -> npt.NDArray[np.uint8]:
    out: npt.NDArray[np.uint8] = values.astype(np.uint8) & np.uint8(kept)
    return out


def _flat_control(
    pixels: npt.NDArray[Any], trbit: npt.NDArray[Any], places: tuple[tuple[int, ...], ...]
) -> npt.NDArray[np.uint8] | None:
    """Bits of a panel that is configured as a whole, with the trbit of the ASIC that each pixel lies in."""
    shape = len(places) * _FLAT_ASIC[0], len(places[0]) * _FLAT_ASIC[1]
    lead = trbit.shape[:-1]
    if pixels.shape not in ((*lead, shape[0] * shape[1]), (*lead, *shape)):
        return None
    of_asic = np.where(trbit[..., np.array(places)], np.uint8(_TRBIT), np.uint8(0))
    of_pixels = np.repeat(np.repeat(of_asic, _FLAT_ASIC[0], axis=-2), _FLAT_ASIC[1], axis=-1)
    out: npt.NDArray[np.uint8] = _bits(pixels.reshape(*lead, *shape), _GAIN_BITS) | of_pixels
    return out


def _uhr_control(of_asic: npt.NDArray[Any] | None, of_pixel: npt.NDArray[Any] | None) -> npt.NDArray[np.uint8] | None:
    """Control words of six ASICs in the layout of the frame: three flipped left to right over three upside down."""
    if of_asic is None or of_pixel is None or of_pixel.size != of_asic.size * _UHR_ASIC[0] * _UHR_ASIC[1]:
        return None
    if of_asic.shape[-1:] != (6,):
        return None
    code = of_asic[..., None, None]
    word = np.where(code > 0, code, of_pixel.reshape(*of_asic.shape, *_UHR_ASIC)).astype(np.uint8)
    return assemble_uhr(word)


def assemble_uhr(asics: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Assemble what the six ASICs of an ePixUHR panel hold to the layout of its frame.

    Parameters
    ----------
    asics
        (..., 6, 168, 192).

    Returns
    -------
    (..., 336, 576): ASICs 0, 1, 2, each with its columns reversed, over 3, 4, 5, each with its rows reversed.
    """
    top = [asics[..., k, :, ::-1] for k in range(3)]
    bottom = [asics[..., k, ::-1, :] for k in range(3, 6)]
    return np.concatenate([np.concatenate(top, axis=-1), np.concatenate(bottom, axis=-1)], axis=-2)
