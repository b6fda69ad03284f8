"""Run by test_psana_database in a process of its own: open constants through psana, and calibrate with both.

python psana_database.py FILE DETECTOR OUT.npz, with LCLS_CALIB_HTTP set
"""

import sys

import numpy as np

import xsmall as xs
from xsmall.errors import CalibrationError
from xsmall.io.sources.psana.program import import_psana

DataSource = import_psana().DataSource

path, name, out = sys.argv[1:4]
run = next(DataSource(files=[path]).runs())
detector = run.Detector(name)
calib = np.stack([np.array(detector.raw.calib(event)) for event in run.events()])
of_detector = xs.open_constants(detector)
raw = xs.open_run(path)[name]["raw"]
results = {"calib": calib, "ours": xs.calibrate(raw, of_detector).values, "raw_attrs": repr(raw.attrs)}
for number in (3, 7, 15, 17, 21):
    found = xs.open_constants(f"exp={run.expt},run={number}", detector=detector.raw._uniqueid)
    results |= {f"{variable}_{number}": found[variable].values for variable in ("pedestal", "gain")}
    results |= {f"run_range_{number}": found.attrs["run_range"], f"ids_{number}": found.attrs["segment_ids"]}
for case, (named, of) in {
    "unknown": (f"exp={run.expt},run=7", "jungfrau_nobody"),
    "no_experiment": ("exp=none,run=7", detector.raw._uniqueid),
}.items():
    try:
        results[case] = repr(xs.open_constants(named, detector=of))
    except CalibrationError as error:
        results[case] = str(error)
np.savez(out, **results)
