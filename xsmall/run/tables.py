"""The tables of a recipe: every key, its type and what it means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from xsmall.errors import ParameterError
from xsmall.run import reductions
from xsmall.run.quantity import KINDS, quantity
from xsmall.run.text import like

__all__ = [
    "TABLES",
    "BeamTable",
    "Constants",
    "CubeRecipe",
    "Delay",
    "DetectorRecipe",
    "GeometryTable",
    "Mask",
    "RunRecipe",
]


def _quantity(kind: str) -> Any:
    """Type of a value with a unit; it is held in the unit of xsmall."""

    def read(value: object, info: ValidationInfo) -> float:
        return quantity(value, kind, str(info.field_name))

    units = list(KINDS[kind])
    schema = {
        "type": "string",
        "description": f"a number and a unit: {', '.join(units)}",
        "examples": [f"1 {units[0]}"],
    }
    return Annotated[float, BeforeValidator(read), WithJsonSchema(schema)]


if TYPE_CHECKING:
    from typing import TypeAlias

    Energy: TypeAlias = float
    Length: TypeAlias = float
    Angle: TypeAlias = float
else:
    Energy, Length, Angle = _quantity("energy"), _quantity("length"), _quantity("angle")


PSANA: Final = "psana"
"""In place of a path: psana's database."""


class _Table(BaseModel):
    """A table of a recipe: unknown keys are errors, and nothing is turned into another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Constants(_Table):
    """Constants of a detector, as :func:`xsmall.open_constants` opens them."""

    path: str
    """File or folder; ``{run}`` stands for the number of the run. ``psana``: what psana's database has for it."""
    detector: str | None = None
    """Name of the detector in the source, where there are several."""
    detector_type: str | None = None
    """Such as ``jungfrau``, where the source does not say."""
    gain: Literal["divide", "multiply", "divide_relative", "nominal"] | None = None
    """What the gain of the source means, where it does not say."""


class GeometryTable(_Table):
    """Where the pixels are, as :func:`xsmall.open_geometry` opens it."""

    path: str
    """File; ``{run}`` stands for the number of the run. ``psana``: what psana's database has for it."""
    format: str | None = None
    """Such as ``psana``, where the file does not say."""


class BeamTable(_Table):
    """The beam; see :func:`xsmall.assign_beam`."""

    photon_energy: Energy | None = None
    """At the detector, one for the run."""
    distance: Length | None = None
    """From the sample to where the beam meets the detector."""
    center: list[Length] | None = Field(None, min_length=2, max_length=2)
    """x and y of where the beam meets the detector."""
    tilt_x: Angle | None = None
    tilt_y: Angle | None = None
    tilt_z: Angle | None = None


class Mask(_Table):
    """Pixels that are not used; see :func:`xsmall.mask` and :func:`xsmall.open_mask`."""

    path: str | None = None
    """File with a mask; ``{run}`` stands for the number of the run."""
    convention: str | None = None
    """What the numbers of the file mean, such as ``good=1``."""
    dataset: str | None = None
    """Path of the dataset in an HDF5 file."""
    edges: int = 0
    """Pixels at the edges of segments."""
    central: int = 0
    """Pixels on both sides of each join of two ASICs."""
    unbonded: bool = False
    """Pixels that are not bonded."""
    unbonded_neighbours: Literal[4, 8] | None = None
    """Pixels next to these."""
    status: bool = False
    """Pixels whose status in the constants is bad."""
    neighbours: int = 0
    """Radius of what is left out around pixels with a bad status."""


