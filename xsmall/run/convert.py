"""A recipe from a configuration of smalldata_tools: their um, mm, keV and psana's frame become ours."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from xsmall.detector.geometry.formats.poses import beam_from_smalldata
from xsmall.errors import XsmallError
from xsmall.io.stores.place import write_file
from xsmall.run.old_config import Code, OldConfig, read_config
from xsmall.run.recipe import Recipe
from xsmall.run.tables import PSANA
from xsmall.run.toml import toml_of

__all__ = ["Converted", "convert_config"]

_COMMON_MODES: Final = {"epix100": 6, "epix10k": 80, "jungfrau": 0, "cspad": 1}
"""What smalldata_tools takes where nothing is said."""
_DETECTORS: Final = ("detectors", "detnames")
_SLOW: Final = "integrating_detectors"
_ROIS: Final = ("getROIs", "get_rois", "getROI")
_AZAV: Final = ("get_azav", "getAzIntParams")
_PYFAI: Final = ("get_azav_pyfai", "getAzIntPyFAIParams")
_DROPLET: Final = ("get_droplet", "getDropletParams")
_PHOTON: Final = ("get_droplet2photon", "getDroplet2Photons")
_COUNT: Final = ("get_photon", "getPhotonParams")
_SUMS: Final = ("get_sum_algos", "getDetSums")
_ALL: Final = "all"
_READ: Final = (*_ROIS, *_AZAV, *_PYFAI, *_DROPLET, *_PHOTON, *_COUNT, *_SUMS)
_IN_KEV: Final = ("jungfrau", "epix10k")
"""Detectors whose calibrated data are keV, there as here; what they call ADU of others depends on the constants."""
_NO_EDGE: Final = 10_000
"""No detector has so many rows: a region up to there ends with the frames."""
_THRESHOLD: Final = re.compile(r"thresADU([\d.]+)")
_ESSENTIAL: Final = (
    "ROI", "ROIs", "center", "dis_to_sam", "eBeam", "tx", "ty", "qbin", "phiBins", "Pplane", "threshold",
    "thresholdLow", "thresADU", "droplet", "d2p", "ADU_per_photon", "thr_fraction",
)  # fmt: skip
"""What a table has to say: where it cannot be read, the rest of the table would mean something else."""
_TOLD: Final = (*_DETECTORS, _SLOW, "epicsPV", "epicsOncePV", "epicsArchFilePV", "ttCalib")
"""Variables of their own, of which something is said elsewhere."""
_INT_UNITS: Final = {"2th_deg": "two_theta", "q_A^-1": "q", "r_m": "radius"}


@dataclass
class Converted:
    """A recipe that was made of an old configuration.

    Attributes
    ----------
    tables
        The recipe.
    left_out
        What of the configuration is not in it, and why.
    """

    tables: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The recipe as TOML; what it could not say stands above as comments."""
        notes = "".join(f"#   {one}\n" for one in self.left_out)
        head = "# Made from a configuration of smalldata_tools, which was read and not executed.\n"
        return head + (f"# Not translated:\n{notes}" if notes else "") + "\n" + toml_of(self.tables)


