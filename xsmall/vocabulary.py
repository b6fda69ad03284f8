"""The words of xsmall: names of dims, coordinates and variables, units, reasons.

No other file spells these strings. A name says what the thing is in the terms of the field; one word for one thing.
"""

from collections.abc import Mapping
from enum import IntFlag
from types import MappingProxyType
from typing import Final

# ---- dims -----------------------------------------------------------------------------------------------------
EVENT: Final = "event"  # and its coordinate, the label of each event: its time, datetime64[ns] in UTC
SEGMENT: Final = "segment"
ROW: Final = "row"
COLUMN: Final = "column"
PIXEL_DIMS: Final = (SEGMENT, ROW, COLUMN)
FRAME_DIMS: Final = (EVENT, *PIXEL_DIMS)

ROI: Final = "roi"
Q: Final = "q"
TWO_THETA: Final = "two_theta"
RADIUS: Final = "radius"
AZIMUTH: Final = "azimuth"
DROPLET: Final = "droplet"
PEAK: Final = "peak"
K: Final = "k"  # how many photons a pixel holds
TAU: Final = "tau"  # time between two events
LAG_ROW: Final = "lag_row"
LAG: Final = "lag"  # the length of a lag in pixels
LAG_COLUMN: Final = "lag_column"
IMAGE_Y: Final = "image_y"
IMAGE_X: Final = "image_x"
CHANNEL: Final = "channel"  # of diodes and digitizers
SAMPLE: Final = "sample"  # of a waveform
WINDOW: Final = "window"  # of samples
HIT: Final = "hit"  # of a waveform: where it rises above a threshold
TEMPLATE: Final = "template"
PULSE: Final = "pulse"  # of several in one waveform
GAIN_STAGE: Final = "gain_stage"
MEMORY_CELL: Final = "memory_cell"  # dim of constants, and a coordinate of events: the cell that took the frame
REPLICA: Final = "replica"  # of a bootstrap
POINT: Final = "point"  # of points in space that are looked up
BIN_EDGE: Final = "bin_edge"  # the two borders of a bin, in CF bounds

# ---- coordinates of events ----------------------------------------------------------------------------------
USABLE: Final = "usable"  # (segment, row, column), bool: the mask that a file brings
PRESENT: Final = "present"  # (event, segment), bool
PULSE_ID: Final = "pulse_id"
FIDUCIAL: Final = "fiducial"
EVENT_CODES: Final = "event_codes"  # (event, event_code), bool: which codes the timing system sent
EVENT_CODE: Final = "event_code"
DESTINATION: Final = "destination"  # number of the beam's destination, -1 where it is not known
DAMAGE: Final = "damage"  # (event, segment), bits of the source
UNUSABLE: Final = "unusable"  # (event, segment), of calibrated frames: the segments that are NaN by calibration

# ---- variables of events ------------------------------------------------------------------------------------
I0: Final = "i0"
LASER_ON: Final = "laser_on"
XRAY_ON: Final = "xray_on"
DELAY: Final = "delay"
DELAY_NOMINAL: Final = "delay_nominal"
TIME_TOOL: Final = "time_tool"  # attributes of a corrected delay: what it was corrected by,
TIME_TOOL_SIGN: Final = "time_tool_sign"  # how that enters,
SIGN_CERTAINTY: Final = "time_tool_sign_certainty"  # and by how many standard errors it was found
TT_PREFIX: Final = "tt_"  # of what the time tool measures
TT_POSITION: Final = "tt_position"
TT_AMPLITUDE: Final = "tt_amplitude"
TT_FWHM: Final = "tt_fwhm"
STEP: Final = "step"
SCAN_PREFIX: Final = "scan_"  # scan_<motor>
MISSING_VARIABLES: Final = "missing_variables"  # attribute, JSON: event variables that a run cannot give, and why

