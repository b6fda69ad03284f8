"""Run by test_psana_database in a process of its own: open constants through psana, and calibrate with both.

python psana_database.py FILE DETECTOR OUT.npz, with LCLS_CALIB_HTTP set
"""

import sys

import numpy as np
from psana import DataSource

import xsmall as xs
from xsmall.errors import CalibrationError

path, name, out = sys.argv[1:4]
run = next(DataSource(files=[path]).runs())
detector = run.Detector(name)
calib = np.stack([np.array(detector.raw.calib(event)) for event in run.events()])
of_detector = xs.open_constants(detector)
raw = xs.open_run(path)[name]["raw"]
results = {"calib": calib, "ours": xs.calibrate(raw, of_detector).values, "raw_attrs": repr(raw.attrs)}
for number in (3, 7, 15, 17, 21):
    found = xs.open_constants("psana", detector=detector.raw._uniqueid, experiment=run.expt, run=number)
    results |= {f"{variable}_{number}": found[variable].values for variable in ("pedestal", "gain")}
    results |= {f"run_range_{number}": found.attrs["run_range"], f"ids_{number}": found.attrs["segment_ids"]}
for case, arguments in {
    "unknown": {"detector": "jungfrau_nobody", "experiment": run.expt, "run": 7},
    "no_experiment": {"detector": detector.raw._uniqueid, "experiment": "none", "run": 7},
}.items():
    try:
        results[case] = repr(xs.open_constants("psana", **arguments))
    except CalibrationError as error:
        results[case] = str(error)
np.savez(out, **results)
