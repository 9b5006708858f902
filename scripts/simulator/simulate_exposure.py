"""simulate_exposure: make a raw Level 1 exposure of a simulated sky, and write the truth beside it.

The exposure is made with the references that CRDS gives for it, and with all that the pipeline's steps undo: flat field,
dark current, photon noise, cosmic rays, non-linearity, saturation, the converter's integral non-linearity, read noise, 1/f
noise and drifts that reference pixels share, the dark decay signal, the WFI18 transient::

    python simulate_exposure.py EXPOSURE_uncal.asdf --sky SKY.ecsv --cache CACHE --detector WFI01 --seed 1

Beside EXPOSURE_uncal.asdf come EXPOSURE_truth.asdf (count rates, cosmic rays) and EXPOSURE_truth.ecsv (the sources on it).

Two options make exposures whose slopes and jumps are easily judged: ``--gradient 1 10000`` puts light from 1 to 10,000
electrons per second on the detector instead of a sky, and ``--jumps`` a grid of single hits of known charge instead of
random particles.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

# The library lies beside the simulator.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rampflow import dq as flags
from rampflow.detector import BORDER, CHANNEL_WIDTH, SCIENCE, detector_number
from rampflow.errors import RampflowError
from rampflow.files.tags import ROMAN_PREFIX
from simulator import detector as electronics
from simulator.metadata import (
    ABERRATION_SCALE,
    GROUND_TEST_TYPES,
    MA_TABLES,
    MODELS,
    OLDER_VERSIONS,
    Settings,
    fill_ground_test,
    fill_metadata,
    fill_older_version,
)
from simulator.optics import PointSpread, Projection, render_sources

#: Light besides the sources', DN/s: zodiacal light, and lamps where the type of exposure has them (invented).
BACKGROUND = {"WFI_IMAGE": 0.25, "WFI_LOLO": 2.0, "WFI_WFSC": 0.25, "WFI_SPECTRAL": 0.5, "WFI_FLAT": 100.0}
SEES_SKY = ("WFI_IMAGE", "WFI_LOLO", "WFI_WFSC", "WFI_SPECTRAL")
#: What stands in for a reference's value that is NaN or not positive: the pixel itself is like others.
USUAL = {"gain": 1.8, "saturation": 55000.0, "readnoise": 7.0}
DISPERSED_RATE = 0.008  #: DN/s of a source of 1 nJy, through grism and prism, which have no calibration to MJy/sr
PEDESTAL, CHANNEL_SPREAD, PIXEL_SPREAD = 6000.0, 300.0, 100.0  #: DN
FULL_WELL = 1.02  #: over the saturation threshold
AMP33_GAPS = 1e-4  #: fraction of amplifier 33's pixels that are missing (zero) in all resultants
CONVERTER_STEP = 16.0  #: DN
REFERENCE_TYPES = (
    *("mask", "saturation", "refpix", "darkdecaysignal", "inverselinearity", "integralnonlinearity", "readnoise", "gain"),
    *("dark", "flat", "distortion", "photom", "epsf"),
)


def find_references(settings: Settings) -> dict[str, Path]:
    """Files that CRDS gives for the exposure, by type; types that don't apply are left out.

    Raises
    ------
    RampflowError
        CRDS has no rule for the exposure.
    """
    import crds
    from crds.core.exceptions import CrdsError

    header = {
        "ROMAN.META.INSTRUMENT.NAME": "WFI",
        "ROMAN.META.INSTRUMENT.DETECTOR": settings.detector,
        "ROMAN.META.INSTRUMENT.OPTICAL_ELEMENT": settings.optical_element,
        "ROMAN.META.EXPOSURE.TYPE": settings.exposure_type,
        "ROMAN.META.EXPOSURE.START_TIME": settings.start_time.replace("T", " "),
    }
    try:
        found = crds.getreferences(header, reftypes=REFERENCE_TYPES, observatory="roman")
    except CrdsError as error:
        raise RampflowError(f"CRDS has no references for this exposure; make them with simulate_references ({error})") from None
    return {reftype: Path(path) for reftype, path in found.items() if not path.startswith("NOT FOUND")}


def usable(values: np.ndarray, reftype: str) -> np.ndarray:
    """Values of a reference where they are positive, the usual one elsewhere."""
    return np.where(values > 0, values, np.float32(USUAL[reftype]))


def simulate(settings: Settings, sky, references: dict, *, threads: int = 1):
    """Simulate one exposure.

    Parameters
    ----------
    settings : Settings
    sky : astropy.table.Table or None
        See `simulate_sky`; not needed for a gradient.
    references : dict
        Reference type to open reference model.
    threads : int

    Returns
    -------
    arrays : dict
        Those of the raw file by name: data (resultants, rows, columns) with the border, and amp33 (resultants, rows, 128),
        DN, uint16; where they are asked for, reference_read, reference_amp33 (without resultants) and resultantdq (uint8).
    truth : dict
        scene (DN/s, what a flat-fielded image measures) and count_rate (DN/s, what a ramp shows: scene × flat + dark), both
        without the border; cosmic_rays (see `throw_cosmic_rays`; resultant is the first that shows them).
    sources : astropy.table.Table or None
        See `render_sources`; None without a sky.
    """
    shape = references["gain"].data.shape
    trimmed = tuple(n - 2 * BORDER for n in shape)
    sky_rng, cosmic_rng, pixel_rng, noise_rng, file_rng = np.random.default_rng(
        [settings.seed, detector_number(settings.detector)]
    ).spawn(5)
    n_reads = settings.read_pattern[-1][-1]

    scene, sources = _render_scene(settings, sky, references, trimmed)
    count_rate = _count_rate(scene, references, sky_rng)
    if settings.jumps:
        hits = electronics.arrange_jumps(cosmic_rng, trimmed, n_reads)
    else:
        duration = n_reads * settings.frame_time
        hits = electronics.throw_cosmic_rays(
            cosmic_rng, trimmed, n_reads, duration, settings.cosmic_ray_flux, settings.snowballs
        )
    data, pedestal = _accumulate(count_rate, hits, references, settings, pixel_rng, threads)
    ramp, amp33, amp33_pedestal = _read_out(data, references, settings, noise_rng)
    if settings.saturated:
        ramp.fill(np.iinfo(np.uint16).max)
    arrays = _encode(ramp, amp33, pedestal, amp33_pedestal, references, settings, file_rng)
    last_reads = [resultant[-1] for resultant in settings.read_pattern]
    first = np.searchsorted(last_reads, hits["read"], side="right")
    rays = {name: hits[name].copy() for name in ("read", "row", "column", "charge")} | {"resultant": first.astype(np.int32)}
    return arrays, {"scene": scene.astype(np.float32), "count_rate": count_rate, "cosmic_rays": rays}, sources


def _render_scene(settings, sky, references, trimmed):
    """Light that falls on the pixels, DN/s, and the sources that it comes from."""
    scene, sources = np.zeros(trimmed), None if sky is None else sky[:0]
    if settings.gradient:
        return np.geomspace(*settings.gradient, trimmed[1]) / usable(references["gain"].data[SCIENCE], "gain"), sources
    if settings.exposure_type in SEES_SKY:
        spread, per_njy = None, DISPERSED_RATE
        if "epsf" in references:
            epsf, entry = references["epsf"], references["photom"].phot_table[settings.optical_element]
            # Focus 0 and the second spectral type are the ones that the pipeline's source catalog takes too.
            spread = PointSpread(np.array(epsf.psf[0, 1]), epsf.meta.pixel_x, epsf.meta.pixel_y, epsf.meta.oversample)
            per_njy = 1e-9 / (entry["photmjsr"] * 1e6 * entry["pixelareasr"])
        scene, sources = render_sources(trimmed, sky, make_projection(settings, references), spread, per_njy)
    background = BACKGROUND.get(settings.exposure_type, 0.0) if settings.background is None else settings.background
    return scene + background, sources


def reference_point(references) -> tuple[float, float]:
    """V2 and V3 (arcsec) of the detector's centre."""
    distortion = references["distortion"].coordinate_distortion_transform
    rows, columns = references["gain"].data.shape
    v2, v3 = distortion((columns - 2 * BORDER - 1) / 2, (rows - 2 * BORDER - 1) / 2)
    return float(v2), float(v3)