# ---- nodes and variables of a run -----------------------------------------------------------------------------
RAW: Final = "raw"
SOURCE_TIMESTAMP: Final = "psana_timestamp"  # the source's own 64-bit time, as psana shows it
EXPERIMENT: Final = "experiment"
DETECTOR_IDS: Final = "detector_ids"  # serial numbers of the segments, in their order
DETECTOR_ID: Final = "detector_id"  # attribute of raw: type and serial numbers, as psana's database has it
SEGMENT_IDS: Final = "segment_ids"  # attribute of raw and of constants, JSON: serial number by label of the segment
DETECTOR_SHAPE: Final = "detector_shape"  # attribute: segments, rows, columns of the whole, as far as they are known
LEFT_OUT: Final = "left_out"  # what of a source could not be brought to arrays, and why
TRUNCATED_BYTES: Final = "truncated_bytes"  # behind the last whole datagram of a file
UNREADABLE_EVENTS: Final = "unreadable_events"  # how many events could not be understood; they are flagged
MISSING_CHUNKS: Final = "missing_chunks"  # parts of a stored run that are not in the file
DAMAGED_CHUNKS: Final = "damaged_chunks"  # parts of a stored run that cannot be read
DAMAGED_EVENTS: Final = "damaged_events"  # how many events of a detector are flagged as damaged
LOST_EVENTS: Final = "lost_events"  # events that an index file knows, and whose data are not there
WAITING_EVENTS: Final = "waiting_events"  # of a run that is still written: not yet there in all streams
REPEATED_TIMES: Final = "repeated_times"  # records whose time their stream has already had
OUT_OF_ORDER_TIMES: Final = "out_of_order_times"  # records that come after a later one
MISSING_FILES: Final = "missing_files"  # files that the others name, and that are not there
UNREADABLE_PARTS: Final = "unreadable_parts"  # parts of files that could not be read while a result was computed
UNREADABLE: Final = "unreadable"  # where and why, the first of them
LOST: Final = "lost"  # attribute of frames and of every result of them, JSON: what the source had lost, with counts
CALIBRATED: Final = "calibrated"
EVENTS_NODE: Final = "events"  # the node of the event variables
CONFIG_NODE: Final = "config"  # child of a detector's node: its configuration

# ---- coordinates of pixels ----------------------------------------------------------------------------------
GEOMETRY: Final = "geometry"  # scalar: token as value, the rule as JSON in attrs[RULE]
RULE: Final = "rule"
X: Final = "x"
Y: Final = "y"
Z: Final = "z"
POSITION: Final = (X, Y, Z)

# ---- beam ---------------------------------------------------------------------------------------------------
PHOTON_ENERGY: Final = "photon_energy"
DISTANCE: Final = "distance"
CENTER_X: Final = "center_x"
CENTER_Y: Final = "center_y"
TILT_X: Final = "tilt_x"
TILT_Y: Final = "tilt_y"
TILT_Z: Final = "tilt_z"

# ---- derived per pixel --------------------------------------------------------------------------------------
SOLID_ANGLE: Final = "solid_angle"
POLARIZATION: Final = "polarization"
AREA: Final = "area"
MASK: Final = "mask"

# ---- constants ----------------------------------------------------------------------------------------------
PEDESTAL: Final = "pedestal"
NOISE: Final = "noise"
GAIN: Final = "gain"
OFFSET: Final = "offset"
STATUS: Final = "status"
THRESHOLD: Final = "threshold"  # of the analogue gain, between gain stages
DETECTOR_TYPE: Final = "detector_type"  # attribute of raw and of constants
GAIN_CONTROL: Final = "gain_control"  # (segment, row, column) configuration bits that select the gain range of a pixel

