"""Gain configuration of the ePix10ka: from what the detector was told to bits per pixel in the layout of its frames."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError

_ROWS: Final = 176
_COLUMNS: Final = 192
_ASICS: Final = 4
_GAIN_BITS: Final = 12  # g = 4 and ga = 8; test (1) and mask (2) say nothing about the gain
_TRBIT: Final = 16


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
