"""Run by test_psana_calibration in a process of its own: calibrate an XTC2 file with psana and given constants.

python psana_calib.py FILE DETECTOR CONSTANTS.npz OUT.npz [KEYWORDS OF CALIB AS JSON]
"""

import json
import sys

import numpy as np
from psana import DataSource

path, name, constants, out = sys.argv[1:5]
keywords = json.loads(sys.argv[5]) if len(sys.argv) > 5 else {}
given = np.load(constants)
about = {"experiment": "none", "run": 0, "run_end": "end", "detector": name}
held = {key: (given[key], about) for key in given.files}
run = next(DataSource(files=[path], skip_calib_load="all").runs())
detector = run.Detector(name)
raws, calibs = [], []
for event in run.events():
    detector.raw._calibconst = held
    raws.append(np.array(detector.raw.raw(event)))
    calibs.append(np.array(detector.raw.calib(event, **keywords)))
np.savez(out, raw=np.stack(raws), calib=np.stack(calibs))