# ---- results ------------------------------------------------------------------------------------------------
SUM: Final = "sum"
VALUE: Final = "value"  # of a user's function that returns one thing
MEAN: Final = "mean"
MEDIAN: Final = "median"
MAX: Final = "max"
MIN: Final = "min"
FULL_SUM: Final = "full_sum"  # the mean times all pixels of a region, also those that are not valid
N_SATURATED: Final = "n_saturated"
MOMENT_PREFIX: Final = "moment_"  # moment_row_column, moment_x_y: central second moments
COM_ROW: Final = "com_row"
COM_COLUMN: Final = "com_column"
N_VALID: Final = "n_valid"
INTENSITY: Final = "intensity"
NORM: Final = "norm"  # what the valid pixels of a bin weigh together
WITHOUT_ENERGY: Final = "without_energy"  # events whose photon energy is not known
ANISOTROPY: Final = "anisotropy"
ORDER: Final = "order"
PROJECTION: Final = "projection"
HISTOGRAM: Final = "histogram"
N_BELOW: Final = "n_below"  # values below the lowest bin
N_ABOVE: Final = "n_above"
REBINNED: Final = "rebinned"
IMAGE: Final = "image"
N_DROPLETS: Final = "n_droplets"
INTEGRAL: Final = "integral"  # of a waveform, above its baseline
AMPLITUDE: Final = "amplitude"
TIME: Final = "time"  # in samples
WIDTH: Final = "width"
N_HITS: Final = "n_hits"
COEFFICIENT: Final = "coefficient"
EXPLAINED: Final = "explained"  # which share of the squares a fit has
RESIDUAL: Final = "residual"  # rms of what a fit leaves
NEXT_AMPLITUDE: Final = "next_amplitude"  # of the second highest top
N_PEAKS: Final = "n_peaks"
IS_HIT: Final = "is_hit"  # whether an event has enough peaks
BACKGROUND: Final = "background"  # around a peak, of a waveform: mean
BACKGROUND_NOISE: Final = "background_noise"  # and standard deviation
SNR: Final = "snr"  # signal-to-noise ratio
N_PIXELS: Final = "n_pixels"
TOUCHES: Final = "touches"  # a droplet: the border of its segment, or a pixel that is not used
FIRST_PREFIX: Final = "first_"  # first_row ... last_column: the outline of a droplet
LAST_PREFIX: Final = "last_"
IS_CUT: Final = "is_cut"  # whether a padded list leaves something out
N_K: Final = "n_k"  # pixels that hold k photons
PHOTONS: Final = "photons"  # of each pixel
PIXEL: Final = (
    "pixel"  # sparse frames: the pixels of each event that are not zero, counted over segment, row and column,
)
PIXEL_VALUE: Final = "pixel_value"  # their values,
ENTRY: Final = "entry"  # the dim of both lists in a file,
N_ENTRIES: Final = "n_entries"  # and how many there are;
LOST_PIXELS: Final = "lost_pixels"  # where runs of pixels that this event lacks begin and end,
LOST_BORDER: Final = "lost_border"  # the dim of that list,
USED: Final = "used"  # and the pixels that may be used in any event
FRAME_SIZE: Final = "frame_size"  # attribute of lost pixels: of how many
COUNTED_OVER: Final = "counted_over"  # attribute of their pixels: the labels that these are counted over
MEAN_COUNT: Final = "mean_count"  # photons per valid pixel
CONTRAST: Final = "contrast"  # of speckle: one over the number of modes
N_MODES: Final = "n_modes"
N_PAIRS: Final = "n_pairs"  # pairs of photons in one pixel
VISIBILITY: Final = "visibility"
G2: Final = "g2"  # correlation of intensities in time
TWO_TIME: Final = "two_time"
AUTOCORRELATION: Final = "autocorrelation"
COUNT: Final = "count"
COUNT_SUFFIX: Final = "_count"
N_EVENTS: Final = "n_events"  # events in an exposure of a detector that integrates several, or in a sum
N_WITHOUT_CLASS: Final = "n_without_class"  # events that are in no sum, since their class is not known
TAIL_EVENTS: Final = "tail_events"  # attribute: events behind the last exposure, in none
SPANS_STEPS: Final = "spans_steps"  # of an exposure: its events belong to several steps
STATISTIC: Final = "statistic"  # attribute: whether values were summed or averaged
DIFFERENCE: Final = "difference"  # attribute: which bin was subtracted from which
MEAN_SUFFIX: Final = "_mean"  # of a binned variable inside its bins
STD_SUFFIX: Final = "_std"
STDERR_SUFFIX: Final = "_stderr"
VARIANCE_SUFFIX: Final = "_variance"
BOUNDS_SUFFIX: Final = "_bounds"
TOLERANCE: Final = "tolerance"  # attribute of bins that are steps
N_OUTSIDE: Final = "n_outside"  # attribute of a cube: events in no bin
N_DROPPED_SHOTS: Final = "n_dropped_shots"  # attribute of averages and cubes: events without X-rays, left out
WEIGHTS: Final = "weights"  # attribute of a cube: the variable that values are taken relative to,
WEIGHT_SUFFIX: Final = "_weight"  # its mean in the events of a value,
COVARIANCE_SUFFIX: Final = "_covariance"  # and how the two go together
RATIO: Final = "ratio"  # statistic of a cube: of value and weight, taken event by event
COMPANIONS: Final = (
    *(STD_SUFFIX, STDERR_SUFFIX, COUNT_SUFFIX, VARIANCE_SUFFIX),
    *(WEIGHT_SUFFIX, f"{WEIGHT_SUFFIX}{STD_SUFFIX}", COVARIANCE_SUFFIX),
    *(f"_{RATIO}", f"_{RATIO}{STD_SUFFIX}", f"_{RATIO}{STDERR_SUFFIX}"),
)  # ends of the names of what a cube has of a variable beside its mean
N_BAD_WEIGHTS: Final = "n_bad_weights"  # attribute: events left out since their weight is none
OFFSET_SUFFIX: Final = "_offset"  # of a regression: the value at a weight of 0
NORMALIZED: Final = "normalized"  # attribute: by which estimator, per what
SELECTION: Final = "selection"  # attribute, JSON: cuts and how many events passed them
BINNED_EVENTS: Final = "binned_events"  # scalar coordinate of a cube: how many events; which, in its attributes
FIRST_EVENT: Final = "first"
LAST_EVENT: Final = "last"
SAMPLE_OF_EVENTS: Final = "sample"
RUNS: Final = "runs"
N_WITHOUT_SMALL_DATA: Final = "n_without_small_data"  # attributes of images in a cube: events that only one has
N_WITHOUT_IMAGE: Final = "n_without_image"
IMAGES_JOINED: Final = "images_joined"  # JSON: how many events were offered and used, by token of their labels
N_PREFIX: Final = "n_"  # of counts: n_droplets
RAGGED_DIM: Final = "ragged_dim"  # attribute of a variable of lists: the dim that its values get in a file
RAGGED_DTYPE: Final = "ragged_dtype"  # and their dtype
SAMPLE_DIMENSION: Final = "sample_dimension"  # CF attribute of a count: the dim whose entries it counts
BOUNDS: Final = "bounds"  # CF attribute of a coordinate: the name of the one that holds its borders

