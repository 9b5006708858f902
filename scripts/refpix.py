"""refpix: remove the correlated noise that the reference pixels see.

The Improved Roman Reference Correction (IRRC; Rauscher et al.): what the left and right reference pixels and amplifier 33
recorded is filtered, per readout channel, with the responses of the reference file, and subtracted.
"""

import functools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from wfi import dq
from wfi.asdf_io import EmptyArray
from wfi.detector import BORDER, CHANNEL_DEAD_COLUMNS, CHANNEL_WIDTH
from wfi.errors import RampflowError
from wfi.step import Exposure, Job, Parameter, Reference, Step

STEP = Step(
    name="refpix",
    status="refpix",
    suffix="refpix",
    takes="ramp",
    summary="Remove correlated noise with the reference pixels and amplifier 33.",
    references=(
        Reference("refpix", "responses of each channel to the left (gamma), right (zeta) and amp33 (alpha) references"),
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
GAP_WIDTH = 32  #: samples that the filling of amp33's gaps looks at
SMOOTHINGS = 3  #: times that the filled dead time is smoothed


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

    The low-pass filter of the IRRC is (1 + cos(2πf/L)) / 2 at the frequencies f of a stream of L samples, so that the last
    sample of the frame is a neighbour of its first. Like all transforms of this step, it is in single precision to the
    frequencies and in double back, as romancal's: then their roundings are the same, and the results equal to the last bit.

    Parameters
    ----------
    stream : numpy.ndarray
        Amplifier 33 in read order, with the dead time, float32, (row, 140).

    Returns
    -------
    numpy.ndarray
    """
    from scipy import fft

    length = stream.size
    low_pass = (1 + np.cos(2 * np.pi * np.arange(length // 2 + 1) / length)) / 2
    smoothed = stream.copy()
    for _ in range(SMOOTHINGS):
        filtered = fft.irfft(low_pass * fft.rfft(smoothed.ravel()), length).reshape(stream.shape)
        smoothed[:, CHANNEL_WIDTH:] = filtered[:, CHANNEL_WIDTH:]
    return smoothed


@functools.cache
def twiddle_factors(rows: int) -> np.ndarray:
    """The factors e^(2πi k s / (140 rows)) of `to_time`, complex128, (k, s) = (row, 140)."""
    return np.exp(2j * np.pi * np.outer(np.arange(rows), np.arange(SAMPLES)) / (rows * SAMPLES))


def to_time(spectrum: np.ndarray, twiddles: np.ndarray, samples: np.ndarray) -> None:
    """Transform a spectrum to time, without a norm, in two rounds of short transforms.

    With the frequency k + rows·f and the sample s of row r,

        x[r, s] = Σ_k e^(2πi k r / rows) · e^(2πi k s / (140 rows)) · Σ_f X[k, f] e^(2πi f s / 140)

    (D. H. Bailey 1990, J. Supercomputing 4, 23). Transforms of 140 and of 4,096 values stay in the cache of a processor, which
    one of their product does not: they take a third of its time.

    Parameters
    ----------
    spectrum : numpy.ndarray
        X, complex128, (k, f) = (row, 140); used up.
    twiddles : numpy.ndarray
        `twiddle_factors`.
    samples : numpy.ndarray
        x, complex128, (row, 140): written.
    """
    np.fft.ifft(spectrum, axis=1, norm="forward", out=samples)
    np.multiply(samples, twiddles, out=spectrum)
    np.fft.ifft(spectrum, axis=0, norm="forward", out=samples)


def correct_resultant(
    resultant: np.ndarray,
    amp33: np.ndarray,
    offset: np.ndarray,
    amp33_offset: np.ndarray,
    responses: np.ndarray,
    *,
    remove_trends: bool = True,
    cosine_interpolate: bool = True,
    fft_interpolate: bool = True,
    mean_is_missing: bool = True,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Correct one resultant.

    Parameters
    ----------
    resultant : numpy.ndarray
        Counts, DN, float32, (row, column), bad reference pixels being zero.
    amp33 : numpy.ndarray
        Amplifier 33, DN, any real dtype, (row, 128).
    offset, amp33_offset : numpy.ndarray
        DN, float32: what is taken out of `resultant` and `amp33` before and put back after.
    responses : numpy.ndarray
        complex128, (channel, reference, frequency); the references are left, right and amp33.
    remove_trends, cosine_interpolate, fft_interpolate, mean_is_missing : bool
        The parameters of the step.
    threads : int
        Channels to work on at a time.

    Returns
    -------
    resultant : numpy.ndarray
        Corrected counts, DN, float32.
    amp33 : numpy.ndarray
        Without its trend and with its gaps filled, as an absolute value, in its own dtype.
    """
    from scipy import fft

    from wfi.kernels.refpix import combine, subtract

    rows, columns = resultant.shape
    last = columns // CHANNEL_WIDTH - 1
    length = rows * SAMPLES
    times, twiddles = sample_times(rows), twiddle_factors(rows)
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

    def border_stream(number, border):
        # The reference columns of a channel where they lie in time; the other samples are zero.
        values = without_offset(resultant[columns_of(number)][:, border], offset[columns_of(number)][:, border])
        stream = np.zeros((rows, SAMPLES), np.float32)
        on_detector = in_read_order(stream[:, :CHANNEL_WIDTH], number)
        on_detector[:, border] = remove_trend(*values, in_read_order(times, number)[:, border], trends[number])
        return stream

    amp33_trend = trend_of(amp33.astype(np.float32), amp33_offset, 0)
    amp33_values, amp33_there = without_offset(amp33.astype(np.float32), amp33_offset)
    amp33_stream, there = np.zeros((rows, SAMPLES), np.float32), np.zeros((rows, SAMPLES), bool)
    amp33_stream[:, :CHANNEL_WIDTH] = remove_trend(amp33_values, amp33_there, times, amp33_trend)
    there[:, :CHANNEL_WIDTH] = amp33_there
    if cosine_interpolate:
        amp33_stream = fill_gaps(amp33_stream, there)
    if fft_interpolate:
        amp33_stream = smooth_dead_time(amp33_stream)

    # A border weighs as if all samples of its stream were there.
    references = (
        (border_stream(0, np.s_[:BORDER]), SAMPLES / BORDER),
        (border_stream(last, np.s_[-BORDER:]), SAMPLES / BORDER),
        (amp33_stream, 1),
    )
    corrected = np.empty_like(resultant)

    with ThreadPoolExecutor(threads) as pool:
        # The responses belong to transforms divided by their length.
        spectra = np.stack(list(pool.map(lambda r: fft.rfft(r[0].ravel() / length) * np.float32(r[1]), references)))
        spectra = spectra.astype(complex) * (2 * (length // 2 + 1) / length)  # half a spectrum stands for the whole

        def correct(pairs):
            spectrum, samples = np.empty((2, rows, SAMPLES), complex)
            for pair in pairs:
                # One transform for two channels: the correction of the second is the imaginary part.
                combine(responses[pair.start : pair.stop], spectra, spectrum)
                to_time(spectrum, twiddles, samples)
                for number, correction in zip(pair, (samples.real, samples.imag), strict=False):
                    here = resultant, offset, number * CHANNEL_WIDTH, CHANNEL_WIDTH
                    subtract(*here, *trends[number], mean_is_missing, correction, number % 2 == 1, corrected)

        pairs = [range(number, min(number + 2, last + 1)) for number in range(0, last + 1, 2)]
        list(pool.map(correct, [pairs[i::threads] for i in range(threads)]))
    return corrected, np.abs(amp33_stream[:, :CHANNEL_WIDTH] + amp33_offset).astype(amp33.dtype)


def correct_reference_pixels(
    data: np.ndarray,
    amp33: np.ndarray,
    pixeldq: np.ndarray,
    responses: np.ndarray,
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
    responses : numpy.ndarray
        complex128, (channel, reference, frequency), as for `correct_resultant`.
    remove_offset, remove_trends, cosine_interpolate, fft_interpolate, mean_is_missing : bool
        The parameters of the step.

    Returns
    -------
    data, amp33 : numpy.ndarray
        Corrected, as `correct_resultant` describes them.
    """
    good = np.where(dq.has(pixeldq, dq.BAD_REF_PIXEL), np.float32(0), data)
    samples = amp33.astype(np.float32)
    offset, amp33_offset = (values.mean(axis=0) if remove_offset else np.zeros_like(values[0]) for values in (good, samples))
    corrected = [
        correct_resultant(
            *resultant,
            offset,
            amp33_offset,
            responses,
            remove_trends=remove_trends,
            cosine_interpolate=cosine_interpolate,
            fft_interpolate=fft_interpolate,
            mean_is_missing=mean_is_missing,
        )
        for resultant in zip(good, amp33, strict=True)
    ]
    return np.stack([c for c, _ in corrected]), np.stack([a for _, a in corrected])


def read_responses(reference: Exposure, rows: int, channels: int) -> np.ndarray:
    """Read the responses of a detector's channels.

    Returns
    -------
    numpy.ndarray
        complex128, (channel, reference, frequency).

    Raises
    ------
    RampflowError
    """
    frequencies = rows * SAMPLES // 2 + 1
    responses = np.empty((channels, 3, frequencies), complex)
    for index, name in enumerate(("gamma", "zeta", "alpha")):
        array = reference.array(name, 2, kinds="c")
        if array.shape != (channels, frequencies):
            raise RampflowError(
                f"{reference.path}: {name} has the shape {array.shape}, and an exposure of {channels} channels of {rows} rows "
                f"needs {(channels, frequencies)}; give the reference of this detector"
            )
        for channel in range(channels):
            responses[channel, index] = array.read_rows(channel, channel + 1)[0]
        if not np.isfinite(responses[:, index]).all():  # one such value would spread over a whole channel
            raise RampflowError(f"{reference.path}: {name} has values that are not finite; give a whole reference")
    return responses


def run(job: Job) -> None:
    """Process one exposure."""
    if job.references["refpix"] is None:
        return job.skip("There is no refpix reference")
    exposure, parameters = job.exposure, job.parameters
    ramp, pixeldq = exposure.array("data"), exposure.array("pixeldq")
    resultants, rows, columns = ramp.shape
    amp33 = exposure.array("amp33", shape=(resultants, rows, CHANNEL_WIDTH))
    with job.open_reference("refpix") as reference:
        reference.file.verify()
        responses = read_responses(reference, rows, columns // CHANNEL_WIDTH)
    bad = dq.has(pixeldq.read(), dq.BAD_REF_PIXEL)

    samples = amp33.read()
    offset, amp33_offset = np.zeros((rows, columns), np.float32), np.zeros((rows, CHANNEL_WIDTH), np.float32)
    if parameters.remove_offset:
        amp33_offset = samples.astype(np.float32).mean(axis=0)

        def average(start, stop):
            offset[start:stop] = np.where(bad[start:stop], np.float32(0), ramp.read_rows(start, stop).mean(axis=0))

        job.map_rows(average, rows)

    borders = {
        name: EmptyArray((resultants, rows, BORDER), np.float32) for name in ("border_ref_pix_left", "border_ref_pix_right")
    }
    with job.create(rewrite=("data", "amp33"), arrays=borders) as product:

        def correct(i):
            # A function, so that nothing of one resultant stays in memory while the next is corrected.
            resultant = ramp.read_plane(i)
            resultant[bad] = 0
            resultant, corrected_amp33 = correct_resultant(
                resultant,
                samples[i],
                offset,
                amp33_offset,
                responses,
                remove_trends=parameters.remove_trends,
                cosine_interpolate=parameters.cosine_interpolate,
                fft_interpolate=parameters.fft_interpolate,
                mean_is_missing=parameters.mean_is_missing,
                threads=job.threads,
            )
            product.write_plane("data", i, resultant)
            product.write_plane("amp33", i, corrected_amp33)
            product.write_plane("border_ref_pix_left", i, resultant[:, :BORDER])
            product.write_plane("border_ref_pix_right", i, resultant[:, -BORDER:])

        for i in range(resultants):
            correct(i)


if __name__ == "__main__":
    sys.exit(STEP.main(run))
