"""Step refpix: remove the correlated noise that the reference pixels see.

The Improved Roman Reference Correction (IRRC; Rauscher et al.) filters the signals of the left and right reference pixels and
of amplifier 33 with the responses of each readout channel, given in the reference file, and subtracts them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rampflow import dq
from rampflow.detector import BORDER, CHANNEL_DEAD_COLUMNS, CHANNEL_WIDTH, border_pixels
from rampflow.errors import RampflowError
from rampflow.files.asdf_writer import EmptyArray
from rampflow.quality.measures import measure_reference_level, measure_row_scatter
from rampflow.step.declaration import Parameter, Range, Reference, Step
from rampflow.step.job import Job
from rampflow.step.logs import log_numbers
from rampflow.step.program import run_step
from rampflow.step.reference_checks import refuse_implausible

RESPONSE = Range(
    0,
    100,
    source="a response is the fraction of a reference's signal in a channel, of order 1",
    quantity="largest real or imaginary part of a response",
)

BLOCK = 16  #: rows that are averaged together
#: Two neighboring rows in each block, beyond the reference pixels, from which the scatter of rows is measured.
PAIR = slice(6, 8)
#: Columns of light-sensitive pixels beside the left and beside the right border.
BESIDE_BORDER = np.s_[..., BORDER : 2 * BORDER], np.s_[..., -2 * BORDER : -BORDER]

STEP = Step(
    name="refpix",
    summary="Remove correlated noise with the reference pixels and amplifier 33.",
    references=(
        Reference(
            "refpix",
            "responses of each channel to the left (gamma), right (zeta) and amp33 (alpha) references",
            skip_without=True,
            plausible=dict.fromkeys(("gamma", "zeta", "alpha"), RESPONSE),
        ),
    ),
    parameters=(
        Parameter(
            "remove_offset",
            bool,
            True,
            "subtract the mean of each pixel over the resultants before the correction, and add it after",
        ),
        Parameter(
            "remove_trends",
            bool,
            True,
            "remove the linear trend in time that the top and bottom reference rows show, per channel",
        ),
        Parameter("cosine_interpolate", bool, True, "fill the gaps of amp33 by interpolation"),
        Parameter("fft_interpolate", bool, True, "smooth the interpolated dead time between the rows of amp33"),
        Parameter(
            "mean_is_missing",
            bool,
            True,
            "treat samples that equal their pixel's mean as missing, as romancal does; missing samples keep the trend",
            in_romancal=False,
        ),
    ),
)

SAMPLES = CHANNEL_WIDTH + CHANNEL_DEAD_COLUMNS  #: samples of a row in time: its columns and the dead time after them
LARGEST_COUNT = 65535  #: DN that a 16-bit A/D converter can give
GAP_WIDTH = 32  #: samples that the filling of amp33's gaps looks at
SMOOTHINGS = 3  #: times that the filled dead time is smoothed
RESULTANTS_AT_ONCE = 2  #: resultants that are held and corrected at a time
MOST_VARY = 0.5  #: share of a reference's samples that must vary from resultant to resultant for it to have a signal
#: Share of the top or bottom border's samples that must be lost in a resultant for it not to be used: its channels keep their
#: trends then, some 5 DN rms. Without a side border or amplifier 33, less than 2 DN are left.
MOST_LOST = 0.5
FEW_LOST = 0.01  #: share of a reference's samples that may be lost in a resultant without a warning


def in_read_order(channel: np.ndarray, number: int) -> np.ndarray:
    """Bring the columns of a channel into the order of reading, or back: odd channels are read backward.

    Parameters
    ----------
    channel : numpy.ndarray
        Samples of a channel; the last axis is that of its columns.
    number : int
        Number of the channel, from 0.

    Returns
    -------
    numpy.ndarray
        A view of `channel`.
    """
    return channel[..., ::-1] if number % 2 else channel


def sample_times(rows: int) -> np.ndarray:
    """Compute the time of each sample of a channel in read order.

    Parameters
    ----------
    rows : int
        Rows of the detector.

    Returns
    -------
    numpy.ndarray
        Times from the middle of the frame, in samples, float64 of shape (row, 128).
    """
    time = np.arange(rows * SAMPLES, dtype=np.float64).reshape(rows, SAMPLES)
    return time[:, :CHANNEL_WIDTH] - (rows * SAMPLES - 1) / 2


def fit_trend(values: np.ndarray, there: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """Fit a straight line in time to the samples that are there.

    Parameters
    ----------
    values : numpy.ndarray
        Samples, DN.
    there : numpy.ndarray
        Which of them are not missing, bool.
    times : numpy.ndarray
        Their times from the middle of the frame, in samples.

    Returns
    -------
    slope : float
        Slope, DN per sample. It is zero if all samples lie on one side of the middle: that of the few rows at one end is noise,
        and would make thousands of DN at the other end.
    intercept : float
        Value at time 0, DN. Both are zero without samples.
    """
    if not there.any():
        return 0.0, 0.0
    t, y = times[there], values[there].astype(float)
    t_mean, y_mean = t.mean(), y.mean()
    if not t.min() < 0 < t.max():
        return 0.0, float(y_mean)
    slope = np.sum((t - t_mean) * (y - y_mean)) / np.sum((t - t_mean) ** 2)
    return float(slope), float(y_mean - slope * t_mean)


def remove_trend(values: np.ndarray, there: np.ndarray, times: np.ndarray, trend: tuple[float, float]) -> np.ndarray:
    """Subtract a straight line in time from the samples that are there.

    Parameters
    ----------
    values : numpy.ndarray
        Samples, DN.
    there : numpy.ndarray
        Which of them are not missing, bool.
    times : numpy.ndarray
        Their times from the middle of the frame, in samples.
    trend : tuple of float
        From `fit_trend`.

    Returns
    -------
    numpy.ndarray
        Samples without the trend, DN, float64: in float32 a sample near the line may become zero, which means missing.
    """
    slope, intercept = trend
    return values - (times * slope + intercept) * there


def replace_lost_samples(samples: np.ndarray, *, remove_offset: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Replace reference samples that are lost in some resultants by their mean over the others, so that they count as missing.

    A sample at a limit of the converter, 0 or 65535 DN, has no information. If all resultants have the same, it cancels with
    its mean. In a part of the resultants, it would be a spike of thousands of DN in time, and falsify the mean for the others.

    Parameters
    ----------
    samples : numpy.ndarray
        Amplifier 33 or reference pixels, DN, any real dtype, (resultant, ...).
    remove_offset : bool
        The parameter of the step: without it, means are zero.

    Returns
    -------
    samples : numpy.ndarray
        Samples, in their own dtype.
    offset : numpy.ndarray
        Mean of each sample, DN, float32, (...); whole DN where samples of an integer dtype are lost, which must equal it.
    lost : numpy.ndarray
        Samples that were replaced, bool of the shape of `samples`.
    """
    counts = samples.astype(np.float32, copy=False)
    offset = counts.mean(axis=0) if remove_offset else np.zeros_like(counts[0])
    lost = (samples <= 0) | (samples >= LARGEST_COUNT)
    in_part = np.asarray(lost.any(axis=0))
    in_part[in_part] = (samples[:, in_part] != samples[0, in_part]).any(axis=0)
    lost &= in_part
    if not in_part.any():
        return samples, offset, lost
    samples, here = samples.copy(), ~lost[:, in_part]
    if remove_offset:
        number = np.count_nonzero(here, axis=0)
        means = np.divide(counts[:, in_part].sum(axis=0, where=here), number, out=offset[in_part], where=number > 0)
        offset[in_part] = np.rint(means) if samples.dtype.kind in "iu" else means
    samples[:, in_part] = np.where(here, samples[:, in_part], offset[in_part].astype(samples.dtype))
    return samples, offset, lost