# ---- produced runs -----------------------------------------------------------------------------------------
AVERAGE: Final = "average"  # of all events of a run, with _std, _stderr, _count, _variance
FAULT: Final = "fault"  # (event), flags: what a detector lacks of an event
SEGMENTS_MISSING: Final = "segments_missing"  # the one of them with which an event has results
N_SEGMENTS: Final = "n_segments"  # (event): segments that were used

# ---- functions of a user -------------------------------------------------------------------------------------
FAILED: Final = "failed"  # (event), bool: the function raised
ERROR: Final = "error"  # (event), text: what it said
MISSING: Final = "missing"  # (event), text: what the event lacks of what the function takes

# ---- the truth of a simulated run ------------------------------------------------------------------------------
RING: Final = "ring"
RING_Q: Final = "ring_q"
RING_WIDTH: Final = "ring_width"  # rms in q
RING_PHOTONS: Final = "ring_photons"  # per pixel at the top of the ring, for i0 = 1
RING_CHANGE: Final = "ring_change"  # relative, for a response of 1
RING_SHIFT: Final = "ring_shift"  # in q, for a response of 1
RESPONSE: Final = "response"  # of the sample to the laser, per event
JITTER: Final = "jitter"  # of the laser's arrival, per event
N_PHOTONS: Final = "n_photons"
REASONS: Final = "reasons"  # flags of vocabulary.Reason

# ---- common mode and darks -----------------------------------------------------------------------------------
COMMON_MODE: Final = "common_mode"  # attribute: what was done
CORRECTED: Final = "corrected"
CORRECTION_SUFFIX: Final = "_correction"  # <unit>_correction (event, segment, <unit>_row, <unit>_column)
N_PIXELS_SUFFIX: Final = "_n_pixels"
ROW_SUFFIX: Final = "_row"  # <unit>_row: label of the first row of each unit
COLUMN_SUFFIX: Final = "_column"
MODE: Final = "mode"  # dim of a comparison of common modes
FRACTION_CORRECTED: Final = "fraction_corrected"
MINIMUM: Final = "minimum"
MAXIMUM: Final = "maximum"
BOUND: Final = "bound"  # the lower and the upper one
LIMITS_SUFFIX: Final = "_limits"