class DetectorRecipe(_Table):
    """What is done with one detector."""

    required: bool = False
    """A run without this detector is an error; otherwise it is skipped, and the run's status says so."""
    variable: str = "raw"
    """Variable of the detector's node that holds the frames."""
    constants: str | Constants | None = None
    """Constants for calibration; without them frames are reduced as they are."""
    geometry: str | GeometryTable | None = None
    """Where the pixels are."""
    beam: BeamTable | None = None
    """Photon energy, distance, centre, tilts."""
    mask: str | Mask | None = None
    """Pixels that are not used."""
    common_mode: int | str | list[float] | None = None
    """A number of smalldata_tools, psana's parameters, or ``recommended``."""
    unit: Literal["keV", "photon", "ADU"] | None = None
    """Unit of calibrated pixels."""
    trust: list[str] | None = None
    """Reasons that make a pixel NaN, such as ``["default", "saturated"]``."""
    variance: bool | Literal["noise"] = False
    """Give each result its variance."""
    average: bool = True
    """Average of all events, with spread, error and count of each pixel."""
    area: bool = False
    """Divide by the area of each pixel relative to that of a regular one."""
    status_bits: int | None = None
    """Bits of the status in the constants that forbid trust."""
    saturation: dict[str, int] | None = None
    """ADC value at which a gain stage saturates, by its name: ``{G0 = 16383}``."""
    switching: dict[str, list[int]] | None = None
    """Range of ADC values that is far from the switching point, by gain stage."""
    reductions: dict[str, dict[str, Any] | list[dict[str, Any]]] = Field(default_factory=dict)
    """Reductions by name; each has a ``kind``, and the arguments of the function of that name. A list is a chain."""

    @field_validator("reductions")
    @classmethod
    def _known(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name, table in given.items():
            if not name.isidentifier():
                raise ParameterError("invalid name of a reduction", found=repr(name), fix="letters, digits and _")
            reductions.check(name, table)
        return given


class Delay(_Table):
    """The delay between laser and X-rays; see :func:`xsmall.delay`."""

    stage: str
    """Event variable that says the nominal delay."""
    unit: str | None = None
    """Its unit, where the run does not say it."""
    passes: int | None = None
    """How often light runs along a stage."""
    zero: float = 0.0
    """Value of the stage at a delay of 0, in its unit."""
    stage_sign: Literal[1, -1] = 1
    time_tool: str | None = None
    """Event variable of the position of the edge."""
    calibration: list[float] | None = None
    """Polynomial that makes ps of the position, constant first."""
    time_tool_unit: str | None = None
    sign: Literal[1, -1, "find"] = 1
    """How the time of the time tool enters."""
    signal: str | None = None
    """Event variable that the sign is found by."""
    normalize: str | None = None


_BINS: Final = {
    "bins": (("start", "stop"), ("width", "n", "log")),
    "steps": (("tolerance",), ("at",)),
    "quantiles": (("n",), ()),
    "categories": ((), ("labels",)),
}
"""Kinds of bins: what each needs, and what else it takes."""


class CubeRecipe(_Table):
    """A cube: means in bins of event variables; see :func:`xsmall.cube`."""

    bins: dict[str, dict[str, Any] | list[Any]]
    """By event variable: a list of edges, or a table with ``kind`` (bins, steps, quantiles, categories)."""
    select: str | None = None
    """Name of a selection; all events unless it is said."""
    images: list[str] = Field(default_factory=list)
    """Detectors whose frames are averaged in each bin, in the same pass."""
    weights: str | None = None
    """Event variable that ratios are wanted to, such as ``i0``."""
    coordinates: list[str] | bool = False
    """Event variables that are averaged too, such as ``["i0", "photon_energy"]``; true for all of them."""

    @field_validator("bins")
    @classmethod
    def _known(cls, given: dict[str, Any]) -> dict[str, Any]:
        if not given:
            raise ParameterError("a cube without bins", fix='bins = {delay = {kind = "bins", start = "-2 ps", ...}}')
        for variable, one in given.items():
            if isinstance(one, list):
                continue
            kind = one.get("kind")
            if kind not in _BINS:
                near = like(str(kind), _BINS) or "bins"
                raise ParameterError(
                    f"bins of {variable}: unknown kind", found=repr(kind), expected=", ".join(_BINS),
                    fix=f'kind = "{near}"',
                )  # fmt: skip
            needs, may = _BINS[kind]
            for key in one.keys() - {"kind", *needs, *may}:
                near = like(key, (*needs, *may)) or ""
                fix = f"{near} = ..." if near else f"leave {key} out"
                raise ParameterError(
                    f"{kind} of {variable} have no {key!r}", expected=", ".join((*needs, *may)), fix=fix
                )
            if lacking := [key for key in needs if key not in one]:
                raise ParameterError(f"{kind} of {variable} need {lacking[0]}", fix=f"{lacking[0]} = ...")
        return given


class RunRecipe(_Table):
    """What is made of one run: a recipe without values for other runs."""

    source: str | None = None
    """Path of a run, in which ``{run}`` stands for its number, ``{run:04d}`` with leading zeros."""
    format: Literal["zarr", "h5"] = "zarr"
    """Format of what is written."""
    events: list[str] | None = None
    """Event variables that are kept; all of them unless it is said."""
    event_variables: dict[str, Any] | None = None
    """Common names of event variables: ``hutch``, ``table`` (a file), or rules; see :func:`xsmall.event_variables`."""
    delay: Delay | None = None
    """The delay, from a stage and a time tool."""
    selections: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Cuts by the name of the selection: ``{i0 = {low = 0.5}, laser_on = true}``; see :func:`xsmall.select`."""
    detectors: dict[str, DetectorRecipe] = Field(default_factory=dict)
    """Detectors by the name that the run gives them."""
    cubes: dict[str, CubeRecipe] = Field(default_factory=dict)
    """Cubes by name; each becomes a file of its own."""

    @model_validator(mode="after")
    def _hang_together(self) -> RunRecipe:
        for name, cube in self.cubes.items():
            named: list[tuple[str | None, list[str]]] = [(cube.select, list(self.selections))]
            named += [(detector, list(self.detectors)) for detector in cube.images]
            for what, known in named:
                if what is not None and what not in known:
                    near = like(what, known)
                    raise ParameterError(
                        f"cube {name!r}: the recipe has no {what!r}",
                        expected=", ".join(known) or "a selection or detector of that name",
                        fix=f'"{near}"' if near else None,
                    )
        return self

    @field_validator("detectors", "cubes", "selections")
    @classmethod
    def _named(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if not name.isidentifier():
                raise ParameterError("invalid name", found=repr(name), fix="letters, digits and _")
        return given

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield what is read beside the run: where the recipe names it, and its path."""
        for name, detector in self.detectors.items():
            for what in ("constants", "geometry", "mask"):
                given = getattr(detector, what)
                path = given if isinstance(given, str) else getattr(given, "path", None)
                if path is not None:
                    yield f"detectors.{name}.{what}", path
            for key, table in detector.reductions.items():
                for step in reductions.steps_of(table):
                    if "mask" in step:
                        yield f"detectors.{name}.reductions.{key}.mask", step["mask"]


TABLES = {"constants": Constants, "geometry": GeometryTable, "beam": BeamTable, "mask": Mask}
"""The tables of a detector."""
