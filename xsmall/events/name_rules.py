"""What an event variable is made of: a field with its unit, event codes, or the destination of the beam."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import DataError, ParameterError

__all__ = ["NUMBERS", "NameRule", "Unknown", "Variables", "rules_of", "where_known"]

_ADDRESS: Final = re.compile(r"(?P<name>[^\[\]]+?)(\[(?P<index>\d+)\])?")
_TIMES: Final = {"s": 1e12, "ms": 1e9, "us": 1e6, "ns": 1e3, "ps": 1.0, "fs": 1e-3}
_ENERGIES: Final = {"eV": 1.0, "keV": 1e3}
_FACTORS: Final[Mapping[str, Mapping[str, float]]] = {v.PICOSECOND: _TIMES, v.ELECTRONVOLT: _ENERGIES}
"""For each unit of xsmall, those that can be brought to it."""
_EVR: Final = "evr_code_"
NUMBERS: Final = (v.I0, v.DELAY, v.TT_POSITION, v.TT_AMPLITUDE, v.TT_FWHM, v.PHOTON_ENERGY)
TIMING, EVR = "timing", "evr"


class Unknown(LookupError):
    """A rule that these data do not answer; its text says why."""


class Variables:
    """Finds fields by their address, in the small data of a run or in all nodes of its tree.

    Parameters
    ----------
    events
        Variables over ``event``.
    nodes
        Detectors that have a Dataset of their own, by name, over the same events.
    """

    def __init__(self, events: xr.Dataset, nodes: Mapping[str, xr.Dataset]) -> None:
        self.events = events
        self.nodes = nodes

    def names(self) -> list[str]:
        """Addresses of all that is one number per event, or several."""
        found = [str(n) for n, x in self.events.variables.items() if v.EVENT in x.dims and n != v.EVENT]
        for detector, node in self.nodes.items():
            found += [f"{detector}.{n}" for n, x in node.data_vars.items() if v.EVENT in x.dims and x.ndim <= 3]
        return sorted(found)

    def field(self, address: str) -> xr.Variable:
        """Give the value (event) at an address; NaN where it is missing or damaged.

        Raises
        ------
        Unknown
            Nothing there, or more than one value per event.
        """
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise Unknown(f"{address!r} is no address")
        where, name = self._place(match["name"])
        values = _squeezed(where[name].variable)
        if match["index"] is not None and values.ndim == 2:
            n = values.shape[1]
            if int(match["index"]) >= n:
                raise Unknown(f"{address} is not there: it has {n} values")
            values = values[:, int(match["index"])]
        if values.dims != (v.EVENT,):
            raise Unknown(f"{address} has {dict(zip(values.dims[1:], values.shape[1:], strict=True))} values per event")
        known = self._known(where, name, match["name"].partition(".")[0])
        return values if known is None else where_known(values, known)

    def _place(self, name: str) -> tuple[xr.Dataset, str]:
        detector, _, rest = name.partition(".")
        if rest and rest in self.nodes.get(detector, ()):
            return self.nodes[detector], rest
        for own in (name, name.replace(".", "_")):
            if own in self.events.variables and v.EVENT in self.events.variables[own].dims:
                return self.events, own
        raise Unknown(f"no {name}")

    def _known(self, where: xr.Dataset, name: str, detector: str) -> xr.Variable | None:
        """Where the field was there and not damaged; None where nothing is said about it."""
        front = "" if where is not self.events else f"{detector}_"
        inner = name.removeprefix(front)
        told = where[name].attrs.get(v.ANCILLARY_VARIABLES)
        presence = [told] if told else [f"{front}{v.PRESENT}_{inner}", f"{front}{v.PRESENT}"]
        found = next((where[n].variable for n in presence if n in where.variables), None)
        known = None if found is None else _squeezed(found).astype(bool)
        damage = where.variables.get(f"{front}{v.DAMAGE}")
        if damage is not None:
            whole = _squeezed(damage) == 0
            known = whole if known is None else known & whole
        return known if known is not None and known.dims == (v.EVENT,) else None

    def codes(self, wanted: Sequence[int], of: str) -> tuple[xr.Variable, xr.Variable | None]:
        """Say whether any of these event codes was sent (event), and in which events that is known.

        Raises
        ------
        Unknown
            No codes of this kind, or not of these numbers.
        """
        if of == EVR:
            sent = [self.field(f"{_EVR}{code}") for code in wanted]
            known = [x.notnull() for x in sent]
            any_sent = [(x != 0) & x.notnull() for x in sent]
            return _any(any_sent), _all(known)
        codes = self.events.get(v.EVENT_CODES)
        if codes is None or v.EVENT_CODE not in codes.coords:
            raise Unknown("no event codes of a timing detector")
        labels = codes.indexes[v.EVENT_CODE]
        at = labels.get_indexer(list(wanted))
        if (at < 0).any():
            raise Unknown(f"no event code {[c for c, k in zip(wanted, at, strict=True) if k < 0]}")
        presence = codes.attrs.get(v.ANCILLARY_VARIABLES)
        if presence is not None and presence not in self.events.variables:
            raise Unknown(f"{presence} is gone, which says where the event codes are known")
        known_codes = None if presence is None else self.events.variables[presence].astype(bool)
        return codes.variable[:, np.sort(at)].any(v.EVENT_CODE), known_codes


def _squeezed(x: xr.Variable) -> xr.Variable:
    return x.isel({dim: 0 for dim in x.dims if dim != v.EVENT and x.sizes[dim] == 1})


def where_known(x: xr.Variable, known: xr.Variable) -> xr.Variable:
    """NaN where it is not known; integers become float64."""
    result: xr.Variable = x.where(known)  # type: ignore[no-untyped-call]
    return result


def _any(parts: Sequence[xr.Variable]) -> xr.Variable:
    result = parts[0]
    for part in parts[1:]:
        result = result | part
    return result


def _all(parts: Sequence[xr.Variable]) -> xr.Variable:
    result = parts[0]
    for part in parts[1:]:
        result = result & part
    return result


@dataclass(frozen=True)
class NameRule:
    """One way to an event variable; see the table of hutches for what each means."""

    source: str | None = None
    unit: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    fit: str | None = None
    on: tuple[int, ...] = ()
    off: tuple[int, ...] = ()
    of: str = TIMING
    destination: int | None = None

    def value(self, name: str, data: Variables) -> tuple[xr.Variable, str]:
        """Give the variable, and in words what it was made of.

        Raises
        ------
        Unknown
            The data do not answer this.
        """
        if self.source is None:
            value, known = self._status(data)
            return _yes_or_no(value, known), self._words()
        values = data.field(self.source)
        if name in (v.XRAY_ON, v.LASER_ON):
            if values.dtype == bool:
                return values, self._words()
            return _yes_or_no(values == 1, (values == 0) | (values == 1)), self._words()
        return self._number(name, values, data), self._words()

    def _number(self, name: str, values: xr.Variable, data: Variables) -> xr.Variable:
        numbers = values.astype(np.float64)
        if self.fit is not None:
            position = data.field(self.fit).astype(np.float64)
            found = (position != 0) & position.notnull()
            numbers = where_known(numbers, found)
            if numbers.chunks is None and found.any() and not ((numbers != 0) & found).any():
                raise Unknown(f"{self.source} is 0 wherever {self.fit} is not: a time tool without calibration")
        if name == v.PHOTON_ENERGY:
            numbers = where_known(numbers, numbers > 0)  # 0 and less stand for what was not measured
        factor = self.scale * self._unit_factor(name, values)
        numbers = numbers * factor + self.offset if (factor, self.offset) != (1.0, 0.0) else numbers
        own = v.UNITS_OF.get(name) or values.attrs.get(v.UNITS)
        return xr.Variable(numbers.dims, numbers.data, {v.UNITS: own} if own else {})

    def _unit_factor(self, name: str, values: xr.Variable) -> float:
        """Bring the unit of the rule, or that of the field, to ours; a scale alone says all.

        Raises
        ------
        DataError
            A field whose own unit cannot be that of the variable, or is not that of the rule.
        """
        unit, told = v.UNITS_OF.get(name, ""), values.attrs.get(v.UNITS)
        if unit not in _FACTORS or (self.unit is None and (told is None or self.scale != 1.0)):
            return 1.0
        if told not in (None, self.unit) and (self.unit is not None or told not in _FACTORS[unit]):
            raise DataError(
                f"{name}: {self.source} has another unit",
                found=told,
                expected=self.unit or ", ".join(_FACTORS[unit]),
                fix=f'{name}={{"source": "{self.source}", "scale": ...}} with the {unit} that 1 {told} is',
            )
        return _FACTORS[unit][self.unit or str(told)]

    def _status(self, data: Variables) -> tuple[xr.Variable, xr.Variable | None]:
        if self.destination is not None:
            found = data.field(v.DESTINATION)
            return found == self.destination, found >= 0
        value: xr.Variable | None = None
        known: xr.Variable | None = None
        for wanted, as_sent in ((self.on, True), (self.off, False)):
            if wanted:
                sent, there = data.codes(wanted, self.of)
                part = sent if as_sent else ~sent
                value = part if value is None else value & part
                known = there if known is None or there is None else known & there
        assert value is not None
        return value, known

    def _words(self) -> str:
        if self.source is not None:
            text = self.source + (f" in {self.unit}" if self.unit else "")
            if (self.scale, self.offset) != (1.0, 0.0):
                text += f" * {self.scale:g} + {self.offset:g}"
            return text + (f", where {self.fit} is not 0" if self.fit else "")
        if self.destination is not None:
            return f"the beam went to destination {self.destination}"
        parts = [f"code {' or '.join(map(str, self.on))} sent"] if self.on else []
        parts += [f"code {' and '.join(map(str, self.off))} not sent"] if self.off else []
        return f"{' and '.join(parts)} ({self.of})"


def _yes_or_no(value: xr.Variable, known: xr.Variable | None) -> xr.Variable:
    """Bool where every event tells; float64 with NaN where some do not."""
    if known is None or (known.chunks is None and bool(known.all())):
        return xr.Variable(value.dims, value.astype(bool).data)
    return xr.Variable(value.dims, where_known(value.astype(np.float64), known).data)


def rules_of(name: str, given: object, where: str) -> tuple[NameRule, ...]:
    """Read the rules of one variable: an address, a table, or a list of these.

    Raises
    ------
    ParameterError
        Anything else, an unknown key, or a unit that cannot be brought to that of the variable.
    """
    if isinstance(given, list | tuple):
        return tuple(rule for one in given for rule in rules_of(name, one, where))
    if isinstance(given, str):
        return (NameRule(source=given),)
    known = {f.name for f in fields(NameRule)}
    if not isinstance(given, Mapping) or set(given) - known:
        raise ParameterError(
            f"{where}: no rule of {name}",
            found=given if not isinstance(given, Mapping) else sorted(set(given) - known),
            expected=f"an address such as 'ipm2.sum', or a table with {', '.join(sorted(known))}",
            fix=f'{name}="ipm2.sum"',
        )
    read: dict[str, Any] = dict(given)
    for key in ("on", "off"):
        if key in read:
            codes = read[key] if isinstance(read[key], list | tuple) else [read[key]]
            if not codes or not all(isinstance(c, int) and not isinstance(c, bool) and c >= 0 for c in codes):
                raise ParameterError(f"{where}: no event codes", found=f"{key} = {read[key]!r}", fix=f"{key}=[137]")
            read[key] = tuple(codes)
    rule = NameRule(**read)
    _check_rule(name, rule, where)
    return (rule,)


def _check_rule(name: str, rule: NameRule, where: str) -> None:
    status = bool(rule.on or rule.off) or rule.destination is not None
    unit = v.UNITS_OF.get(name, "")
    wrong = None
    if status == (rule.source is not None) or (rule.destination is not None and (rule.on or rule.off)):
        wrong = "one of source, event codes (on, off) and destination"
    elif status and name in NUMBERS:
        wrong = f"a source: event codes and destinations say yes or no, as for {v.LASER_ON}"
    elif rule.of not in (TIMING, EVR):
        wrong = f"of = {TIMING!r} or {EVR!r}"
    elif rule.unit is not None and rule.unit not in _FACTORS.get(unit, ()):
        wrong = f"a unit of {', '.join(_FACTORS[unit])}" if unit in _FACTORS else "no unit: scale says it all"
    if wrong:
        raise ParameterError(f"{where}: invalid rule of {name}", found=rule, expected=wrong)