# ---- attributes ---------------------------------------------------------------------------------------------
UNITS: Final = "units"
LONG_NAME: Final = "long_name"
ANCILLARY_VARIABLES: Final = "ancillary_variables"  # CF attribute: the variable that says where this one is known
FLAG_VALUES: Final = "flag_values"  # CF: the numbers of a variable that stand for words,
FLAG_MASKS: Final = "flag_masks"  # CF: the bits of a variable of flags,
FLAG_MEANINGS: Final = "flag_meanings"  # and their names
RUN: Final = "run"  # number of the run
RUN_RANGE: Final = "run_range"  # first and last run that constants are valid for
SOURCE: Final = "source"  # where the data were read from
PARAMETERS: Final = "parameters"  # JSON of what a result was made with
PROVENANCE: Final = "xsmall_provenance"  # JSON on every stored result
LAYOUT: Final = "xsmall_layout"  # name and number of the layout of a stored file
CHECKSUM: Final = "xsmall_checksum"  # of the descriptions of all groups and arrays of a Zarr store

# ---- units (CF, UDUNITS spelling) -----------------------------------------------------------------------------
METRE: Final = "m"
DEGREE: Final = "degree"
INVERSE_ANGSTROM: Final = "angstrom-1"
STERADIAN: Final = "sr"
ELECTRONVOLT: Final = "eV"
KILOELECTRONVOLT: Final = "keV"
PHOTON: Final = "photon"  # a unit, and the dim of lists of photons
ADU: Final = "ADU"
PICOSECOND: Final = "ps"
DIMENSIONLESS: Final = "1"

UNITS_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        X: METRE,
        Y: METRE,
        Z: METRE,
        DISTANCE: METRE,
        CENTER_X: METRE,
        CENTER_Y: METRE,
        RADIUS: METRE,
        IMAGE_X: METRE,
        IMAGE_Y: METRE,
        AZIMUTH: DEGREE,
        TWO_THETA: DEGREE,
        TILT_X: DEGREE,
        TILT_Y: DEGREE,
        TILT_Z: DEGREE,
        Q: INVERSE_ANGSTROM,
        SOLID_ANGLE: STERADIAN,
        POLARIZATION: DIMENSIONLESS,
        AREA: "m2",
        PHOTON_ENERGY: ELECTRONVOLT,
        DELAY: PICOSECOND,
        DELAY_NOMINAL: PICOSECOND,
        TT_POSITION: PICOSECOND,
        TT_FWHM: PICOSECOND,
        TT_AMPLITUDE: DIMENSIONLESS,
        PEDESTAL: ADU,
        NOISE: ADU,
        OFFSET: ADU,
        GAIN: "ADU/keV",
        N_VALID: DIMENSIONLESS,
        N_PIXELS: DIMENSIONLESS,
        N_DROPLETS: DIMENSIONLESS,
        COUNT: DIMENSIONLESS,
    }
)
"""The unit of every name whose unit does not depend on the data."""


class Reason(IntFlag):
    """Why a pixel is not to be trusted, one bit each; 0 means that it can be trusted.

    Bits 0 to 15 hold for the whole run, bits from 16 for one event.

    Examples
    --------
    >>> import xsmall as xs
    >>> flags = int(xs.Reason.HOT | xs.Reason.EDGE)
    >>> flags, bool(flags & xs.Reason.DEAD)
    (18, False)
    """

    DEAD = 1 << 0
    HOT = 1 << 1
    NOISY = 1 << 2
    OTHER_STATUS = 1 << 3
    EDGE = 1 << 4
    CENTRAL = 1 << 5
    UNBONDED = 1 << 6
    UNBONDED_NEIGHBOUR = 1 << 7
    NEIGHBOUR_OF_BAD = 1 << 8
    USER = 1 << 9
    SHADOW = 1 << 10
    BAD_GAIN_CODE = 1 << 16
    SATURATED = 1 << 17
    NEAR_SWITCHING = 1 << 18
    GAIN_STAGE_STATUS = 1 << 19
    MEMORY_CELL_STATUS = 1 << 20
    MISSING = 1 << 21
    DAMAGED = 1 << 22
    NOT_FINITE = 1 << 23
    PADDED = 1 << 24


def reason_names(reasons: int) -> tuple[str, ...]:
    """Names of the bits that are set in ``reasons``, in lower case, lowest bit first."""
    return tuple(str(r.name).lower() for r in Reason if reasons & r)