def share_that_varies(samples: np.ndarray) -> float:
    """Compute the share of samples that are not the same in all resultants.

    Parameters
    ----------
    samples : numpy.ndarray
        Samples, of shape (resultant, ...).

    Returns
    -------
    float
        From 0 to 1.
    """
    return np.count_nonzero((samples != samples[0]).any(axis=0)) / max(samples[0].size, 1)


def fill_gaps(stream: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Fill the gaps of a stream of samples with a weighted mean of those around them.

    The weights are sin(π k / 32), k = 1 … 32, of the samples from 15 after to 16 before. Missing samples have no weight. A gap
    that has only missing neighbors becomes zero.

    Parameters
    ----------
    stream : numpy.ndarray
        Amplifier 33 in read order, with the dead time, float32, (row, 140); zero in the gaps.
    there : numpy.ndarray
        Which samples are not missing, bool: false in the gaps and in the dead time.

    Returns
    -------
    numpy.ndarray
        The stream with its gaps and dead time filled, float32.
    """
    weights = np.sin(np.arange(1, GAP_WIDTH + 1, dtype=np.float32) * np.pi / GAP_WIDTH)
    sums = np.convolve(stream.ravel(), weights, "same")
    norms = np.convolve(there.ravel().astype(float), weights, "same")
    means = np.divide(sums, norms, out=np.zeros_like(norms), where=norms != 0).reshape(stream.shape)
    return np.where(there, stream, means.astype(np.float32))


def smooth_dead_time(stream: np.ndarray) -> np.ndarray:
    """Smooth the samples of the dead time between rows, three times, and leave the others.

    The IRRC multiplies the spectrum of a stream of L samples by (1 + cos(2πf/L)) / 2. That is a mean of each sample with the
    two beside it, with the weights ¼, ½ and ¼, and the last sample of the frame is a neighbor of its first.

    Parameters
    ----------
    stream : numpy.ndarray
        Amplifier 33 in read order, with the dead time, float32, (row, 140).

    Returns
    -------
    numpy.ndarray
        The stream with its dead time smoothed, float32.
    """
    smoothed = stream.copy()
    rows_after = np.r_[1 : len(stream), 0]
    # The dead time after each row, with the last sample before it and the first after it.
    window = np.concatenate([stream[:, CHANNEL_WIDTH - 1 :], stream[rows_after, :1]], axis=1)
    for _ in range(SMOOTHINGS):
        window[:, 1:-1] = window[:, 1:-1] / 2 + (window[:, :-2] + window[:, 2:]) / 4
    smoothed[:, CHANNEL_WIDTH:] = window[:, 1:-1]
    return smoothed


@functools.cache
def twiddle_factors(rows: int) -> np.ndarray:
    """Compute the factors e^(2πi k s / (140 rows)) of `transform_to_time`.

    Parameters
    ----------
    rows : int
        Rows of the detector.

    Returns
    -------
    numpy.ndarray
        Factors, complex64 of shape (sample s of a row, k), without the samples of the dead time.
    """
    return np.exp(2j * np.pi / (rows * SAMPLES) * np.outer(np.arange(CHANNEL_WIDTH), np.arange(rows))).astype(np.complex64)


def transform_to_time(spectrum: np.ndarray) -> np.ndarray:
    """Transform the spectrum of a channel to samples, without those of the dead time.

    With the frequency k + rows·f and the sample s of row r,

        x[r, s] = Σ_k e^(2πi k r / rows) · e^(2πi k s / (140 rows)) · Σ_f X[k, f] e^(2πi f s / 140)

    (D. H. Bailey 1990, J. Supercomputing 4, 23): two series of short transforms, which stay in the cache. They take half the
    time of one long transform.

    Parameters
    ----------
    spectrum : numpy.ndarray
        X, complex64 of shape (140 rows,). It is overwritten.

    Returns
    -------
    numpy.ndarray
        Samples x, not divided by the number of frequencies, complex64 of shape (sample, row).
    """
    from scipy import fft

    rows = spectrum.size // SAMPLES
    turned = fft.ifft(spectrum.reshape(SAMPLES, rows), axis=0, norm="forward", overwrite_x=True)[:CHANNEL_WIDTH]
    turned *= twiddle_factors(rows)
    return fft.ifft(turned, norm="forward", overwrite_x=True)


def reference_streams(
    resultant: np.ndarray,
    amp33: np.ndarray,
    offset: np.ndarray,
    amp33_offset: np.ndarray,
    *,
    remove_trends: bool,
    cosine_interpolate: bool,
    fft_interpolate: bool,
    mean_is_missing: bool,
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Bring the references of one resultant into the order of reading, and measure the trend of each channel.

    Parameters
    ----------
    resultant : numpy.ndarray
        Counts, DN, float32 of shape (row, column).
    amp33 : numpy.ndarray
        Amplifier 33, DN, of shape (row, 128).
    offset, amp33_offset : numpy.ndarray
        Means that are subtracted from both before, DN, float32.
    remove_trends, cosine_interpolate, fft_interpolate, mean_is_missing : bool
        Parameters of the step.

    Returns
    -------
    streams : numpy.ndarray
        Left and right border, at their times among zeros, and amplifier 33, DN, float32 of shape (reference, row, 140).
    trends : list of (float, float)
        From `fit_trend`, for each channel.
    """
    rows, columns = resultant.shape
    last = columns // CHANNEL_WIDTH - 1
    times = sample_times(rows)
    ends = np.r_[:BORDER, rows - BORDER : rows]

    def _without_offset(values: np.ndarray, values_offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A missing sample is zero in all resultants, and so it is without the offset; one that equals its mean may be there.
        rest = values - values_offset
        return rest, (rest if mean_is_missing else values) != 0

    def _trend_of(values: np.ndarray, values_offset: np.ndarray, number: int) -> tuple[float, float]:
        if not remove_trends:
            return 0.0, 0.0
        return fit_trend(*_without_offset(values[ends], values_offset[ends]), in_read_order(times, number)[ends])

    trends = [_trend_of(resultant[_columns_of(n)], offset[_columns_of(n)], n) for n in range(last + 1)]
    streams = np.zeros((3, rows, SAMPLES), np.float32)
    for stream, number, border in ((streams[0], 0, np.s_[:BORDER]), (streams[1], last, np.s_[-BORDER:])):
        values, there = _without_offset(resultant[_columns_of(number)][:, border], offset[_columns_of(number)][:, border])
        on_detector = in_read_order(stream[:, :CHANNEL_WIDTH], number)
        on_detector[:, border] = remove_trend(values, there, in_read_order(times, number)[:, border], trends[number])

    values, there = _without_offset(amp33.astype(np.float32), amp33_offset)
    trend = _trend_of(amp33.astype(np.float32), amp33_offset, 0)
    streams[2, :, :CHANNEL_WIDTH] = remove_trend(values, there, times, trend)
    if cosine_interpolate:
        streams[2] = fill_gaps(streams[2], np.pad(there, ((0, 0), (0, CHANNEL_DEAD_COLUMNS))))
    if fft_interpolate:
        streams[2] = smooth_dead_time(streams[2])
    return streams, trends


def _columns_of(channel):
    """Index of the columns of a channel."""
    return np.s_[:, channel * CHANNEL_WIDTH : (channel + 1) * CHANNEL_WIDTH]


def correct_resultants(
    resultants: Sequence[np.ndarray] | np.ndarray,
    amp33: np.ndarray,
    offset: np.ndarray,
    amp33_offset: np.ndarray,
    responses: Sequence[np.ndarray],
    *,
    remove_trends: bool = True,
    cosine_interpolate: bool = True,
    fft_interpolate: bool = True,
    mean_is_missing: bool = True,
    threads: int = 1,
) -> np.ndarray:
    """Correct some resultants, in place.

    Transforms are in single precision: they round a correction to 2 · 10⁻⁷ of the largest, which is less than the last digit
    of the counts that it is subtracted from.

    Parameters
    ----------
    resultants : sequence of numpy.ndarray
        Counts, DN, float32, (row, column) each, bad reference pixels being zero. They are corrected.
    amp33 : numpy.ndarray
        Amplifier 33, DN, any real dtype, (resultant, row, 128).
    offset, amp33_offset : numpy.ndarray
        DN, float32: what is taken out of `resultants` and `amp33` before and put back after.
    responses : sequence of numpy.ndarray
        To the left, right and amp33 references, each complex64, (channel, frequency).
    remove_trends, cosine_interpolate, fft_interpolate, mean_is_missing : bool
        The parameters of the step.
    threads : int
        Pairs of corrections to work on at a time.

    Returns
    -------
    numpy.ndarray
        Absolute value of amp33 without its trend and with its gaps filled, in its own dtype.
    """
    from rampflow.kernels.refpix import combine, subtract  # before scipy: numba imports more where it is

    from scipy import fft  # isort: skip

    responses = tuple(responses)
    rows, columns = resultants[0].shape
    length = rows * SAMPLES

    def _streams_of(resultant, amp33_of_it):
        return reference_streams(
            resultant,
            amp33_of_it,
            offset,
            amp33_offset,
            remove_trends=remove_trends,
            cosine_interpolate=cosine_interpolate,
            fft_interpolate=fft_interpolate,
            mean_is_missing=mean_is_missing,
        )

    with ThreadPoolExecutor(threads) as pool:
        of_resultants, trends = zip(*pool.map(_streams_of, resultants, amp33), strict=True)
        streams = np.stack(of_resultants)
        del of_resultants
        corrected_amp33 = np.abs(streams[:, 2, :, :CHANNEL_WIDTH] + amp33_offset).astype(amp33.dtype)
        # The responses belong to spectra divided by their length, and half a spectrum stands for the whole.
        norm = np.float32(2 * (length // 2 + 1) / length**2)
        spectra = fft.rfft(streams.reshape(*streams.shape[:2], length) * norm, workers=threads)
        del streams
        spectra[:, :2] *= np.float32(SAMPLES / BORDER)  # a border weighs as if all samples of its stream were there

        def correct(pairs):
            spectrum = np.empty(length, np.complex64)
            for pair in pairs:
                # One transform for two corrections: the second is the imaginary part.
                combine(responses, spectra, pair[0], pair[-1], spectrum)
                samples = transform_to_time(spectrum)
                for part, (channel, i) in enumerate(pair):
                    subtract(resultants[i], offset, channel, *trends[i][channel], mean_is_missing, samples, part)

        # A channel of all resultants before the next one, so that its responses are read once for two of them.
        corrections = list(itertools.product(range(columns // CHANNEL_WIDTH), range(len(resultants))))
        pairs = [corrections[i : i + 2] for i in range(0, len(corrections), 2)]
        list(pool.map(correct, [pairs[i::threads] for i in range(threads)]))
    return corrected_amp33


def correct_reference_pixels(
    data: np.ndarray,
    amp33: np.ndarray,
    pixeldq: np.ndarray,
    responses: Sequence[np.ndarray],
    *,
    remove_offset: bool = True,
    remove_trends: bool = True,
    cosine_interpolate: bool = True,
    fft_interpolate: bool = True,
    mean_is_missing: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Correct a ramp that is held in memory.

    Parameters
    ----------
    data : numpy.ndarray
        Counts, DN, float32, (resultant, row, column); columns are a multiple of 128.
    amp33 : numpy.ndarray
        Amplifier 33, DN, (resultant, row, 128).
    pixeldq : numpy.ndarray
        Flags, uint32, (row, column). Pixels with BAD_REF_PIXEL are set to zero.
    responses : sequence of numpy.ndarray
        To the left, right and amp33 references, each complex, (channel, frequency).
    remove_offset, remove_trends, cosine_interpolate, fft_interpolate, mean_is_missing : bool
        The parameters of the step.

    Returns
    -------
    data : numpy.ndarray
        Corrected counts, DN, float32.
    amp33 : numpy.ndarray
        As `correct_resultants` returns it.
    """
    responses = [response.astype(np.complex64, copy=False) for response in responses]
    good = np.where(dq.has(pixeldq, dq.BAD_REF_PIXEL), np.float32(0), data)
    offset = good.mean(axis=0) if remove_offset else np.zeros_like(good[0])
    border = border_pixels(0, data.shape[1], data.shape[1:])
    good[:, border], offset[border], _ = replace_lost_samples(good[:, border], remove_offset=remove_offset)
    amp33, amp33_offset, _ = replace_lost_samples(amp33, remove_offset=remove_offset)
    corrected_amp33 = [
        correct_resultants(
            good[i : i + RESULTANTS_AT_ONCE],
            amp33[i : i + RESULTANTS_AT_ONCE],
            offset,
            amp33_offset,
            responses,
            remove_trends=remove_trends,
            cosine_interpolate=cosine_interpolate,
            fft_interpolate=fft_interpolate,
            mean_is_missing=mean_is_missing,
        )
        for i in range(0, len(good), RESULTANTS_AT_ONCE)
    ]
    return good, np.concatenate(corrected_amp33)


def read_responses(job: Job, rows: int, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the responses of the channels of a detector.

    Parameters
    ----------
    job : Job
        The run of the step, whose reference has ``gamma``, ``zeta`` and ``alpha``.
    rows, channels : int
        Rows and channels of the detector.

    Returns
    -------
    tuple of numpy.ndarray
        Responses to the left, right and amp33 references, each complex64, (channel, frequency).

    Raises
    ------
    RampflowError
        A response is of another shape, not finite, or implausibly large.
    """
    shape = channels, rows * SAMPLES // 2 + 1

    def _read_response(reference, name):
        array = reference.array(name, 2, kinds="c")
        if array.shape != shape:
            raise RampflowError(
                f"{reference.path}: {name} has the shape {array.shape}, and an exposure of {channels} channels of {rows} rows "
                f"needs {shape}; give the reference of this detector"
            )
        response = np.empty(shape, np.complex64)
        for channel in range(channels):
            response[channel] = array.read_rows(channel, channel + 1)[0]
        # One wrong value spoils a whole channel.
        parts = response.view(np.float32)
        largest = max(float(parts.max()), -float(parts.min()))  # NaN if one is, and without a copy of their absolute values
        if not largest < np.inf:
            raise RampflowError(f"{reference.path}: {name} has values that are not finite; give a whole reference")
        refuse_implausible(
            reference.path, f"the {RESPONSE.quantity} ({name})", largest, (RESPONSE.minimum, RESPONSE.maximum), "", "refpix"
        )
        return response

    with job.open_reference("refpix") as reference:
        reference.file.verify()
        return _read_response(reference, "gamma"), _read_response(reference, "zeta"), _read_response(reference, "alpha")


@dataclasses.dataclass(frozen=True)
class ReferenceState:
    """State of the samples of a reference: a side of the border, or amplifier 33.

    Attributes
    ----------
    varies : float
        Share of its samples that are not the same in all resultants.
    lost : numpy.ndarray
        Share of its samples that are lost in each resultant, of those that are there in others.
    """

    varies: float
    lost: np.ndarray

    @classmethod
    def of(cls, samples: np.ndarray, lost: np.ndarray) -> ReferenceState:
        """Measure the state of the samples of a reference.

        Parameters
        ----------
        samples : numpy.ndarray
            Samples, DN, of shape (resultant, ...).
        lost : numpy.ndarray
            From `replace_lost_samples`.

        Returns
        -------
        ReferenceState
            Their state.
        """
        return cls(share_that_varies(samples), lost.mean(axis=tuple(range(1, lost.ndim))))


def warn_of_channels(job: Job, still: np.ndarray, resultants: int) -> None:
    """Warn of channels whose counts don't change from the first to the last resultant.

    Parameters
    ----------
    job : Job
        The run of the step.
    still : numpy.ndarray
        Share of the pixels that have the same count in both, of shape (channel,).
    resultants : int
        Number of resultants.
    """
    stuck = np.flatnonzero(still > 1 - MOST_VARY)
    if stuck.size and resultants > 1:
        job.log.warning(
            "%s: most counts of the channels %s (from 1) are the same in the first and the last resultant: the channels are "
            "dead, stuck or saturated, and their count rates are not those of the sky",
            job.exposure.path.name,
            ", ".join(str(channel + 1) for channel in stuck),
        )


def warn_of_references(job: Job, references: dict[str, ReferenceState], resultants: int) -> None:
    """Warn of references that carry no signal, or have lost samples in some resultants: one warning for all.

    Parameters
    ----------
    job : Job
        The run of the step.
    references : dict
        State of each reference by name.
    resultants : int
        Number of resultants.
    """
    silent, partly = [], []
    for name, state in references.items():
        spoiled = np.flatnonzero(state.lost > FEW_LOST)
        if state.varies < MOST_VARY and resultants > 1:
            silent.append(f"{name} ({state.varies:.0%})")
        elif spoiled.size:
            numbers = ", ".join(str(resultant + 1) for resultant in spoiled)
            partly.append(f"{name} in {numbers} (up to {state.lost.max():.2g} of the samples)")
        elif state.lost.any():
            job.log.info(
                "%s: %.2g of the samples of a resultant are 0 or %d DN: they count as missing",
                name,
                state.lost.max(),
                LARGEST_COUNT,
            )
    remarks = []
    if silent:
        remarks.append(
            f"{', '.join(silent)} carry no signal (in brackets: share of samples that vary between resultants); they are "
            "empty, saturated or dead, and the noise that they should measure is not removed"
        )
    if partly:
        remarks.append(
            f"samples are 0 or {LARGEST_COUNT} DN in some resultants (from 1): {'; '.join(partly)}; they count as missing, and "
            "more noise is left in these resultants"
        )
    if remarks:
        job.log.warning("%s: reference pixels: %s", job.exposure.path.name, ". Also, ".join(remarks))


def run(job: Job) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The run of the step.
    """
    exposure, parameters = job.exposure, job.parameters
    ramp, pixeldq = exposure.array("data"), exposure.array("pixeldq")
    resultants, rows, columns = ramp.shape
    stored = exposure.array("amp33", shape=(resultants, rows, CHANNEL_WIDTH)).read()
    samples, amp33_offset, amp33_lost = replace_lost_samples(stored, remove_offset=parameters.remove_offset)
    offset = np.zeros((rows, columns), np.float32)
    # Pairs of rows, one in each whole block.
    measured = np.arange(0, rows - PAIR.stop + 1, BLOCK)[:, None] + np.arange(PAIR.start, PAIR.stop)

    def _average_rows(start, stop):
        values = ramp.read_rows(start, stop)
        still = np.count_nonzero((values[0] == values[-1]).reshape(stop - start, -1, CHANNEL_WIDTH), axis=(0, 2))
        if parameters.remove_offset:
            values.mean(axis=0, out=offset[start:stop])
        pixels = border_pixels(start, stop, (rows, columns))
        counts = values[:, pixels]
        _, offset[start:stop][pixels], lost = replace_lost_samples(counts, remove_offset=parameters.remove_offset)
        bad = start * columns + np.flatnonzero(dq.has(pixeldq.read_rows(start, stop), dq.BAD_REF_PIXEL))
        lit = values[0, max(BORDER - start, 0) : max(rows - BORDER - start, 0)]
        beside = [lit[columns_beside].copy() for columns_beside in BESIDE_BORDER]
        return counts, lost, bad, still, values[-1, PAIR] - values[max(resultants - 2, 0), PAIR], beside

    *by_block, still, pairs, beside = zip(*job.map_rows(_average_rows, rows, BLOCK), strict=True)
    counts, lost, bad = (np.concatenate(arrays, axis=-1) for arrays in by_block)
    del by_block
    offset.flat[bad] = 0
    pixels = np.flatnonzero(border_pixels(0, rows, (rows, columns)))
    warn_of_channels(job, np.sum(still, axis=0) / (rows * CHANNEL_WIDTH), resultants)
    row, column = np.unravel_index(pixels, (rows, columns))
    sides = {
        "the left border": column < BORDER,
        "the right border": column >= columns - BORDER,
        "the top border": row < BORDER,
        "the bottom border": row >= rows - BORDER,
    }
    first_counts = [counts[0, sides[name]] for name in ("the left border", "the right border")]
    numbers = measure_reference_level(counts[0], first_counts, [np.concatenate(arrays) for arrays in zip(*beside, strict=True)])
    states = {name: ReferenceState.of(counts[:, side], lost[:, side]) for name, side in sides.items()}
    warn_of_references(job, states | {"amp33": ReferenceState.of(stored, amp33_lost)}, resultants)
    unused = np.flatnonzero((states["the top border"].lost > MOST_LOST) | (states["the bottom border"].lost > MOST_LOST))
    if unused.size:
        job.log.warning(
            "%s: the trends of the channels can't be measured without the top or the bottom border: the resultants %s (from 1) "
            "are flagged DO_NOT_USE",
            exposure.path.name,
            ", ".join(str(resultant + 1) for resultant in unused),
        )
    responses = read_responses(job, rows, columns // CHANNEL_WIDTH)

    borders = {
        name: EmptyArray((resultants, rows, BORDER), np.float32) for name in ("border_ref_pix_left", "border_ref_pix_right")
    }
    with job.create(update=("data", "amp33"), change=("groupdq",), arrays=borders) as product:
        last_two: dict[int, np.ndarray] = {}
        # The same memory for all that come from a file: the system clears what it gives.
        room = np.empty((RESULTANTS_AT_ONCE, rows, columns), np.float32)
        for first in range(0, resultants, RESULTANTS_AT_ONCE):
            at_once = range(first, min(first + RESULTANTS_AT_ONCE, resultants))
            planes = [product.plane_to_change("data", i, room[i - first]) for i in at_once]
            for i, plane in zip(at_once, planes, strict=True):
                missing = pixels[lost[i]]
                plane.flat[missing] = offset.flat[missing]
                plane.flat[bad] = 0
            corrected_amp33 = correct_resultants(
                planes,
                samples[at_once.start : at_once.stop],
                offset,
                amp33_offset,
                responses,
                remove_trends=parameters.remove_trends,
                cosine_interpolate=parameters.cosine_interpolate,
                fft_interpolate=parameters.fft_interpolate,
                mean_is_missing=parameters.mean_is_missing,
                threads=job.threads,
            )
            for i, plane, amp33_plane in zip(at_once, planes, corrected_amp33, strict=True):
                if i >= resultants - 2:
                    last_two[i] = plane[measured]
                product.write_plane("data", i, plane)
                product.write_plane("amp33", i, amp33_plane)
                product.write_plane("border_ref_pix_left", i, plane[:, :BORDER])
                product.write_plane("border_ref_pix_right", i, plane[:, -BORDER:])
        groupdq = exposure.array("groupdq", shape=ramp.shape)
        for resultant in unused.tolist():
            product.write_plane("groupdq", resultant, groupdq.read_plane(resultant) | np.uint8(dq.DO_NOT_USE))
        if resultants > 1 and len(measured):
            numbers["row_scatter_before"] = measure_row_scatter(np.stack(pairs[: len(measured)]))
            numbers["row_scatter_after"] = measure_row_scatter(last_two[resultants - 1] - last_two[resultants - 2])
        log_numbers(job.log, numbers)


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
