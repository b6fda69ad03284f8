"""From raw frames to calibrated ones: calibrate, trust, darks, common modes."""
