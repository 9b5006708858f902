"""Remove the correlated noise that the reference pixels see.

The Improved Roman Reference Correction (IRRC; Rauscher et al.): what the left and right reference pixels and amplifier 33
recorded is filtered, per readout channel, with the responses of the reference file, and subtracted.
"""

import functools
import itertools
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rampflow import dq
from rampflow.detector import BORDER, CHANNEL_DEAD_COLUMNS, CHANNEL_WIDTH
from rampflow.errors import RampflowError
from rampflow.files.asdf_writer import EmptyArray
from rampflow.step.declaration import Parameter, Range, Reference, Step
from rampflow.step.exposure import Exposure
from rampflow.step.job import Job
from rampflow.step.program import run_step
from rampflow.step.reference_checks import refuse_implausible

RESPONSE = Range(
    0,
    100,
    source="a response is the part of a reference's signal that a channel shares: of the order of 1",
    quantity="largest real or imaginary part of a response",
)

STEP = Step(
    name="refpix",
    summary="Remove correlated noise with the reference pixels and amplifier 33.",
    references=(
        Reference(
            "refpix",
            "responses of each channel to the left (gamma), right (zeta) and amp33 (alpha) references",
            plausible=dict.fromkeys(("gamma", "zeta", "alpha"), RESPONSE),
        ),
    ),
    parameters=(
        Parameter("remove_offset", bool, True, "take each pixel's mean over the resultants out before, put it back after"),
        Parameter("remove_trends", bool, True, "remove the line in time that the top and bottom reference rows show"),
        Parameter("cosine_interpolate", bool, True, "fill the gaps of amp33 from the samples around them"),
        Parameter("fft_interpolate", bool, True, "smooth what fills the dead time between the rows of amp33"),
        Parameter(
            "mean_is_missing",
            bool,
            True,
            "a sample that equals its pixel's mean counts as missing, as in romancal, and keeps its channel's trend",
        ),
    ),
)

SAMPLES = CHANNEL_WIDTH + CHANNEL_DEAD_COLUMNS  #: samples of a row in time: its columns and the dead time after them
LARGEST_COUNT = 65535  #: DN that a 16-bit A/D converter can give
GAP_WIDTH = 32  #: samples that the filling of amp33's gaps looks at
SMOOTHINGS = 3  #: times that the filled dead time is smoothed
TOGETHER = 2  #: resultants held and corrected together
MOST_VARY = 0.5  #: share of a reference's samples that must vary from resultant to resultant for it to have a signal
FEW_LOST = 0.01  #: share of amplifier 33's samples that may be lost in some resultants without a warning


def in_read_order(channel: np.ndarray, number: int) -> np.ndarray:
    """View of a channel (last axis: columns) in the order of reading, or back: odd channels are read backwards."""
    return channel[..., ::-1] if number % 2 else channel


def sample_times(rows: int) -> np.ndarray:
    """Time of each sample of a channel in read order, in samples from the middle of the frame (float64, (row, 128))."""
    time = np.arange(rows * SAMPLES, dtype=np.float64).reshape(rows, SAMPLES)
    return time[:, :CHANNEL_WIDTH] - (rows * SAMPLES - 1) / 2