def make_projection(settings: Settings, references: dict) -> Projection:
    """True projection of the exposure, without the pointing error that its header has."""
    distortion = references["distortion"].coordinate_distortion_transform
    v2_ref, v3_ref = reference_point(references)
    return Projection(distortion, v2_ref, v3_ref, settings.attitude(v2_ref, v3_ref), ABERRATION_SCALE)


def _count_rate(scene, references, rng) -> np.ndarray:
    """Count rate of the pixels, DN/s float32: the scene through the flat field, blind in dead pixels, and the dark current."""
    sensitivity = np.ones_like(scene)
    if "flat" in references:
        flat = np.array(references["flat"].data)
        sensitivity = np.where(flat > 0, flat, rng.uniform(0.3, 1, flat.shape))
    sensitivity[flags.has(references["mask"].dq[SCIENCE], flags.DEAD)] = 0
    return (scene * sensitivity + np.nan_to_num(references["dark"].dark_slope[SCIENCE])).astype(np.float32)


def _accumulate(count_rate, hits, references, settings, rng, threads) -> tuple[np.ndarray, np.ndarray]:
    """Resultants without the noise of the readout (charge, non-linearity, full well, converter), and the pedestal; DN."""
    from simulator.kernels import expose_rows

    gain = usable(references["gain"].data, "gain")
    rows, columns = gain.shape
    rate = np.zeros_like(gain)
    rate[SCIENCE] = count_rate * gain[SCIENCE] * settings.frame_time
    channels = rng.normal(PEDESTAL, CHANNEL_SPREAD, columns // CHANNEL_WIDTH).astype(np.float32)
    pedestal = np.repeat(channels, CHANNEL_WIDTH) + PIXEL_SPREAD * rng.standard_normal(gain.shape, np.float32)
    full_well = np.minimum(FULL_WELL * usable(references["saturation"].data, "saturation"), 65535)
    inverse = np.array(references["inverselinearity"].coeffs)
    unknown = np.isnan(inverse).any(axis=0) | (inverse[1] == 0)
    inverse[:, unknown] = np.eye(len(inverse), 1, -1)  # linear
    conversion = np.zeros((1, int(2**16 / CONVERTER_STEP) + 1))
    if "integralnonlinearity" in references:
        table = references["integralnonlinearity"].inl_table
        corrections = np.array([table[name]["correction"] for name in sorted(table)])
        conversion = electronics.converter_error(references["integralnonlinearity"].value, corrections, CONVERTER_STEP)
    pattern = settings.read_pattern
    resultants = np.full(pattern[-1][-1], -1)
    for index, reads in enumerate(pattern):
        resultants[np.array(reads) - 1] = index
    block, result = 64, np.empty((len(pattern), rows, columns), np.float32)
    generators = rng.spawn(-(-rows // block))

    def expose(start: int) -> None:
        part = slice(start, min(start + block, rows))
        row = hits["row"] + BORDER
        mine = hits[(row >= part.start) & (row < part.stop)]
        table = np.stack([mine["row"] + BORDER - start, mine["read"], mine["column"] + BORDER, mine["charge"]], axis=1)
        out = result[:, part]
        inputs = (rate[part], gain[part], pedestal[part], inverse[:, part], full_well[part], conversion, CONVERTER_STEP)
        expose_rows(out, resultants, *inputs, table.astype(np.float64), generators[start // block])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(expose, range(0, rows, block)))
    return result, pedestal


def _read_out(data, references, settings, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add what the readout adds, and round: the detector's and amplifier 33's resultants (uint16), and the latter's pedestal.

    Amplifier 33's pedestal is 0 where its pixels are missing.
    """
    shape, number = data.shape[1:], detector_number(settings.detector)
    refpix, decay = references["refpix"], references["darkdecaysignal"].decay_table[settings.detector]
    common = electronics.CommonNoise(shape, refpix.gamma[:] + refpix.zeta[:] + refpix.alpha[:])
    frame, factors = electronics.dark_decay(
        shape, settings.read_pattern, settings.frame_time, number, decay["amplitude"], decay["time_constant"]
    )
    read_noise = usable(references["readnoise"].data, "readnoise")
    # Bad reference pixels are noisy ones.
    read_noise[flags.has(references["mask"].dq, flags.BAD_REF_PIXEL)] *= 30
    amp33_pedestal = rng.normal(PEDESTAL, PIXEL_SPREAD, (shape[0], CHANNEL_WIDTH))
    missing = rng.random(amp33_pedestal.shape) < AMP33_GAPS
    ramp, amp33 = np.empty(data.shape, np.uint16), np.empty((*data.shape[:2], CHANNEL_WIDTH), np.uint16)
    for index, n_reads in enumerate(map(len, settings.read_pattern)):
        drift = electronics.draw_drift(rng, shape)
        image, reference = common.draw(rng, n_reads)
        image += data[index]
        image += np.repeat(drift[:, :-1], CHANNEL_WIDTH, axis=1)
        image += read_noise / np.sqrt(n_reads) * rng.standard_normal(shape, np.float32)
        image += frame * factors[index]
        if number == 18 and index == 0:
            image += electronics.wfi18_transient(shape, settings.frame_time)
        ramp[index] = np.clip(np.rint(image), 0, 65535)
        reference += (
            amp33_pedestal + drift[:, -1:] + rng.normal(0, electronics.AMPLIFIER_NOISE / np.sqrt(n_reads), reference.shape)
        )
        reference[missing] = 0
        amp33[index] = np.clip(np.rint(reference), 0, 65535)
    amp33_pedestal[missing] = 0
    return ramp, amp33, amp33_pedestal


def _encode(ramp, amp33, pedestal, amp33_pedestal, references, settings, rng) -> dict:
    """The arrays of the raw file (see `simulate`): counts as they are sent to the ground, and what helps to decode them."""
    arrays, offset = {"data": ramp, "amp33": amp33}, settings.data_encoding_offset
    read_noise = usable(references["readnoise"].data, "readnoise")
    subtracted = {
        "data": ("reference_read", settings.reference_read, pedestal, read_noise),
        "amp33": ("reference_amp33", settings.reference_amp33, amp33_pedestal, electronics.AMPLIFIER_NOISE),
    }
    for name, (reference, wanted, level, noise) in subtracted.items():
        subtrahend = np.int32(-offset)
        if wanted:
            read = np.where(level > 0, level + noise * rng.standard_normal(level.shape, np.float32), 0)
            arrays[reference] = np.clip(np.rint(read), 0, 65535).astype(np.uint16)
            if settings.model == "science":  # files of ground tests have it added back
                subtrahend = arrays[reference].astype(np.int32) - offset
        for frame in arrays[name]:
            frame[:] = np.clip(frame - subtrahend, 0, 65535)
    if settings.resultantdq:
        arrays["resultantdq"] = electronics.draw_resultantdq(rng, ramp)
    if settings.saturated:
        # Where the threshold is not checked, no value can say that the pixel is saturated: the flag must.
        saturation = references["saturation"]
        unchecked = ~np.isfinite(saturation.data) | flags.has(saturation.dq, flags.NO_SAT_CHECK)
        arrays.setdefault("resultantdq", np.zeros(ramp.shape, np.uint8))[:, unchecked] |= flags.SATURATED
    return arrays


def write_exposure(output: Path, settings: Settings, arrays: dict, references: dict) -> None:
    """Write the Level 1 file; it is validated on the way."""
    import roman_datamodels.datamodels as rdm
    from astropy.units import Quantity

    model = rdm.ScienceRawModel.create_fake_data()
    names = {reftype: f"crds://{reference.meta.filename}" for reftype, reference in references.items()}
    fill_metadata(model.meta, settings, output.name, *reference_point(references), names)
    if settings.model != "science":
        science, model = model, getattr(rdm, MODELS[settings.model]).create_fake_data()
        fill_ground_test(model.meta, science.meta)
        # The reference read of a ground test has an axis of resultants too.
        arrays = {k: v[None] if k.startswith("reference_") else v for k, v in arrays.items()}
        arrays = {k: v if k == "resultantdq" else Quantity(v, "DN", dtype=v.dtype) for k, v in arrays.items()}
    elif settings.model_version:
        tag = f"{ROMAN_PREFIX}wfi_science_raw-{settings.model_version}"
        newest, model = model, rdm.ScienceRawModel.create_fake_data(tag=tag)
        fill_older_version(model.meta, newest.meta)
    for name, array in arrays.items():
        model[name] = array
    model.save(output)


def write_truth(output: Path, truth: dict, sources) -> None:
    """Write the truth beside the exposure: ``_truth.asdf`` and, where there is a sky, ``_truth.ecsv``."""
    import asdf

    asdf.AsdfFile({"truth": truth}).write_to(output)
    if sources is not None:
        sources.write(output.with_suffix(".ecsv"), format="ascii.ecsv", overwrite=True)


def main() -> int:
    """Run from the command line."""
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("output", type=Path, help="exposure to write (…_uncal.asdf)")
    add("--sky", type=Path, help="catalog of simulate_sky (needed unless there is a --gradient)")
    add("--truth", type=Path, help="truth to write (default: …_truth.asdf beside the output)")
    add("--cache", type=Path, help="CRDS cache with no server (default: CRDS as the environment has it)")
    add("--detector", default=default.detector, help="WFI01 to WFI18 (default: %(default)s)")
    add("--exposure-type", default=default.exposure_type, help="as in meta.exposure.type (default: %(default)s)")
    add(
        "--optical-element",
        default=default.optical_element,
        help="as in meta.instrument.optical_element (default: %(default)s)",
    )
    add("--ra", type=float, default=default.ra, help="where the detector's centre looks, degrees (default: %(default)s)")
    add("--dec", type=float, default=default.dec, help="where the detector's centre looks, degrees (default: %(default)s)")
    add("--roll", type=float, default=default.roll, help="position angle of V3 there, degrees (default: %(default)s)")
    add("--focal-plane", action="store_true", help="ra, dec and roll are those of the focal plane's centre")
    add(
        "--dither",
        type=float,
        nargs=2,
        default=default.dither,
        help="move of the telescope, east and north, arcsec (default: %(default)s)",
    )
    add(
        "--pointing-error",
        type=float,
        nargs=2,
        default=default.pointing_error,
        help="of the header, east and north, arcsec (default: %(default)s)",
    )
    add(
        "--ma-table", choices=MA_TABLES, default=default.ma_table, help="which reads make the resultants (default: %(default)s)"
    )
    add("--frame-time", type=float, default=default.frame_time, help="seconds per read (default: %(default)s)")
    add("--guide-window", type=int, nargs=2, help="its first column and row (default: on another detector)")
    add("--saturated", action="store_true", help="saturate every pixel from the first resultant on")
    add("--background", type=float, help="DN/s (default: as usual for the exposure type)")
    add(
        "--cosmic-ray-flux",
        type=float,
        default=default.cosmic_ray_flux,
        help="particles per second and cm² (default: %(default)s)",
    )
    add("--snowballs", type=int, default=default.snowballs, help="how many (default: %(default)s)")
    add(
        "--gradient",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="instead of the sky, light of LOW electrons per second in the first column to HIGH in the last, rising "
        "logarithmically; flat field and dark current act on it as ever, and the truth says what comes out",
    )
    add(
        "--jumps",
        action="store_true",
        help=f"instead of random cosmic rays and snowballs, a grid of hits, one in every {electronics.JUMP_SPACING} rows and "
        "columns, of {:.0f} to {:.0f} electrons in logarithmic steps, in all reads but the first".format(
            electronics.JUMP_CHARGES[0], electronics.JUMP_CHARGES[-1]
        ),
    )
    add("--reference-read", action="store_true", help="subtract a read before the exposure from data, and store it")
    add("--reference-amp33", action="store_true", help="subtract such a read from amp33, and store it")
    add(
        "--data-encoding-offset",
        type=int,
        default=0,
        metavar="N",
        help="add N DN to data and amp33, so that little is lost below 0 "
        "where a reference read is subtracted: 300 will do (default: %(default)s)",
    )
    add(
        "--resultantdq",
        action="store_true",
        help=f"flag 1 in 10,000 pixels of each resultant as each of DO_NOT_USE, SATURATED and JUMP_DET, and as DROPOUT and "
        f"DO_NOT_USE runs of {electronics.DROPOUT_LENGTH} pixels that have lost their counts",
    )
    add(
        "--model",
        choices=MODELS,
        default=default.model,
        help="data model of the file: fps and tvac are those of ground tests, whose arrays are quantities, and whose reference "
        "read is added back already (default: %(default)s)",
    )
    add("--model-version", choices=OLDER_VERSIONS, help="an older version of the science model (default: the newest)")
    for name in ("program", "observation", "visit", "exposure"):
        add(f"--{name}", type=int, default=getattr(default, name), help=f"{name} number (default: %(default)s)")
    add("--start-time", default=default.start_time, help="UTC (default: %(default)s)")
    add("--seed", type=int, default=default.seed, help="equal seeds make equal exposures (default: %(default)s)")
    add("--threads", type=int, default=1, help="for the compiled loops (default: %(default)s)")
    args = parser.parse_args()
    if args.cache:
        os.environ["CRDS_PATH"] = str(args.cache.resolve())
        os.environ["CRDS_SERVER_URL"] = "https://crds-serverless-mode.stsci.edu"
    if not args.output.name.endswith("_uncal.asdf"):
        parser.error(f"{args.output}: the name of a raw exposure ends with _uncal.asdf")
    if args.model != "science" and args.exposure_type not in GROUND_TEST_TYPES:
        parser.error(f"--model {args.model} has no type {args.exposure_type}; it takes {', '.join(GROUND_TEST_TYPES)}")
    if args.model != "science" and args.model_version:
        parser.error(f"--model-version is that of --model science, not of {args.model}")
    if not args.sky and not args.gradient:
        parser.error("--sky or --gradient is needed: nothing else says what light there is")

    import roman_datamodels.datamodels as rdm
    from astropy.table import Table

    settings = Settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)})
    try:
        files = find_references(settings)
    except RampflowError as error:
        parser.error(str(error))
    references = {reftype: rdm.open(path) for reftype, path in files.items()}
    sky = Table.read(args.sky) if args.sky else None
    arrays, truth, sources = simulate(settings, sky, references, threads=args.threads)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_exposure(args.output, settings, arrays, references)
    write_truth(args.truth or args.output.with_name(args.output.name.replace("_uncal", "_truth")), truth, sources)
    return 0


if __name__ == "__main__":
    sys.exit(main())