def convert_config(
    path: str | os.PathLike[str], run: int, out: str | os.PathLike[str] | None = None, *, overwrite: bool = False
) -> Converted:
    """Make a recipe of a configuration of smalldata_tools (``prod_config_*.py``, of LCLS-I or LCLS-II) for a run.

    Parameters
    ----------
    path
        The configuration. It is parsed, never executed.
    run
        Number of the run, for which its functions are evaluated.
    out
        Write the recipe there.
    overwrite
        Replace what is there.

    Returns
    -------
    ``tables``, the recipe, checked; and ``left_out``, a line for each thing that could not be translated.

    Raises
    ------
    ParameterError
        No such file, no Python, or ``out`` is there already.

    Notes
    -----
    Lengths in um and mm, energies in keV and psana's frame become ours by
    :func:`~xsmall.beam_from_smalldata`. Numbers that differ on purpose: ``mean`` of a region is per valid pixel, masked
    pixels do not count in the first bins of azimuthal integrals, ``max`` of sums is a maximum.

    Examples
    --------
    >>> import pathlib, tempfile, xsmall as xs
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "prod_config_mfx.py"
    >>> text = "detectors = ['epix100']\\ndef getROIs(run):\\n    return {'epix100': {'ROI': [[0, 9], [3, 5]]}}"
    >>> _ = path.write_text(text)
    >>> xs.convert_config(path, 12).tables["detectors"]["epix100"]["reductions"]
    {'ROI': {'kind': 'roi', 'places': {'segment': 0, 'row': [0, 9], 'column': [3, 5]}}}
    """
    config = read_config(Path(path), run)
    made = _Translation(config, run).made
    made.left_out = list(dict.fromkeys(made.left_out))
    try:
        Recipe(made.tables, Path.cwd(), str(path))
    except XsmallError as error:
        made.left_out.append(f"the recipe needs a hand: {' '.join(str(error).split())}")
    if out is not None:
        write_file(
            Path(out).absolute(), lambda draft: draft.write_text(made.text(), encoding="utf-8"), overwrite=overwrite
        )
    return made


