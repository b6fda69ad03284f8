"""From raw words to calibrated frames: constants, gain decoding, common mode, darks, and which pixels to trust."""