def fit_trend(values: np.ndarray, there: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """Fit a straight line in time to the samples that are there.

    Returns
    -------
    slope, intercept : float
        DN per sample, and DN at time 0; zero where there is nothing to fit.
    """
    if not there.any():
        return 0.0, 0.0
    t, y = times[there], values[there].astype(float)
    t_mean, y_mean = t.mean(), y.mean()
    spread = np.sum((t - t_mean) ** 2)
    slope = np.sum((t - t_mean) * (y - y_mean)) / spread if spread else 0.0
    return float(slope), float(y_mean - slope * t_mean)


def remove_trend(values: np.ndarray, there: np.ndarray, times: np.ndarray, trend: tuple[float, float]) -> np.ndarray:
    """Subtract a straight line in time from the samples that are there.

    In float64: in float32 a sample near the line would now and then become zero, and be taken for one that is not there.
    """
    slope, intercept = trend
    return values - (times * slope + intercept) * there


def complete_amp33(amp33: np.ndarray, *, remove_offset: bool = True) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean of each sample of amplifier 33, and what it has lost in some resultants put at that mean: so it counts as missing.

    A sample at a limit of the converter, 0 or 65535, says nothing. Where it is there in all resultants, it cancels with its
    mean. In a part of them it would be a spike of thousands of DN in time, and spoil the mean for the others.

    Parameters
    ----------
    amp33 : numpy.ndarray
        Amplifier 33, DN, any real dtype, (resultant, row, 128).
    remove_offset : bool
        The parameter of the step: without it, means are zero.

    Returns
    -------
    amp33 : numpy.ndarray
        The samples, in their own dtype.
    offset : numpy.ndarray
        DN, float32, (row, 128); whole DN where samples are lost, so that these can equal it.
    lost : int
        Number of samples put at their mean.
    """
    samples = amp33.astype(np.float32)
    offset = samples.mean(axis=0) if remove_offset else np.zeros_like(samples[0])
    valid = (amp33 > 0) & (amp33 < LARGEST_COUNT)
    in_part = valid.any(axis=0) & ~valid.all(axis=0)
    if not in_part.any():
        return amp33, offset, 0
    amp33, here = amp33.copy(), valid[:, in_part]
    if remove_offset:
        offset[in_part] = np.rint(samples[:, in_part].sum(axis=0, where=here) / np.count_nonzero(here, axis=0))
    amp33[:, in_part] = np.where(here, amp33[:, in_part], offset[in_part].astype(amp33.dtype))
    return amp33, offset, np.count_nonzero(~here)


def share_that_varies(samples: np.ndarray) -> float:
    """Share of the samples (resultant, row, column) that are not the same in all resultants."""
    return np.count_nonzero((samples != samples[0]).any(axis=0)) / max(samples[0].size, 1)


def fill_gaps(stream: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Fill the gaps of a stream of samples with a weighted mean of those around them.

    The weights are sin(π k / 32), k = 1 … 32, of the samples from 15 after to 16 before; samples that are not there have
    none, and a gap that has only such neighbours becomes zero.

    Parameters
    ----------
    stream : numpy.ndarray
        Amplifier 33 in read order, with the dead time, float32, (row, 140); zero in the gaps.
    there : numpy.ndarray
        bool, like `stream`: false in the gaps and in the dead time.

    Returns
    -------
    numpy.ndarray
    """
    weights = np.sin(np.arange(1, GAP_WIDTH + 1, dtype=np.float32) * np.pi / GAP_WIDTH)
    sums = np.convolve(stream.ravel(), weights, "same")
    norms = np.convolve(there.ravel().astype(float), weights, "same")
    means = np.divide(sums, norms, out=np.zeros_like(norms), where=norms != 0).reshape(stream.shape)
    return np.where(there, stream, means.astype(np.float32))


def smooth_dead_time(stream: np.ndarray) -> np.ndarray:
    """Smooth the samples of the dead time between rows, three times, and leave the others.

    The IRRC multiplies the spectrum of a stream of L samples by (1 + cos(2πf/L)) / 2. That is a mean of each sample with the
    two beside it, with the weights ¼, ½ and ¼, and the last sample of the frame is a neighbour of its first.

    Parameters
    ----------
    stream : numpy.ndarray
        Amplifier 33 in read order, with the dead time, float32, (row, 140).

    Returns
    -------
    numpy.ndarray
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
def twiddle_factors(rows: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The two factors of e^(2πi k s / (140 rows)) in `half_transform`, times the norm of a transform to time.

    Returns
    -------
    coarse : numpy.ndarray
        For the first k of each block, complex64, (k // block, sample), without the samples of the dead time.
    fine : numpy.ndarray
        For the others, complex64, (sample, k % block).
    """
    length, sample = rows * SAMPLES, np.arange(CHANNEL_WIDTH)
    # The responses belong to spectra divided by their length, and half a spectrum stands for the whole.
    norm = 2 * (length // 2 + 1) / length
    coarse = norm * np.exp(2j * np.pi * np.outer(np.arange(0, rows, block), sample) / length)
    fine = np.exp(2j * np.pi * np.outer(sample, np.arange(block)) / length)
    return coarse.astype(np.complex64), fine.astype(np.complex64)


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
    """What the references of one resultant recorded, in the order of reading, and the trend of each channel.

    Parameters are those of `correct_resultants`, of one resultant.

    Returns
    -------
    streams : numpy.ndarray
        Left and right borders, where they lie in time among zeros, and amplifier 33, DN, float32, (reference, row, 140).
    trends : list of (float, float)
        `fit_trend` of each channel.
    """
    rows, columns = resultant.shape
    last = columns // CHANNEL_WIDTH - 1
    times = sample_times(rows)
    ends = np.r_[:BORDER, rows - BORDER : rows]

    def without_offset(values, values_offset):
        # A missing sample is zero in all resultants, and so it is without the offset; one that equals its mean may be there.
        rest = values - values_offset
        return rest, (rest if mean_is_missing else values) != 0

    def trend_of(values, values_offset, number):
        if not remove_trends:
            return 0.0, 0.0
        return fit_trend(*without_offset(values[ends], values_offset[ends]), in_read_order(times, number)[ends])

    def columns_of(number):
        return np.s_[:, number * CHANNEL_WIDTH : (number + 1) * CHANNEL_WIDTH]

    trends = [trend_of(resultant[columns_of(n)], offset[columns_of(n)], n) for n in range(last + 1)]
    streams = np.zeros((3, rows, SAMPLES), np.float32)
    for stream, number, border in ((streams[0], 0, np.s_[:BORDER]), (streams[1], last, np.s_[-BORDER:])):
        values = without_offset(resultant[columns_of(number)][:, border], offset[columns_of(number)][:, border])
        on_detector = in_read_order(stream[:, :CHANNEL_WIDTH], number)
        on_detector[:, border] = remove_trend(*values, in_read_order(times, number)[:, border], trends[number])

    values, there = without_offset(amp33.astype(np.float32), amp33_offset)
    trend = trend_of(amp33.astype(np.float32), amp33_offset, 0)
    streams[2, :, :CHANNEL_WIDTH] = remove_trend(values, there, times, trend)
    if cosine_interpolate:
        streams[2] = fill_gaps(streams[2], np.pad(there, ((0, 0), (0, CHANNEL_DEAD_COLUMNS))))
    if fft_interpolate:
        streams[2] = smooth_dead_time(streams[2])
    return streams, trends


def correct_resultants(
    resultants: Sequence[np.ndarray],
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
        amp33 without its trend and with its gaps filled, as an absolute value, in its own dtype.
    """
    from rampflow.kernels.refpix import LANES, combine, half_transform, subtract  # before scipy: numba imports more where it is

    from scipy import fft  # isort: skip

    responses = tuple(responses)
    rows, columns = resultants[0].shape
    length = rows * SAMPLES
    twiddles = twiddle_factors(rows, LANES)

    def streams_of(resultant, amp33_of_it):
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
        streams, trends = zip(*pool.map(streams_of, resultants, amp33), strict=True)
        streams = np.stack(streams)
        spectra = fft.rfft(streams.reshape(*streams.shape[:2], length) / length, workers=threads)
        spectra[:, :2] *= np.float32(SAMPLES / BORDER)  # a border weighs as if all samples of its stream were there

        def correct(pairs):
            spectrum = np.empty((2, SAMPLES, rows), np.float32)
            turned = np.empty((CHANNEL_WIDTH, rows), np.complex64)
            for pair in pairs:
                # One transform for two corrections: the second is the imaginary part.
                combine(responses, spectra, pair[0], pair[-1], spectrum)
                half_transform(spectrum, *twiddles, turned)
                samples = fft.ifft(turned, norm="forward", overwrite_x=True)
                for part, (channel, i) in enumerate(pair):
                    subtract(resultants[i], offset, channel, *trends[i][channel], mean_is_missing, samples, part)

        # A channel of all resultants before the next one, so that its responses are read once for two of them.
        corrections = list(itertools.product(range(columns // CHANNEL_WIDTH), range(len(resultants))))
        pairs = [corrections[i : i + 2] for i in range(0, len(corrections), 2)]
        list(pool.map(correct, [pairs[i::threads] for i in range(threads)]))
    return np.abs(streams[:, 2, :, :CHANNEL_WIDTH] + amp33_offset).astype(amp33.dtype)


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
        uint32, (row, column). Pixels with BAD_REF_PIXEL are taken as zero.
    responses : sequence of numpy.ndarray
        To the left, right and amp33 references, each complex, (channel, frequency).
    remove_offset, remove_trends, cosine_interpolate, fft_interpolate, mean_is_missing : bool
        The parameters of the step.

    Returns
    -------
    data, amp33 : numpy.ndarray
        Corrected, as `correct_resultants` does.
    """
    responses = [response.astype(np.complex64, copy=False) for response in responses]
    good = np.where(dq.has(pixeldq, dq.BAD_REF_PIXEL), np.float32(0), data)
    offset = good.mean(axis=0) if remove_offset else np.zeros_like(good[0])
    amp33, amp33_offset, _ = complete_amp33(amp33, remove_offset=remove_offset)
    corrected_amp33 = [
        correct_resultants(
            good[i : i + TOGETHER],
            amp33[i : i + TOGETHER],
            offset,
            amp33_offset,
            responses,
            remove_trends=remove_trends,
            cosine_interpolate=cosine_interpolate,
            fft_interpolate=fft_interpolate,
            mean_is_missing=mean_is_missing,
        )
        for i in range(0, len(good), TOGETHER)
    ]
    return good, np.concatenate(corrected_amp33)


def read_responses(reference: Exposure, rows: int, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the responses of a detector's channels.

    Returns
    -------
    tuple of numpy.ndarray
        To the left, right and amp33 references, each complex64, (channel, frequency).

    Raises
    ------
    RampflowError
    """
    shape = channels, rows * SAMPLES // 2 + 1

    def read(name):
        array = reference.array(name, 2, kinds="c")
        if array.shape != shape:
            raise RampflowError(
                f"{reference.path}: {name} has the shape {array.shape}, and an exposure of {channels} channels of {rows} rows "
                f"needs {shape}; give the reference of this detector"
            )
        response = np.empty(shape, np.complex64)
        for channel in range(channels):
            response[channel] = array.read_rows(channel, channel + 1)[0]
        # One wrong value would spread over a whole channel.
        largest = float(np.max([np.abs(channel.view(np.float32)).max() for channel in response]))
        if not largest < np.inf:
            raise RampflowError(f"{reference.path}: {name} has values that are not finite; give a whole reference")
        refuse_implausible(
            reference.path, f"the {RESPONSE.quantity} ({name})", largest, (RESPONSE.minimum, RESPONSE.maximum), "", "refpix"
        )
        return response

    return read("gamma"), read("zeta"), read("alpha")


def warn_of_channels(job: Job, still: np.ndarray, resultants: int) -> None:
    """Warn of channels that have the same counts in the first and the last resultant; `still` is their share, by channel."""
    stuck = np.flatnonzero(still > 1 - MOST_VARY)
    if stuck.size and resultants > 1:
        job.log.warning(
            "%s: most counts of the channels %s (from 1) are the same in the first and the last resultant: dead, stuck or "
            "saturated. Their slopes are not those of the sky",
            job.exposure.path.name,
            ", ".join(str(channel + 1) for channel in stuck),
        )


def warn_of_border(job: Job) -> None:
    """Warn of counts of the reference border that are none: what they pretend is subtracted from the whole detector."""
    ramp = job.exposure.array("data")
    rows = ramp.shape[1]
    middle = ramp.read_rows(rows // 2 - 8, rows // 2 + 8)  # enough to see a fault of a side
    sides = {"left": middle[..., :BORDER], "right": middle[..., -BORDER:]}
    sides |= {"top": ramp.read_rows(0, BORDER), "bottom": ramp.read_rows(rows - BORDER, rows)}
    for side, counts in sides.items():
        lost = ((counts <= 0) | (counts >= LARGEST_COUNT)).mean(axis=(1, 2))
        if spoiled := np.flatnonzero(lost > FEW_LOST).tolist():
            job.log.warning(
                "%s: the %s border has up to %.3g %% of its counts at 0 or %d DN in the resultants %s (from 1): empty or "
                "saturated. The correction may add noise to the data",
                job.exposure.path.name,
                side,
                100 * lost.max(),
                LARGEST_COUNT,
                ", ".join(str(resultant + 1) for resultant in spoiled),
            )


def warn_of_references(job: Job, varies: dict[str, float], lost: int, amp33: np.ndarray) -> None:
    """Warn of references that can't show any noise, and of samples of amplifier 33 that are lost.

    Parameters
    ----------
    job : Job
    varies : dict
        Share of the samples of each reference that vary between resultants.
    lost : int
        From `complete_amp33`.
    amp33 : numpy.ndarray
        As it came, DN.
    """
    silent = [f"{name} ({share:.0%})" for name, share in varies.items() if share < MOST_VARY]
    if silent and len(amp33) > 1:
        job.log.warning(
            "%s: the reference pixels of %s carry no signal (in brackets: share of samples that vary between resultants; "
            "median of amp33: %g DN). They are empty, saturated or dead, so refpix can't remove the noise that they should "
            "measure",
            job.exposure.path.name,
            ", ".join(silent),
            np.median(amp33),
        )
    if lost:
        (job.log.warning if lost > FEW_LOST * amp33.size else job.log.info)(
            "%s: %d samples of amp33 (%.2g %%) are 0 or %d DN in some resultants: they count as missing",
            job.exposure.path.name,
            lost,
            100 * lost / amp33.size,
            LARGEST_COUNT,
        )


def run(job: Job) -> None:
    """Process one exposure."""
    if job.references["refpix"] is None:
        return job.skip("There is no refpix reference")
    exposure, parameters = job.exposure, job.parameters
    ramp, pixeldq = exposure.array("data"), exposure.array("pixeldq")
    resultants, rows, columns = ramp.shape
    warn_of_border(job)
    stored = exposure.array("amp33", shape=(resultants, rows, CHANNEL_WIDTH)).read()
    samples, amp33_offset, lost = complete_amp33(stored, remove_offset=parameters.remove_offset)
    offset = np.zeros((rows, columns), np.float32)

    def average(start, stop):
        values = ramp.read_rows(start, stop)
        still = np.count_nonzero((values[0] == values[-1]).reshape(stop - start, -1, CHANNEL_WIDTH), axis=(0, 2))
        if parameters.remove_offset:
            values.mean(axis=0, out=offset[start:stop])
        varies = [(stop - start) * share_that_varies(values[..., border]) for border in (np.s_[:BORDER], np.s_[-BORDER:])]
        return start * columns + np.flatnonzero(dq.has(pixeldq.read_rows(start, stop), dq.BAD_REF_PIXEL)), varies, still

    bad, varies, still = zip(*job.map_rows(average, rows), strict=True)
    bad = np.concatenate(bad)
    offset.flat[bad] = 0
    warn_of_channels(job, np.sum(still, axis=0) / (rows * CHANNEL_WIDTH), resultants)
    left, right = np.sum(varies, axis=0) / rows
    warn_of_references(
        job, {"the left border": left, "the right border": right, "amp33": share_that_varies(stored)}, lost, stored
    )
    with job.open_reference("refpix") as reference:
        reference.file.verify()
        responses = read_responses(reference, rows, columns // CHANNEL_WIDTH)

    borders = {
        name: EmptyArray((resultants, rows, BORDER), np.float32) for name in ("border_ref_pix_left", "border_ref_pix_right")
    }
    with job.create(rewrite=("data", "amp33"), arrays=borders) as product:
        # The same memory for all: the system clears what it gives.
        held = np.empty((TOGETHER, rows, columns), np.float32)
        for first in range(0, resultants, TOGETHER):
            numbers = range(first, min(first + TOGETHER, resultants))
            planes = held[: len(numbers)]
            for i, plane in zip(numbers, planes, strict=True):
                ramp.read_plane(i, out=plane).flat[bad] = 0
            corrected_amp33 = correct_resultants(
                planes,
                samples[numbers.start : numbers.stop],
                offset,
                amp33_offset,
                responses,
                remove_trends=parameters.remove_trends,
                cosine_interpolate=parameters.cosine_interpolate,
                fft_interpolate=parameters.fft_interpolate,
                mean_is_missing=parameters.mean_is_missing,
                threads=job.threads,
            )
            for i, plane, amp33_plane in zip(numbers, planes, corrected_amp33, strict=True):
                product.write_plane("data", i, plane)
                product.write_plane("amp33", i, amp33_plane)
                product.write_plane("border_ref_pix_left", i, plane[:, :BORDER])
                product.write_plane("border_ref_pix_right", i, plane[:, -BORDER:])


if __name__ == "__main__":
    sys.exit(run_step(STEP, run))