class _Translation:
    """One configuration on its way."""

    def __init__(self, config: OldConfig, run: int) -> None:
        self.config = config
        self.made = Converted(left_out=list(config.problems))
        self.made.tables = {"source": "exp=EXPERIMENT,run={run}", "event_variables": {}, "detectors": {}}
        self.note('put the experiment into source = "exp=...", or the path of the runs')
        for key in (*_DETECTORS, _SLOW):
            given = config.values.get(key, ())
            for name in [given] if isinstance(given, str) else given:
                if isinstance(name, str):
                    self.detector(name)
                else:
                    self.note(f"{key}: {_first_words(name)}")
        for functions, translate in (
            (_ROIS, self.rois), (_AZAV, self.azav), (_PYFAI, self.pyfai), (_DROPLET, self.droplet),
            (_PHOTON, self.photon), (_COUNT, self.count), (_SUMS, self.sums),
        ):  # fmt: skip
            self.each(functions, translate)
        self.rest(run)

    def note(self, text: str) -> None:
        if text not in self.made.left_out:
            self.made.left_out.append(text)

    def detector(self, name: str) -> dict[str, Any]:
        known: dict[str, Any] = self.made.tables["detectors"]
        if name not in known:
            mode = next((m for word, m in _COMMON_MODES.items() if name.lower().startswith(word)), None)
            known[name] = {"constants": PSANA, "geometry": PSANA}
            if mode is not None:
                known[name]["common_mode"] = mode
            elif name.lower().startswith(("epix", "cs140", "cspad", "dscsad", "dsacspad")):
                self.note(f"{name}: the common mode that its class of detectors took; common_mode = 6 for an epix100")
            known[name]["reductions"] = {}
        table: dict[str, Any] = known[name]
        return table

    def add(self, detector: str, name: str, step: Any) -> None:
        table = self.detector(detector)["reductions"]
        number = sum(key == name or key.startswith(f"{name}_") for key in table)
        table[name if not number else f"{name}_{number}"] = step

    def each(self, functions: tuple[str, ...], translate: Callable[[str, str, dict[str, Any]], None]) -> None:
        """Translate what the functions of one kind return, for each detector and each of its tables."""
        for function in functions:
            found = self.config.functions.get(function)
            if not isinstance(found, Mapping | None):
                self.note(f"{function}: {_first_words(found)}")
                continue
            for detector, given in (found or {}).items():
                what = f"{function}, {detector}"
                for table in given if isinstance(given, list) and functions is not _SUMS else [given]:
                    if isinstance(table, Code):
                        self.note(f"line {table.line}: {what} = {table.text}: needs executing")
                    elif isinstance(table, Mapping) or functions is _SUMS:
                        self.one(translate, what, str(detector), table)
                    elif table is not None:
                        self.note(f"{what} = {_first_words(table)}: no table")

    def one(self, translate: Callable[[str, str, Any], None], what: str, detector: str, table: Any) -> None:
        """Translate one table; what is of another kind than it has to be is told."""
        if isinstance(table, Mapping):
            unknown = {k: v for k, v in table.items() if isinstance(v, Code)}
            for key, code in unknown.items():
                self.note(f"line {code.line}: {what}.{key} = {code.text}: needs executing")
            if any(key in _ESSENTIAL for key in unknown):
                return
            table = {k: v for k, v in table.items() if k not in unknown}
        try:
            translate(what, detector, table)
        except (TypeError, ValueError, AttributeError, KeyError, XsmallError) as error:
            self.note(f"{what}: {' '.join(str(error).split())}")

    def unused(self, what: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key, value in given.items():
            if key not in known and value not in (None, False, 0, "", [], {}):
                self.note(f"{what}.{key} = {value!r}")

    def rois(self, what: str, detector: str, given: dict[str, Any]) -> None:
        regions = given.get("ROIs") or [given.get("ROI")]
        name = str(given.get("name") or "ROI")
        for region in regions:
            place = _box_of_region(region)
            if isinstance(place, str):
                self.note(f"{what}.ROI = {region!r}: {place}")
                continue
            if len(place) > 1 and "segment" not in place:
                self.note(f"{what}.ROI = {region!r}: a box for each segment; there one sum over all of them")
            step: dict[str, Any] = {"kind": "roi", "places": place}
            limit = given.get("thresADU")
            if limit in (0, 0.0):
                self.note(f"{what}.thresADU = 0: there negative values of pixels counted as 0")
            elif limit is not None:
                step["threshold"] = self.of_data(f"{what}.thresADU", detector, limit)
            if given.get("writeArea"):
                step["area"] = True
            self.add(detector, name, step)
        self.unused(what, given, ("ROI", "ROIs", "name", "thresADU", "writeArea", "calcPars"))

    def azav(self, what: str, detector: str, given: dict[str, Any]) -> None:
        for key, unit in (("center", "um"), ("dis_to_sam", "mm")):
            if given.get(key) is None:
                self.note(f"{what}: without {key} ({unit}) nothing can be said of q")
                return
        if given.get("eBeam") is None:
            self.note(f"{what}: no eBeam, where theirs took 9.5 keV")
        beam = beam_from_smalldata(
            given["center"], given["dis_to_sam"], given.get("eBeam") or 9.5, given.get("tx", 0), given.get("ty", 0)
        )
        told = {"photon_energy": f"{beam.photon_energy!r} eV", "distance": f"{beam.distance!r} m"}
        center: dict[str, Any] = {"center": [f"{x!r} m" for x in beam.center]}
        tilts = {f"tilt_{a}": f"{getattr(beam, f'tilt_{a}')!r} degree" for a in "xyz" if getattr(beam, f"tilt_{a}")}
        self.detector(detector)["beam"] = told | center | tilts
        step: dict[str, Any] = {"kind": "azint"}
        bins = given.get("qbin", 5e-3)
        if isinstance(bins, list | tuple):
            step["bins"] = [f"{x!r} angstrom-1" for x in bins]
        else:
            step["width"] = f"{float(bins)!r} angstrom-1"
        step |= self.sectors(what, given.get("phiBins", 1))
        step["solid_angle"] = bool(given.get("geomCorr", True))
        if given.get("polCorr", True):
            along = float(given.get("Pplane", 0))  # the part that is polarized along psana's y, our -x
            plane = ("0.0 deg", along) if along else ("90.0 deg", 1.0)
            step |= dict(zip(("polarization_plane", "polarization_fraction"), plane, strict=True))
        if given.get("thresADU") not in (None, 0, 0.0):
            step["threshold"] = self.of_data(f"{what}.thresADU", detector, given["thresADU"])
        self.add(detector, str(given.get("name") or "azav"), step)
        known = (
            "center",
            "dis_to_sam",
            "eBeam",
            "tx",
            "ty",
            "qbin",
            "phiBins",
            "Pplane",
            "geomCorr",
            "polCorr",
            "name",
        )
        self.unused(what, given, (*known, "thresADU"))

    def sectors(self, what: str, given: Any) -> dict[str, Any]:
        """Their sectors: the first lies about phi = 0, which is at our 180 degrees, and phi grows as our azimuth."""
        if isinstance(given, list | tuple):
            self.note(f"{what}.phiBins: edges are taken as they are; there they were moved by half a bin")
            return {"azimuth_bins": [f"{180 + math.degrees(one):.10g} deg" for one in given]}
        if given is None or given <= 1:
            return {}
        n = int(given)
        return {"azimuth_bins": [f"{180 + (i - 0.5) * 360 / n:.10g} deg" for i in range(n + 1)]}

    def of_data(self, what: str, detector: str, given: Any) -> Any:
        """A value of pixels, or a range of them, in the unit of their data."""
        unit = "keV" if detector.lower().startswith(_IN_KEV) else "ADU"
        if unit == "ADU":
            self.note(f"{what}: in ADU here; for data that are calibrated to keV say it in keV")
        told = [f"{float(one)!r} {unit}" for one in (given if isinstance(given, list | tuple) else [given])]
        return told if isinstance(given, list | tuple) else told[0]

    def pyfai(self, what: str, detector: str, given: dict[str, Any]) -> None:
        quantity = _INT_UNITS.get(str(given.get("int_units", "2th_deg")))
        if quantity is None:
            self.note(f"{what}.int_units = {given.get('int_units')!r}")
            return
        step: dict[str, Any] = {"kind": "azint", "bins": int(given.get("npts", 256)), "quantity": quantity}
        if given.get("return2d", "False"):  # theirs is a text, which counts as true
            step["azimuth_bins"] = int(given.get("npts_az", 360))
        factor = given.get("polarization_factor", 1)
        if factor is not None:
            self.note(f"{what}.polarization_factor = {factor!r}: say polarization_plane and polarization_fraction")
        self.note(f"{what}: the beam of its poni file or ai_kwargs: xs.beam_from_poni, and [detectors.{detector}.beam]")
        self.add(detector, str(given.get("name") or "pyfai"), step)
        known = ("npts", "npts_az", "int_units", "return2d", "polarization_factor", "name", "ai_kwargs", "poni_file")
        self.unused(what, given, known)

    def droplet(self, what: str, detector: str, given: dict[str, Any]) -> None:
        self.add(detector, str(given.get("name") or "droplet"), self.droplets(what, detector, given))

    def droplets(self, what: str, detector: str, given: Mapping[str, Any]) -> dict[str, Any]:
        high = float(given.get("threshold", 5))
        low = float(given.get("thresholdLow", high))
        step: dict[str, Any] = {"kind": "droplet"}
        if given.get("useRms", True):
            step |= {"threshold": f"{high!r} sigma", "threshold_low": f"{low!r} sigma"}
        else:
            step["threshold"], step["threshold_low"] = self.of_data(f"{what}.threshold", detector, [high, low])
        if given.get("thresADU"):
            step["sums"] = self.of_data(f"{what}.thresADU", detector, [given["thresADU"], 1e30])
        self.unused(what, given, ("threshold", "thresholdLow", "thresADU", "useRms", "name", "nData"))
        return step

    def photon(self, what: str, detector: str, given: dict[str, Any]) -> None:
        found, counted = given.get("droplet") or {}, given.get("d2p") or {}
        if not counted.get("aduspphot"):
            self.note(f"{what}.d2p: without aduspphot there are no photons")
            return
        step: dict[str, Any] = {"kind": "photon"}
        step["per_photon"] = self.of_data(f"{what}.d2p.aduspphot", detector, counted["aduspphot"])
        if given.get("get_photon_img"):
            step["image"] = True
        self.add(detector, "photon", [self.droplets(f"{what}.droplet", detector, found), step])
        self.unused(what, given, ("droplet", "d2p", "nData", "get_photon_img"))
        self.unused(f"{what}.d2p", counted, ("aduspphot", "cputime"))

    def count(self, what: str, detector: str, given: dict[str, Any]) -> None:
        step: dict[str, Any] = {"kind": "photon"}
        step["per_photon"] = self.of_data(f"{what}.ADU_per_photon", detector, given.get("ADU_per_photon", 154))
        step["thr_fraction"] = float(given.get("thr_fraction", 0.9))
        self.add(detector, str(given.get("name") or "photon"), step)
        self.unused(what, given, ("ADU_per_photon", "thr_fraction", "name", "nData"))

    def sums(self, what: str, detector: str, given: Any) -> None:
        if detector == _ALL:
            names = [
                n for n in self.made.tables["detectors"] if n not in self.config.functions.get(what.split(",")[0], {})
            ]
        else:
            names = [detector]
        for name in names:
            for word in given if isinstance(given, list | tuple) else [given]:
                self.sum(what, name, str(word))

    def sum(self, what: str, detector: str, word: str) -> None:
        if word == "calib":
            self.detector(detector)["average"] = True
            return
        if re.sub(r"calib|thresADU[\d.]+|max|dropped|square|nhits|_", "", word):
            self.note(f"{what}: {word}")
            return
        word = re.sub("_?square", "", word)  # the spread is told beside each mean
        name = re.sub(r"\W", "_", word)
        if word == "calib" or name in self.detector(detector)["reductions"]:
            return
        step: dict[str, Any] = {"kind": "sums"}
        limit = _THRESHOLD.search(word)
        if limit is not None or "nhits" in word:
            key = "count_above" if "nhits" in word else "threshold"
            step[key] = self.of_data(f"{what}, {word}", detector, 0.0 if limit is None else limit[1])
        if "max" in word:
            step["also"] = ["max"]
        if "dropped" in word:
            step |= {"by": "xray_on"}
        self.add(detector, name, step)

    def rest(self, run: int) -> None:
        """What nobody translated."""
        for name in self.config.unused:
            if name not in _TOLD and self.config.values[name] not in (None, "", [], {}, ()):
                self.note(f"{name} = {_first_words(self.config.values[name])}")
        for name, found in self.config.functions.items():
            if name not in _READ and found not in (None, {}, [], ()):
                self.note(f"{name}({run}): {_first_words(found)}")
        for key, value in self.config.values.items():
            if key in ("epicsPV", "epicsOncePV", "epicsArchFilePV") and value:
                self.note(f"{key}: slow control is among the event variables of the run; events = [...] keeps some")
            elif key == "ttCalib" and value:
                self.note(f"ttCalib = {value!r}: [delay] calibration = {value!r}")
        if self.config.values.get(_SLOW) or any(self.config.functions.get("get_intg") or ()):
            self.note("integrating detectors: fast variables are summed by run.sd.integrate(...) once, not in a recipe")


def _box_of_region(region: Any) -> dict[str, Any] | str:
    """Their regions: rows and columns, with segments in front where there are several; or why there is no box."""
    try:
        pairs = [[int(a), int(b)] for a, b in region]
    except (TypeError, ValueError):
        pairs = []
    if len(pairs) not in (2, 3):
        return "no rows and columns; where that means all, it is each event's image"
    *segments, row, column = pairs
    if max(row[1], column[1]) >= _NO_EDGE:
        return "reaches beyond the frames, which theirs cut; write the rows and columns that the detector has"
    first, last = segments[0] if segments else (0, 1)
    if not 0 < last - first < _NO_EDGE:
        return "write the segments that the detector has, a box for each"
    boxes = [{"segment": s, "row": row, "column": column} for s in range(first, last)]
    return boxes[0] if len(boxes) == 1 else {f"segment_{box['segment']}": box for box in boxes}


def _first_words(found: Any) -> str:
    text = ", ".join(map(str, found)) if isinstance(found, Mapping | list | tuple) else str(found)
    return text[:80] or "a value"
