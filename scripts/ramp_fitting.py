"""Step ramp_fitting: find the jumps that cosmic rays cause in each ramp, and fit its count rate without them."""

import argparse
import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from rampflow import dq as flags
from rampflow.detector import BORDER, MINIMUM_RESULTANTS, SCIENCE, SEARCHABLE_RESULTANTS
from rampflow.errors import RampflowError, counted
from rampflow.files.asdf_writer import EmptyArray
from rampflow.files.data_models import data_model_of
from rampflow.files.yaml_tree import tagged
from rampflow.quality.measures import judge_fits, largest_chi2, summarize_fits, summarize_jumps
from rampflow.step.declaration import Parameter, Range, Reference, Step
from rampflow.step.exposure import Exposure, ExposureArray
from rampflow.step.job import Job
from rampflow.step.logs import log_numbers
from rampflow.step.product import Product
from rampflow.step.program import run_step

BLOCK = 32  #: rows that are fitted together: with 16, Python takes 0.1 s more for a full frame
PORTION = 16  #: rows of the portions of an exposure in which jumps are counted; the first of each is a sample of the fits
LARGEST_EVENT_WIDTH = 200  #: pixels; limit of the full axes of an expanded event
UNKNOWN_PHOTOMETRY = -999999  #: value of the photometric entries until the photom step sets them

#: Function of `start` and `stop` that reads these rows of a frame; `stop` is the row after the last.
RowReader = Callable[[int, int], np.ndarray]

#: Arrays that the image takes over from the ramp.
CARRIED_ARRAYS = ("amp33",) + tuple(
    f"{kind}border_ref_pix_{side}" for kind in ("", "dq_") for side in ("left", "right", "top", "bottom")
)

GAIN = Range(0.1, 20, "electron/DN", "measured gains are 1.5 to 2.5", median=(0.7, 7))
READNOISE = Range(
    0.1,
    2000,
    "DN",
    "detectors have 5 to 20 DN per read in the median; pixels with telegraph noise have hundreds",
    median=(0.5, 200),
)


class _Algorithm(Parameter):
    """Name of the algorithm. The error for romancal's deprecated one names the replacement."""

    def parse(self, text: str) -> Any:
        if text == "ols_cas22":
            raise argparse.ArgumentTypeError("ols_cas22 is deprecated in romancal and not offered here; use likely")
        return super().parse(text)


STEP = Step(
    name="ramp_fitting",
    summary="Fit a count rate to the ramp of each pixel, without the resultants that cosmic rays hit (Brandt 2024).",
    references=(
        Reference(
            "readnoise",
            "read noise of one read (DN), with the reference border",
            needed=True,
            plausible={"data": READNOISE},
            made_for=("detector", "exposure_type"),
        ),
        Reference("gain", "gain (electron/DN), with the reference border", needed=True, plausible={"data": GAIN}),
    ),
    parameters=(
        _Algorithm(
            "algorithm",
            str,
            "likely",
            "fitting algorithm: likely, a likelihood fit; ols_cas22, deprecated in romancal, is not offered",
            choices=("likely",),
        ),
        Parameter("rejection_threshold", float, 4.5, "minimum significance of a jump", "sigma", minimum=0),
        Parameter("use_ramp_jump_detection", bool, True, "search the ramps for jumps (cosmic rays)"),
        Parameter(
            "saturated_in_median",
            bool,
            False,
            "include saturated differences in the median that sets the noise of the jump search, as romancal does",
            in_romancal=False,
        ),
        Parameter("include_var_rnoise", bool, False, "write the read-noise variance, var_rnoise"),
        Parameter("record_jumps", bool, True, "write jump_indices: resultant, row and column of each jump"),
        Parameter("expand_large_events", bool, False, "flag the surroundings of large events (snowballs) as jumps"),
        Parameter("min_sat_area", float, 1.0, "minimum area of the saturated core of a large event", "pixels", minimum=0),
        Parameter("min_jump_area", float, 6.0, "minimum area of the jumps of a large event", "pixels", minimum=0),
        Parameter("expand_factor", float, 1.9, "factor by which the minor axis of a large event grows", minimum=0),
        Parameter("sat_required_snowball", bool, True, "require a saturated core in a large event"),
        Parameter(
            "min_sat_radius_extend",
            float,
            0.5,
            "minor axis above which a saturated core is extended",
            "pixels",
            minimum=0,
        ),
        Parameter("sat_expand", int, 2, "growth of the radius of a saturated core", "pixels", minimum=0),
        Parameter(
            "exclude_extended_cores",
            bool,
            False,
            "exclude from the fit resultants that the extension of a saturated core flags; false: fit them, as romancal does",
            in_romancal=False,
        ),
        Parameter(
            "mirrored_events",
            bool,
            False,
            "look for the core of a large event in the mirror image of its ellipse, as romancal does",
            in_romancal=False,
        ),
        Parameter(
            "edge_size", int, 0, "distance from the detector's edge within which no core is required", "pixels", minimum=0
        ),
    ),
)


