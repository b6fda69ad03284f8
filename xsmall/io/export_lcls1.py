#!/usr/bin/env python
"""Bring a run of LCLS-I to the raw HDF5 layout of xsmall, inside the environment of psana1.

It needs psana1, h5py and NumPy alone (Python 3.6 or later); copy it to where these are:

    python export_lcls1.py xppl1030522 7 --detector jungfrau1M --out run7.h5

Then, wherever xsmall is: xs.open_run("run7.h5"), xs.open_constants("run7.h5", detector="jungfrau1M", ...).

What is written: frames with the segments as they are, times, fiducials, event codes, beam monitors and diodes, the
electron beam, slow control, scan variables, encoders, and the constants and pixel positions of each detector. A job
that was stopped goes on where it was when it is started again. Several jobs share a run by --events START:STOP, each
with a file of its own; xs.concat puts them together.
"""

import argparse
import os
import re
import sys

import h5py
import numpy as np

LAYOUT = "xsmall-run 2"
UNFINISHED = "xsmall-unfinished"
TIME_UNITS = "nanoseconds since 1970-01-01"
CONSTANTS = (
    ("ped", "pedestals"),
    ("rms", "rms"),
    ("gain", "gain"),
    ("offset", "offset"),
    ("statusMask", "status_as_mask"),
    ("x", "coords_x"),
    ("y", "coords_y"),
    ("z", "coords_z"),
)
"""Names of smalldata_tools, which xs.open_constants reads, and the methods of psana1's detectors."""
CODES = (89, 90, 91, 137, 140, 162, 182, 184, 203, 204)
"""Event codes of light and laser that are written in any case; others when they are first seen."""
SLOW = ("lxt", "lxt_ttc", "txt", "las_drift_correction", "att_T", "ccm_E", "lom_E")
TIME_TOOL = ("FLTPOS", "FLTPOS_PS", "AMPL", "FLTPOSFWHM", "REFAMPL", "AMPLNXT")
BLOCK = 100
CODE = "events/evr_code_"
REFERENCE = CODE + "137"
"""It is there in every event whose codes are known."""


def main(arguments=None):
    """Export a run; returns 0, or 1 where that is not possible."""
    options = parse(arguments)
    import psana

    part = options.out + ".part"
    if os.path.exists(options.out):
        print("%s: is there already; remove it, or give another --out" % options.out, file=sys.stderr)
        return 1
    source = psana.DataSource("exp=%s:run=%d:smd" % (options.experiment, options.run))
    if os.path.exists(part) and not is_sound(part):
        print("%s: cannot be opened after the job was stopped, it is begun again" % part, file=sys.stderr)
        os.remove(part)
    with h5py.File(part, "a") as file:
        writer = Writer(file, options)
        if writer.done:
            print("going on after %d events" % writer.done)
        export(psana, source, writer, options)
        if not writer.done:
            print("no event of the range %s" % options.events, file=sys.stderr)
            return 1
        file.attrs["xsmall_layout"] = LAYOUT
    os.rename(part, options.out)
    print("%s: %d events" % (options.out, writer.done))
    return 0


def is_sound(path):
    """Whether a file that a job left can be opened and all of it be found."""
    try:
        with h5py.File(path, "r") as file:
            file.visit(len)
            return True
    except (OSError, RuntimeError):
        return False