@dataclasses.dataclass(frozen=True)
class RampFit:
    """Straight lines fitted to ramps: arrays float32 of shape (row, column), NaN where nothing could be fitted.

    Attributes
    ----------
    slope : numpy.ndarray
        Count rate, DN/s.
    err : numpy.ndarray
        Its standard deviation, DN/s.
    var_poisson, var_rnoise : numpy.ndarray
        Variance from photon noise and from read noise, (DN/s)².
    chisq : numpy.ndarray
        χ² of the fit.
    """

    slope: np.ndarray
    err: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray
    chisq: np.ndarray


# ------------------------------------------------------------------------------------------------------------ the fit
def difference_covariance(read_pattern: list[list[int]], frame_time: float) -> np.ndarray:
    """Covariance of the differences of successive resultants, divided by their time steps (Brandt 2024, PASP 136, 045004).

    A resultant is the mean of N reads at the times t_k. For one count per second its photon noise has the variance
    τ = Σ (2N + 1 − 2k) t_k / N² (k from 1), and its covariance with any later resultant is its mean time t. Read noise is
    independent from read to read.

    Parameters
    ----------
    read_pattern : list of list of int
        1-based reads of each resultant.
    frame_time : float
        Seconds per read.

    Returns
    -------
    numpy.ndarray
        Of shape (6, differences), float64. Its rows are

        0. the time step, s;
        1. the variance from photons, per count/s;
        2. the covariance from photons with the difference before, per count/s, 0 for the first;
        3. the variance from read noise, per squared noise of a read;
        4. the covariance from read noise with the difference before, likewise;
        5. whether the difference may be left out together with the next one: 1 where the resultant between them has several
           reads, so that a jump within it spoils both.

    Raises
    ------
    RampflowError
        There is only one resultant.
    """
    if len(read_pattern) < MINIMUM_RESULTANTS:
        raise RampflowError(
            f"the ramp has {len(read_pattern)} resultant; ramp_fitting needs at least {MINIMUM_RESULTANTS}, "
            "so leave this exposure out"
        )
    times = [np.array(reads) * frame_time for reads in read_pattern]
    reads = np.array([len(t) for t in times])
    mean = np.array([t.mean() for t in times])
    tau = np.array([(np.arange(2 * len(t) - 1, 0, -2) * t).sum() / len(t) ** 2 for t in times])
    step = np.diff(mean)
    link = 1 / (step[1:] * step[:-1])
    return np.array(
        [
            step,
            (tau[:-1] + tau[1:] - 2 * mean[:-1]) / step**2,
            np.r_[0, (mean[1:-1] - tau[1:-1]) * link],
            (1 / reads[:-1] + 1 / reads[1:]) / step**2,
            np.r_[0, -link / reads[1:-1]],
            np.r_[reads[1:-1] > 1, False],
        ]
    )


def jump_thresholds(rejection_threshold: float) -> tuple[float, float]:
    """Compute the decrease of χ² above which leaving out differences shows a jump.

    Parameters
    ----------
    rejection_threshold : float
        Minimum significance of a jump, sigma.

    Returns
    -------
    single : float
        Threshold for leaving out one difference: `rejection_threshold` squared.
    pair : float
        Threshold for leaving out two. With two degrees of freedom, chance exceeds it with the same probability.
    """
    x = rejection_threshold / math.sqrt(2)
    if x < 26:  # erfc underflows for larger x, where its asymptotic series is accurate
        log_chance = math.log(math.erfc(x))
    else:
        log_chance = math.log1p(-1 / (2 * x * x)) - x * x - math.log(x * math.sqrt(math.pi))
    return rejection_threshold * rejection_threshold, -2 * log_chance


def has_gain(gain: np.ndarray) -> np.ndarray:
    """Tell where the gain is plausible.

    Parameters
    ----------
    gain : numpy.ndarray
        Gain, electron/DN, of any shape.

    Returns
    -------
    numpy.ndarray
        Whether the gain is within `GAIN`, bool of the same shape; False where it is not finite.
    """
    return GAIN.contains(gain)


def flag_unknown_noise(pixeldq: np.ndarray, readnoise: np.ndarray, *, plausible: Range = READNOISE) -> np.ndarray:
    """Flag pixels of implausible read noise, which sets the weights and errors of their fit.

    Parameters
    ----------
    pixeldq : numpy.ndarray
        Flags per pixel, uint32.
    readnoise : numpy.ndarray
        Noise of one read, DN, of the same shape.
    plausible : Range
        Limits of the read noise, DN.

    Returns
    -------
    numpy.ndarray
        Flags, with DO_NOT_USE where the read noise is not plausible.
    """
    return pixeldq | ~plausible.contains(readnoise) * np.uint32(flags.DO_NOT_USE)


def find_jumps(
    resultants: np.ndarray,
    groupdq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    covariance: np.ndarray,
    *,
    rejection_threshold: float | None = 4.5,
    saturated_in_median: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the jumps in ramps: differences whose omission lowers χ² significantly (Brandt 2024, PASP 136, 045005).

    A difference is that of two successive resultants. The photon noise of a ramp follows from its median difference, which a
    jump hardly changes. Each iteration of the search leaves out one difference, or the two around a resultant of several reads:
    those whose omission lowers χ² by the most beyond its threshold. The search ends when no omission passes its threshold, or
    when at most three differences are left.

    There is no search in ramps of two or three resultants. A single difference always fits, and of two that disagree, each may
    be the one with the jump.

    Differences of saturated resultants are near zero at any count rate. Where they are the majority, a median that includes
    them underestimates the photon noise, and good differences are taken for jumps.

    Parameters
    ----------
    resultants : numpy.ndarray
        Ramps, DN, float32 of shape (resultant, row, column).
    groupdq : numpy.ndarray
        Their flags, uint8 of the same shape. A difference with a flagged resultant is not used.
    gain : numpy.ndarray
        Gain, electron/DN, float32 of shape (row, column).
    readnoise : numpy.ndarray
        Noise of one read, DN, float32 of shape (row, column).
    covariance : numpy.ndarray
        From `difference_covariance`.
    rejection_threshold : float or None
        Minimum significance of a jump, sigma; `None` for no search.
    saturated_in_median : bool
        Whether the median includes differences with a SATURATED resultant, as in romancal.

    Returns
    -------
    rate : numpy.ndarray
        Count rate of this first fit, DN/s, float64 of shape (row, column).
    jumps : numpy.ndarray
        JUMP_DET at the second resultant of each difference that is left out, uint8 of the shape of `resultants`.
    """
    from rampflow.kernels import ramp_fitting as kernels

    searched = rejection_threshold is not None and len(resultants) >= SEARCHABLE_RESULTANTS
    single, pair = (math.inf, math.inf) if rejection_threshold is None or not searched else jump_thresholds(rejection_threshold)
    rate = np.empty(gain.shape)
    jumps = np.zeros(groupdq.shape, np.uint8)
    network = kernels.sorting_network(len(resultants) - 1)
    gain = np.where(has_gain(gain), gain, np.float32(np.nan))
    not_in_median = np.uint8(0 if saturated_in_median else flags.SATURATED)
    jump = np.uint8(flags.JUMP_DET)
    kernels.search_ramps(
        resultants, groupdq, gain, readnoise, covariance, network, single, pair, not_in_median, jump, rate, jumps
    )
    return rate, jumps


def fit_slopes(
    resultants: np.ndarray,
    groupdq: np.ndarray,
    jumps: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    covariance: np.ndarray,
    rate: np.ndarray,
) -> RampFit:
    """Fit slopes of maximum likelihood to the differences that are not flagged (Brandt 2024, PASP 136, 045004).

    Parameters
    ----------
    resultants : numpy.ndarray
        Ramps, DN, float32 of shape (resultant, row, column).
    groupdq : numpy.ndarray
        Their flags, uint8 of the same shape. A difference with a flagged resultant is not used.
    jumps : numpy.ndarray
        Nonzero at the second resultant of each difference to leave out, uint8 of the shape of `resultants`.
    gain : numpy.ndarray
        Gain, electron/DN, float32 of shape (row, column).
    readnoise : numpy.ndarray
        Noise of one read, DN, float32 of shape (row, column).
    covariance : numpy.ndarray
        From `difference_covariance`.
    rate : numpy.ndarray
        Count rate that sets the photon noise, DN/s, float64 of shape (row, column). A negative rate counts as 0.

    Returns
    -------
    RampFit
        Slopes with their errors.
    """
    from rampflow.kernels import ramp_fitting as kernels

    gain = np.where(has_gain(gain), gain, np.float32(np.nan))
    results = [np.empty(gain.shape, np.float32) for _ in dataclasses.fields(RampFit)]
    kernels.solve_ramps(resultants, groupdq, jumps, gain, readnoise, covariance, rate, *results)
    return RampFit(*results)


def fit_ramps(
    resultants: np.ndarray,
    groupdq: np.ndarray,
    gain: np.ndarray,
    readnoise: np.ndarray,
    read_pattern: list[list[int]],
    frame_time: float,
    *,
    rejection_threshold: float | None = 4.5,
    saturated_in_median: bool = False,
) -> tuple[RampFit, np.ndarray]:
    """Find the jumps in ramps, and fit slopes without them.

    Parameters
    ----------
    resultants : numpy.ndarray
        Ramps, DN, float32 of shape (resultant, row, column).
    groupdq : numpy.ndarray
        Their flags, uint8 of the same shape.
    gain : numpy.ndarray
        Gain, electron/DN, float32 of shape (row, column).
    readnoise : numpy.ndarray
        Noise of one read, DN, float32 of shape (row, column).
    read_pattern : list of list of int
        1-based reads of each resultant.
    frame_time : float
        Seconds per read.
    rejection_threshold : float or None
        As in `find_jumps`.
    saturated_in_median : bool
        As in `find_jumps`.

    Returns
    -------
    fit : RampFit
        Slopes with their errors.
    jumps : numpy.ndarray
        JUMP_DET where a jump was found, uint8 of the shape of `resultants`.

    Raises
    ------
    RampflowError
        There is only one resultant.
    """
    covariance = difference_covariance(read_pattern, frame_time)
    arrays = resultants, groupdq, gain, readnoise, covariance
    rate, jumps = find_jumps(*arrays, rejection_threshold=rejection_threshold, saturated_in_median=saturated_in_median)
    return fit_slopes(resultants, groupdq, jumps, gain, readnoise, covariance, rate), jumps


def fit_uniform(resultants: np.ndarray, read_pattern: list[list[int]], frame_time: float) -> np.ndarray:
    """Fit slopes with equal weights of all reads, whatever their flags. These weights are optimal if read noise dominates.

    Parameters
    ----------
    resultants : numpy.ndarray
        Ramps, DN, of shape (resultant, row, column).
    read_pattern : list of list of int
        1-based reads of each resultant.
    frame_time : float
        Seconds per read.

    Returns
    -------
    numpy.ndarray
        DN/s, float64 of shape (row, column).
    """
    n = np.array([len(reads) for reads in read_pattern])
    t = np.array([np.mean(reads) for reads in read_pattern]) * frame_time
    weights = n * (n.sum() * t - (n * t).sum()) / (n.sum() * (n * t**2).sum() - (n * t).sum() ** 2)
    slope = np.zeros(resultants.shape[1:])
    for weight, resultant in zip(weights, resultants, strict=True):
        slope += weight * resultant.astype(np.float64)
    return slope


# ---------------------------------------------------------------------------------------------------------- the flags
def image_dq(pixeldq: np.ndarray, groupdq: np.ndarray, slope: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Combine the flags of a ramp into those of its image.

    To the flags of a pixel are added

    - JUMP_DET and SATURATED if any resultant has them;
    - DO_NOT_USE if fewer than two resultants are neither SATURATED nor DO_NOT_USE, or if the slope is not finite;
    - NO_GAIN_VALUE and DO_NOT_USE if the gain is not plausible;
    - UNRELIABLE_SLOPE if there are too few resultants to search for jumps, so that the slope may have one.

    romancal flags neither implausible gains nor slopes that are not finite. Ramps without two successive good resultants have
    such slopes.

    Parameters
    ----------
    pixeldq : numpy.ndarray
        Flags per pixel, uint32 of shape (row, column).
    groupdq : numpy.ndarray
        Flags per resultant with the jumps found, uint8 of shape (resultant, row, column).
    slope : numpy.ndarray
        Count rate, DN/s, of shape (row, column).
    gain : numpy.ndarray
        Gain, electron/DN, of shape (row, column).

    Returns
    -------
    numpy.ndarray
        Flags of the image, uint32 of shape (row, column).
    """
    result = pixeldq | (np.bitwise_or.reduce(groupdq, axis=0) & np.uint8(flags.JUMP_DET | flags.SATURATED))
    good = np.zeros(pixeldq.shape, np.uint16)
    for group in groupdq:
        good += ~flags.has(group, flags.SATURATED | flags.DO_NOT_USE)
    known = has_gain(gain)
    result[~known] |= np.uint32(flags.NO_GAIN_VALUE)
    result[(good <= 1) | ~known | ~np.isfinite(slope)] |= np.uint32(flags.DO_NOT_USE)
    if len(groupdq) < SEARCHABLE_RESULTANTS:
        result |= np.uint32(flags.UNRELIABLE_SLOPE)
    return result


@dataclasses.dataclass(frozen=True)
class _Event:
    """Ellipse with the second moments of a connected region; its angle runs from the row axis to the column axis."""

    row: float
    column: float
    major: float  # full axes, pixels
    minor: float
    angle: float  # of the major axis, radians

    def contains(self, other: "_Event", *, mirrored: bool) -> bool:
        """Whether the center of another event is in this one, or in its mirror image at the diagonal of the frame."""
        if not self.minor:
            return False
        row, column = other.row - self.row, other.column - self.column
        if mirrored:
            row, column = column, row
        cosine = math.cos(self.angle)
        sine = math.sin(self.angle)
        along, across = row * cosine + column * sine, row * sine - column * cosine
        return (2 * along / self.major) ** 2 + (2 * across / self.minor) ** 2 <= 1

    def near_edge(self, shape: tuple[int, int], distance: int) -> bool:
        return not all(distance <= x <= n - distance for x, n in zip((self.row, self.column), shape, strict=True))

    def draw(self, shape: tuple[int, int], major: float, minor: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the pixels in the ellipse with the same center and angle, and the given full axes (pixels)."""
        from skimage.draw import ellipse

        along, across = (round(min(axis, LARGEST_EVENT_WIDTH) / 2) for axis in (major, minor))
        if not along or not across:
            return np.empty(0, int), np.empty(0, int)
        return ellipse(round(self.row), round(self.column), along, across, shape=shape, rotation=self.angle)


def _find_events(mask: np.ndarray, minimum_area: float) -> list[_Event]:
    """Connected regions (8 neighbors) of at least `minimum_area` pixels, holes included."""
    from skimage.measure import label, regionprops

    events = []
    for region in regionprops(label(mask)):
        # Test the area of the bounding box first: most regions are single pixels, and to fill the holes of each takes ten times
        # as long.
        if region.area_bbox < minimum_area or region.area_filled < minimum_area:
            continue
        # One pixel less, as in stcal: the axes are those of the centers of the pixels.
        major, minor = (max(length - 1, 0.0) for length in (region.axis_major_length, region.axis_minor_length))
        row, column = map(float, region.centroid)
        events.append(_Event(row, column, major, minor, region.orientation % math.pi))
    return events


def expand_large_events(
    groupdq: np.ndarray,
    *,
    min_sat_area: float = 1.0,
    min_jump_area: float = 6.0,
    expand_factor: float = 1.9,
    sat_required_snowball: bool = True,
    min_sat_radius_extend: float = 0.5,
    sat_expand: int = 2,
    edge_size: int = 0,
    mirrored_events: bool = False,
) -> tuple[np.ndarray, int]:
    """Flag the surroundings of large events (snowballs), whose charge is too faint to be found in single ramps.

    A large event is a connected area of jumps in one resultant that contains the center of a core. A core is a connected area
    of pixels that saturate in this resultant or in the next one.

    The minor axis of the event's ellipse is multiplied by `expand_factor`, and its major axis grows by the same number of
    pixels. The pixels in the larger ellipse are flagged JUMP_DET, except saturated ones. A core that saturates in this
    resultant is extended as well: from this resultant on, SATURATED replaces all flags of the pixels in its larger ellipse.

    Parameters
    ----------
    groupdq : numpy.ndarray
        Flags with the jumps found, uint8 of shape (resultant, row, column).
    min_sat_area, min_jump_area : float
        Minimum areas of a core and of an event, pixels.
    expand_factor : float
        Factor by which the minor axis grows.
    sat_required_snowball : bool
        Whether an event needs a core. If False, every area of jumps grows, and cores are not extended.
    min_sat_radius_extend : float
        Minor axis above which a core is extended, pixels.
    sat_expand : int
        Growth of the radius of a core, pixels.
    edge_size : int
        Distance from the edge of the detector, pixels, within which an event needs no core, since the core may lie outside.
    mirrored_events : bool
        Whether a core is looked for in the mirror image of an event at the diagonal of the frame, as in romancal.

    Returns
    -------
    groupdq : numpy.ndarray
        Flags with those of large events, a new array.
    events : int
        Number of expanded events.
    """
    groupdq = groupdq.copy()
    shape = groupdq.shape[1:]
    number = 0
    for k in range(1, len(groupdq)):
        saturated = [flags.has(group, flags.SATURATED) for group in groupdq[k - 1 : k + 2]]
        events = _find_events(flags.has(groupdq[k], flags.JUMP_DET), min_jump_area)
        if sat_required_snowball:
            cores = _find_events(saturated[1] & ~saturated[0], min_sat_area)
            next_cores = _find_events(saturated[2] & ~saturated[1], min_sat_area) if len(saturated) > 2 else []
            possible = cores + next_cores
            events = [
                event
                for event in events
                if event.near_edge(shape, edge_size) or any(event.contains(core, mirrored=mirrored_events) for core in possible)
            ]
            for core in cores:
                if core.minor > min_sat_radius_extend:
                    rows, columns = core.draw(shape, core.major + 2 * sat_expand, core.minor + 2 * sat_expand)
                    groupdq[k:, rows, columns] = flags.SATURATED
        for event in events:
            rows, columns = event.draw(shape, event.major + (expand_factor - 1) * event.minor, event.minor * expand_factor)
            group = groupdq[k, rows, columns]
            groupdq[k, rows, columns] = np.where(flags.has(group, flags.SATURATED), group, group | np.uint8(flags.JUMP_DET))
        number += len(events)
    return groupdq, number


# ----------------------------------------------------------------------------------------------------------- the step
def run(job: Job) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The run of the step.

    Raises
    ------
    RampflowError
        The ramp has too few resultants, or the shape of a reference is not that of the ramp.
    """
    exposure = job.exposure
    read_pattern, frame_time = exposure.read_pattern, exposure.frame_time
    try:
        covariance = difference_covariance(read_pattern, frame_time)
    except RampflowError as error:
        raise RampflowError(f"{exposure.path}: {error}") from None
    with job.open_reference("readnoise") as readnoise, job.open_reference("gain") as gain:
        fit_exposure(job, covariance, readnoise, gain)


def fit_exposure(job: Job, covariance: np.ndarray, readnoise: Exposure, gain: Exposure) -> None:
    """Fit all ramps of an exposure, and write the image.

    Parameters
    ----------
    job : Job
        The run of the step.
    covariance : numpy.ndarray
        From `difference_covariance`.
    readnoise, gain : Exposure
        The references.

    Raises
    ------
    RampflowError
        The shape of a reference is not that of the ramp.
    """
    from rampflow.kernels.float16 import to_float16

    parameters = job.parameters
    read_pattern = job.exposure.read_pattern
    frame_time = job.exposure.frame_time
    data, groupdq, pixeldq = ramp_arrays(job)
    read_gain = row_reader(gain, "gain", data.plane_shape)
    read_noise = row_reader(readnoise, "readnoise", data.plane_shape)
    search_options = {
        "rejection_threshold": parameters.rejection_threshold if parameters.use_ramp_jump_detection else None,
        "saturated_in_median": parameters.saturated_in_median,
    }
    if parameters.expand_large_events:
        rate, found, expanded = expanded_flags(job, covariance, read_gain, read_noise, search_options)

    shape = [n - 2 * BORDER for n in data.shape[1:]]
    planes = {name: EmptyArray(shape, dtype) for name, dtype in image_dtypes(job).items()}
    pixels = math.prod(shape)
    science = np.s_[..., BORDER:-BORDER]
    chi2_limits = largest_chi2(max(data.shape[0] - 2, 0))

    def _fit_rows(product, start, stop):
        rows = slice(start + BORDER, stop + BORDER)
        resultants = data.read_rows(rows.start, rows.stop)
        group = groupdq.read_rows(rows.start, rows.stop)
        gains = read_gain(rows.start, rows.stop)
        noise = read_noise(rows.start, rows.stop)
        gain_limits = job.plausible("gain", "data")
        noise_limits = job.plausible("readnoise", "data")
        unusual = gain_limits.count_unusual(gains[science]), noise_limits.count_unusual(noise[science])
        gains[~gain_limits.contains(gains)] = np.nan
        if parameters.expand_large_events:
            first_rate = rate[rows]
            # The extension of a core replaces the flags of the jumps found there. The fit still leaves these jumps out.
            new_flags = expanded[:, rows] & np.uint8(flags.JUMP_DET | flags.SATURATED)
            left_out = (found[:, rows] | new_flags) & np.uint8(flags.JUMP_DET)
        else:
            first_rate, left_out = find_jumps(resultants, group, gains, noise, covariance, **search_options)
            new_flags = left_out
        if parameters.exclude_extended_cores:
            group |= new_flags & np.uint8(flags.SATURATED)
        fit = fit_slopes(resultants, group, left_out, gains, noise, covariance, first_rate)
        # The first row of each portion is a sample that is large enough to judge the fits of the exposure.
        chi2, flagged, without = (array[..., ::PORTION, BORDER:-BORDER] for array in (fit.chisq, group, left_out))
        unused = flagged[:-1] | flagged[1:] | without[1:]
        fits = judge_fits(chi2.ravel(), unused.reshape(len(unused), -1), chi2_limits)
        group |= new_flags
        # Write each block to the file at once: to clear memory for the planes of the whole image would take 0.3 s.
        product.write_rows("data", start, fit.slope[science])
        for name in ("err", "var_poisson", "var_rnoise", "chisq"):
            if name in planes:
                product.write_rows(name, start, to_float16(getattr(fit, name))[science])
        with np.errstate(over="ignore", invalid="ignore"):  # a bad ramp may exceed the range of float16
            product.write_rows("dumo", start, (fit_uniform(resultants, read_pattern, frame_time) - fit.slope)[science])
        pixel_flags = flag_unknown_noise(pixeldq.read_rows(rows.start, rows.stop), noise, plausible=noise_limits)
        dq = image_dq(pixel_flags, group, fit.slope, gains)[science]
        product.write_rows("dq", start, dq)
        usable = np.count_nonzero(~flags.has(dq, flags.DO_NOT_USE))
        without_gain = np.count_nonzero(~has_gain(gains[science]))
        without_noise = np.count_nonzero(~noise_limits.contains(noise[science]))
        return jump_indices(group, start), fits, usable, without_gain, without_noise, *unusual

    def _fit_image(product):
        results = job.map_rows(functools.partial(_fit_rows, product), shape[0], BLOCK)
        jumps, fits, *counts = zip(*results, strict=True)
        return np.concatenate(jumps), fits, *map(sum, counts)

    with create_image(job, planes) as product:
        jumps, fits, usable, without_gain, without_noise, unusual_gains, unusual_noise = _fit_image(product)
        narrowed = [
            job.narrow_limits("gain", "data", unusual_gains, pixels),
            job.narrow_limits("readnoise", "data", unusual_noise, pixels),
        ]
        if any(narrowed):  # too many pixels are beyond the narrower limits, so that these apply: fit again
            jumps, fits, usable, without_gain, without_noise, *_ = _fit_image(product)
        job.log_bad_pixels("gain", "data", without_gain, pixels, "NO_GAIN_VALUE and DO_NOT_USE")
        job.log_bad_pixels("readnoise", "data", without_noise, pixels, "DO_NOT_USE")
        if data.shape[0] < SEARCHABLE_RESULTANTS:
            job.log.warning(
                "%s: the ramp has %s, too few to search for jumps (%d are needed): slopes may include cosmic "
                "rays. All pixels are flagged UNRELIABLE_SLOPE",
                job.exposure.path.name,
                counted(data.shape[0], "resultant"),
                SEARCHABLE_RESULTANTS,
            )
        else:
            job.log.info("Jumps found: %d", len(jumps))
        numbers = summarize_fits(fits)
        if parameters.use_ramp_jump_detection and data.shape[0] >= SEARCHABLE_RESULTANTS:
            pixels_by_portion = [min(PORTION, shape[0] - start) * shape[1] for start in range(0, shape[0], PORTION)]
            jumps_by_portion = np.bincount(jumps[:, 1] // PORTION, minlength=len(pixels_by_portion)).tolist()
            numbers |= summarize_jumps(jumps_by_portion, pixels_by_portion, read_pattern[-1][-1] * frame_time)
        log_numbers(job.log, numbers)
        if parameters.record_jumps:
            product.append("jump_indices", jumps[np.argsort(jumps[:, 0], kind="stable")])
        if not usable:
            job.log.warning(
                "%s: no pixel has a usable slope (all are DO_NOT_USE): the status is FAILED. Look for lost resultants, "
                "masked rows and bad references in the warnings of the earlier steps",
                job.exposure.path.name,
            )
            product.status = "FAILED"


def expanded_flags(
    job: Job, covariance: np.ndarray, read_gain: RowReader, read_noise: RowReader, search_options: dict
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the jumps of a whole exposure, and expand its large events, which may reach into any row.

    Parameters
    ----------
    job : Job
        The run of the step.
    covariance : numpy.ndarray
        From `difference_covariance`.
    read_gain, read_noise : callable
        From `row_reader`.
    search_options : dict
        Keyword arguments of `find_jumps`.

    Returns
    -------
    rate : numpy.ndarray
        Count rate of the first fit, DN/s, float64 of shape (row, column).
    found : numpy.ndarray
        Flags of the ramp with those of the jumps found, uint8 of shape (resultant, row, column).
    expanded : numpy.ndarray
        The same with those of large events. Where a core is extended, SATURATED replaces JUMP_DET.
    """
    data, groupdq, _ = ramp_arrays(job)
    found = groupdq.read()
    rate = np.empty(data.shape[1:])

    def _search_rows(start, stop):
        resultants = data.read_rows(start, stop)
        group = groupdq.read_rows(start, stop)
        gains = read_gain(start, stop)
        noise = read_noise(start, stop)
        rate[start:stop], jumps = find_jumps(resultants, group, gains, noise, covariance, **search_options)
        found[:, start:stop] |= jumps

    job.map_rows(_search_rows, data.shape[1])
    parameters = job.parameters
    expanded, events = expand_large_events(
        found,
        min_sat_area=parameters.min_sat_area,
        min_jump_area=parameters.min_jump_area,
        expand_factor=parameters.expand_factor,
        sat_required_snowball=parameters.sat_required_snowball,
        min_sat_radius_extend=parameters.min_sat_radius_extend,
        sat_expand=parameters.sat_expand,
        edge_size=parameters.edge_size,
        mirrored_events=parameters.mirrored_events,
    )
    job.log.info("Large events expanded: %d", events)
    return rate, found, expanded


def run_skipped(job: Job) -> None:
    """Write the image of a fully saturated exposure: zeros, flagged SATURATED.

    Parameters
    ----------
    job : Job
        The run of the step.
    """
    data, groupdq, pixeldq = ramp_arrays(job)
    shape = [n - 2 * BORDER for n in data.shape[1:]]
    image: dict[str, np.ndarray] = {name: np.zeros(shape, dtype) for name, dtype in image_dtypes(job).items()}
    image["dq"][:] = (pixeldq.read() | groupdq.read_plane(0) | np.uint32(flags.SATURATED))[SCIENCE]
    with create_image(job, image) as product:
        product.status = "SKIPPED"


def ramp_arrays(job: Job) -> tuple[ExposureArray, ExposureArray, ExposureArray]:
    """Get the stored arrays of the ramp.

    Parameters
    ----------
    job : Job
        The run of the step.

    Returns
    -------
    data : ExposureArray
        Counts, DN.
    groupdq : ExposureArray
        Flags per resultant.
    pixeldq : ExposureArray
        Flags per pixel.
    """
    return job.exposure.array("data"), job.exposure.array("groupdq"), job.exposure.array("pixeldq")


def row_reader(reference: Exposure, reftype: str, shape: tuple[int, int]) -> RowReader:
    """Make a function that reads rows of a reference.

    Parameters
    ----------
    reference : Exposure
        With the array ``data``.
    reftype : str
        Type of the reference, for the message.
    shape : tuple of int
        Rows and columns of the ramp.

    Returns
    -------
    RowReader
        Function of the first row and the one after the last. It returns float32 of shape (row, column).

    Raises
    ------
    RampflowError
        The shape of the reference is not that of the ramp.
    """
    values = reference.array("data", 2)
    if values.shape != shape:
        raise RampflowError(
            f"{reference.path}: data has the shape {values.shape}, and the ramp's rows and columns {shape}; "
            f"give the {reftype} of this detector"
        )
    return lambda start, stop: values.read_rows(start, stop).astype(np.float32, copy=False)


def image_dtypes(job: Job) -> dict[str, type]:
    """Name the arrays of an image.

    Parameters
    ----------
    job : Job
        The run of the step, whose parameters say which arrays are wanted.

    Returns
    -------
    dict of str to type
        Data type of each array by name, those of the image data model.
    """
    dtypes: dict[str, type] = {"data": np.float32, "dq": np.uint32, "err": np.float16, "var_poisson": np.float16}
    if job.parameters.include_var_rnoise:
        dtypes["var_rnoise"] = np.float16
    return dtypes | {"chisq": np.float16, "dumo": np.float16}


def jump_indices(groupdq: np.ndarray, first_row: int) -> np.ndarray:
    """List the jumps in some rows of an exposure.

    Parameters
    ----------
    groupdq : numpy.ndarray
        Flags of the rows, uint8 of shape (resultant, row, column), with the reference border on the left and right.
    first_row : int
        Row of the image with which they begin.

    Returns
    -------
    numpy.ndarray
        Resultant, row and column of each JUMP_DET in the image without its border, int16 of shape (jumps, 3).
    """
    # A search of flat bytes takes a quarter of the time of one along three axes.
    resultant, row, column = np.unravel_index(np.flatnonzero(flags.has(groupdq, flags.JUMP_DET)), groupdq.shape)
    indices = np.stack([resultant, row + first_row, column - BORDER], axis=1)
    return indices[(column >= BORDER) & (column < groupdq.shape[2] - BORDER)].astype(np.int16)


@contextlib.contextmanager
def create_image(job: Job, arrays: Mapping[str, np.ndarray | EmptyArray]) -> Iterator[Product]:
    """Write an image with the metadata and the carried arrays of the ramp.

    Parameters
    ----------
    job : Job
        The run of the step.
    arrays : mapping of str to numpy.ndarray or EmptyArray
        The arrays of the image. The caller writes the empty ones.

    Yields
    ------
    Product
        The output.
    """
    ramp = job.exposure.roman
    photometry = ("conversion_megajanskys", "conversion_megajanskys_uncertainty", "pixel_area")
    carried = {name: ramp[name] for name in CARRIED_ARRAYS if name in ramp}
    model = data_model_of(job.exposure.tag)
    if model.has_second_flags:
        carried["dq2"] = job.exposure.array("pixeldq2", 2).read()[SCIENCE]
    image = tagged({"meta": ramp["meta"], **carried}, model.image)
    image["meta"].update(model_type="ImageModel", product_type="l2", photometry=dict.fromkeys(photometry, UNKNOWN_PHOTOMETRY))
    image["meta"].setdefault("wcs", None)
    with job.create(roman=image, arrays=dict(arrays)) as product:
        yield product


if __name__ == "__main__":
    sys.exit(run_step(STEP, run, when_skipped=run_skipped))