def parse(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Bring a run of LCLS-I to the raw HDF5 layout of xsmall.")
    parser.add_argument("experiment", help="such as xppl1030522")
    parser.add_argument("run", type=int)
    parser.add_argument("--detector", action="append", required=True, help="an area detector; may be given again")
    parser.add_argument("--out", required=True, help="the HDF5 file to make")
    parser.add_argument("--events", default=":", help="START:STOP, counted from 0 (default: all)")
    parser.add_argument("--pv", action="append", default=[], help="a slow-control variable; may be given again")
    parser.add_argument("--evr", default=None, help="event receiver (default: the first)")
    options = parser.parse_args(arguments)
    match = re.match(r"(\d*):(\d*)$", options.events)
    if match is None:
        parser.error("--events START:STOP, such as 0:10000")
    options.start = int(match.group(1) or 0)
    options.stop = int(match.group(2)) if match.group(2) else None
    return options


class Writer(object):
    """Adds events to a file, a block at a time; what a job that was stopped had written whole stays.

    The label ``event`` is written after everything else of a block, so that its length says how far the file is sound.
    """

    def __init__(self, file, options):
        self.file = file
        said = {name: getattr(options, name) for name in ("experiment", "run", "events")}
        mine = repr(sorted(said.items())) + repr(sorted(options.detector))
        before = file.attrs.get("export", mine)
        before = before.decode() if isinstance(before, bytes) else before
        if before != mine:
            raise SystemExit("%s: is of another export (%s); remove it" % (file.filename, before))
        file.attrs["export"] = mine
        file.attrs["xsmall_layout"] = UNFINISHED
        file.attrs["experiment"] = options.experiment
        file.attrs["run"] = options.run
        self.groups = ["events"] + list(options.detector)
        counts = [file[g]["event"].shape[0] if g in file and "event" in file[g] else 0 for g in self.groups]
        self.done = min(counts)
        for name in self.known():  # what lies behind belongs to a block that was not finished
            if file[name].shape[0] > self.done:
                file[name].resize(self.done, axis=0)
        self.rows = {}  # dataset -> values of this block, and what stands for missing
        self.held = 0

    def add(self, place, value, missing=np.nan, dtype=None):
        """Take the value of a dataset for the event that is open."""
        values = self.rows.setdefault(place, ([], missing, dtype))[0]
        values.extend([None] * (self.held - len(values)))
        values.append(value)

    def end_of_event(self, label):
        """Close an event."""
        for group in self.groups:
            self.add(group + "/event", label, 0, "i8")
        self.held += 1
        if self.held >= BLOCK:
            self.flush()

    def flush(self):
        """Write the block: labels last."""
        if not self.held:
            return
        last = [g + "/event" for g in self.groups]
        first = [REFERENCE] if REFERENCE in self.rows else []
        for place in first + [p for p in self.rows if p not in last + first] + last:
            self.write(place)
        for name in self.known():
            length = self.file[name].shape[0]
            if length < self.done + self.held:  # nothing came in this block
                self.file[name].resize(self.done + self.held, axis=0)
                self.file[name][length:] = self.absent(name, length, self.done + self.held)
        self.file.flush()
        self.done += self.held
        self.rows, self.held = {}, 0

    def absent(self, place, start, stop):
        """What stands for missing; an event code that is seen first was not sent before, where codes are known."""
        if not place.startswith(CODE) or place == REFERENCE or REFERENCE not in self.file:
            return self.file[place].fillvalue
        known = self.file[REFERENCE][start:stop]
        return np.where(np.isnan(known), np.nan, 0.0)

    def known(self):
        """Names of all datasets over events."""
        found = [(g, n) for g in self.groups if g in self.file for n in self.file[g]]
        return [g + "/" + n for g, n in found if self.file[g][n].maxshape[:1] == (None,)]

    def write(self, place):
        """Write the values of a dataset; it is made when the first one comes."""
        values, missing, dtype = self.rows[place]
        values.extend([None] * (self.held - len(values)))
        first = next((np.asarray(x) for x in values if x is not None), None)
        if first is None:
            return
        start, stop = self.done, self.done + self.held
        if place not in self.file:
            chunk = (1 if first.ndim > 1 else 1024,) + first.shape
            kinds = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
            kinds["maxshape"] = (None,) + first.shape
            dtype = np.dtype(dtype or first.dtype)
            self.file.create_dataset(place, (start,) + first.shape, dtype, chunks=chunk, fillvalue=missing, **kinds)
            if start:
                self.file[place][:] = self.absent(place, 0, start)
        dataset = self.file[place]
        dataset.resize(stop, axis=0)
        there = np.array([x is not None and np.shape(x) == dataset.shape[1:] for x in values])
        if not there.all():
            dataset[start:stop] = self.absent(place, start, stop)
        for k in np.flatnonzero(there):
            dataset[start + k] = values[k]


def export(psana, source, writer, options):
    """Write all events of the range that are not there yet."""
    areas = {name: psana.Detector(name) for name in options.detector}
    readers = list(event_readers(psana, options))
    described = set()
    for number, event in enumerate(source.events()):
        if number < options.start + writer.done:
            continue
        if options.stop is not None and number >= options.stop:
            break
        label, fiducial = label_of(psana, event)
        for name, detector in areas.items():
            frame = detector.raw(event)
            if frame is not None:
                frame = np.asarray(frame)
                frame = frame if frame.ndim == 3 else frame.reshape((-1,) + frame.shape[-2:])
                if name not in described:
                    describe(writer.file, name, detector, event, frame)
                    described.add(name)
            add_frame(writer, name, frame)
        writer.add("events/fiducial", fiducial, 0, "i8")
        for place, value in read_all(readers, event):
            writer.add("events/" + place, value, np.nan, "f8")
        writer.end_of_event(label)
    writer.flush()
    for group in writer.groups:
        if group in writer.file and "event" in writer.file[group]:
            writer.file[group]["event"].attrs["units"] = TIME_UNITS
        if group in areas and group in writer.file and "raw" in writer.file[group]:
            writer.file[group]["raw"].attrs["detector_type"] = kind_of(group, areas[group])
            writer.file[group]["raw"].attrs["units"] = "ADU"


def add_frame(writer, name, frame):
    """Take a frame, or note that there is none."""
    shape = None if frame is None else frame.shape
    stored = writer.file[name]["raw"].shape[1:] if name in writer.file and "raw" in writer.file[name] else shape
    there = frame is not None and shape == stored
    segments = stored[0] if stored else 1
    writer.add(name + "/raw", frame if there else None, 0)
    writer.add(name + "/present", np.full(segments, there), False, "?")


def label_of(psana, event):
    """Nanoseconds since 1970, and the fiducial."""
    identity = event.get(psana.EventId)
    seconds, nanoseconds = identity.time()
    return (int(seconds) * 1000000000 + int(nanoseconds)), int(identity.fiducials())


def describe(file, name, detector, event, frame):
    """Write what is known of a detector: constants, pixel positions, geometry."""
    group = file.require_group(name)
    config = file.require_group("UserDataCfg/" + name)
    for ours, theirs in CONSTANTS:
        function = getattr(detector, theirs, None)
        if function is None or ours in config:
            continue
        try:
            values = function(event)
        except Exception as error:  # psana1 raises anything where there are no constants
            print("%s: no %s (%s)" % (name, theirs, error), file=sys.stderr)
            continue
        if values is None:
            continue
        values = np.asarray(values)
        stages, rest = divmod(values.size, frame.size)
        if not rest:  # segments as in the frames
            values = values.reshape(((stages,) if stages > 1 else ()) + frame.shape)
        config[ours] = values
    text = geometry_text(detector, event)
    if text and "geometry" not in config:
        config["geometry"] = text
        group.attrs["geometry_psana"] = text


def kind_of(name, detector):
    """Type of a detector as xsmall calls it, by the name that psana gives it."""
    text = (str(getattr(detector, "name", "")) + " " + name).lower()
    for word in ("jungfrau", "epix10ka", "epix100", "cspad", "rayonix", "opal", "pnccd", "zyla", "andor", "princeton"):
        if word in text:
            return word
    return name.lower()


def geometry_text(detector, event):
    """Give the geometry file that psana uses, as text; empty where there is none."""
    try:
        path = detector.geometry(event).path
        with open(path) as file:
            return file.read()
    except Exception as error:  # older releases have no path, some detectors no geometry
        print("no geometry file (%s)" % error, file=sys.stderr)
        return ""


# ---- what every event has beside its frames ----


def event_readers(psana, options):
    """Give functions of an event that return pairs of name and value; what a run lacks is left out."""
    names = [entry[0] for entry in psana.DetNames()]
    receivers = sorted(n for n in names if ":Evr." in n)
    if options.evr or receivers:
        detector = psana.Detector(options.evr or receivers[0])
        yield lambda event: codes(detector, event)
    for name in names:
        short = re.sub(r"\W+", "_", name)
        if "BMMON" in name.upper():
            yield reader(psana.Detector(name), monitor, short)
        elif "IPM" in name.upper() or "PIM" in name.upper() or "DIO" in name.upper():
            yield reader(psana.Detector(name), diode, short)
        elif "USDUSB" in name.upper() or "USB-ENCODER" in name.upper():
            yield reader(psana.Detector(name), encoder, "enc")
        elif name == "EBeam":
            yield reader(psana.Detector(name), electron_beam, "ebeam")
        elif name == "FEEGasDetEnergy":
            yield reader(psana.Detector(name), gas, "gas_detector")
        elif name == "ControlData":
            yield reader(psana.Detector(name), controls, "scan")
    slow = [entry[0] for entry in psana.DetNames("epics")] + [entry[1] for entry in psana.DetNames("epics")]
    prefix = next((n[: -len("FLTPOSFWHM")] for n in slow if n.endswith("FLTPOSFWHM")), None)
    if prefix is not None:
        for name in TIME_TOOL:
            if prefix + name in slow:
                yield reader(psana.Detector(prefix + name), process_variable, "tt_" + name)
    for name in list(SLOW) + options.pv:
        if name in slow:
            yield reader(psana.Detector(name), process_variable, "epics_" + re.sub(r"\W+", "_", name))


def reader(detector, function, name):
    """Bind a detector to its function."""
    return lambda event: function(detector, event, name)


def read_all(readers, event):
    """Give all pairs; a detector that has nothing in this event is left out of it."""
    for one in readers:
        try:
            for name, value in one(event):
                if value is not None and not isinstance(value, (str, bytes)):
                    yield name, value
        except (AttributeError, TypeError, IndexError):  # None where a detector is missing
            continue


def codes(detector, event):
    """Event codes, 1 where one was sent."""
    sent = detector.eventCodes(event)
    for code in sorted(set(CODES) | set(sent or ())):
        yield CODE[len("events/") :] + str(code), np.nan if sent is None else float(code in sent)


def monitor(detector, event, name):
    """Beam monitor."""
    data = detector.get(event)
    yield name + "_sum", float(data.TotalIntensity())
    yield name + "_xpos", float(data.X_Position())
    yield name + "_ypos", float(data.Y_Position())


def diode(detector, event, name):
    """Intensity and position monitor."""
    yield name + "_sum", float(detector.sum(event))
    yield name + "_channels", np.asarray(detector.channel(event), "f8")


def encoder(detector, event, name):
    """Encoder, in the unit that its description is scaled to."""
    values = detector.values(event)
    for k, (said, value) in enumerate(zip(detector.descriptions() or [""] * len(values), values)):
        yield "%s_%s" % (name, re.sub(r"\W+", "_", said) if said else "ch%d" % k), float(value)


def electron_beam(detector, event, name):
    """Charge, energy, photon energy."""
    data = detector.get(event)
    yield name + "_photon_energy", float(data.ebeamPhotonEnergy())
    yield name + "_charge", float(data.ebeamCharge())
    yield name + "_L3_energy", float(data.ebeamL3Energy())


def gas(detector, event, name):
    """Gas detector in front of the hutches."""
    data = detector.get(event)
    for number in (11, 12, 21, 22):
        yield "%s_f_%d_ENRC" % (name, number), float(getattr(data, "f_%d_ENRC" % number)())


def controls(detector, event, name):
    """Scan variables."""
    del event
    for control in detector().pvControls():
        said = control.name()
        said = said.decode() if isinstance(said, bytes) else said
        yield "%s_%s" % (name, re.sub(r"\W+", "_", said)), float(control.value())


def process_variable(detector, event, name):
    """Slow control: the value that holds."""
    del event
    yield name, float(detector())


if __name__ == "__main__":
    sys.exit(main())
