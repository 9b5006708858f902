"""Simulate a raw Level 1 exposure of a simulated sky, and write the truth beside it.

The exposure is made with the references that CRDS selects for it. It has all the effects that the pipeline corrects: flat
field, dark current, photon noise, cosmic rays, non-linearity, saturation, the converter's integral non-linearity, read noise,
1/f noise and drifts that reference pixels share, the dark decay signal, the WFI18 transient::

    python simulate_exposure.py EXPOSURE_uncal.asdf --sky SKY.ecsv --cache CACHE --detector WFI01 --seed 1

It also writes EXPOSURE_truth.asdf (count rates, cosmic rays) and EXPOSURE_truth.ecsv (the sources on the image).

Two options make exposures with simple slopes and jumps: ``--gradient 1 10000`` replaces the sky by light from 1 to 10,000
electrons per second, and ``--jumps`` replaces the random particles by a grid of single hits of known charge.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

# The library lies beside the simulator.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rampflow import dq as flags
from rampflow.detector import BORDER, CHANNEL_WIDTH, SCIENCE, border_pixels, detector_number
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
from simulator.optics import PointSpread, Projection, defocus, render_sources

if TYPE_CHECKING:
    from astropy.table import Table

#: Background by exposure type, DN/s: zodiacal light, or lamps (assumed).
BACKGROUND = {"WFI_IMAGE": 0.25, "WFI_LOLO": 2.0, "WFI_WFSC": 0.25, "WFI_SPECTRAL": 0.5, "WFI_FLAT": 100.0}
SEES_SKY = ("WFI_IMAGE", "WFI_LOLO", "WFI_WFSC", "WFI_SPECTRAL")
#: Replacements of a reference's values that are NaN or not positive: the pixel itself is like others.
USUAL = {"gain": 1.8, "saturation": 55000.0, "readnoise": 7.0}
DISPERSED_RATE = 0.008  #: count rate of a source of 1 nJy through grism and prism, which have no calibration to MJy/sr, DN/s
PEDESTAL, CHANNEL_SPREAD, PIXEL_SPREAD = 6000.0, 300.0, 100.0  #: DN
FULL_WELL = 1.02  #: ratio of the full well to the saturation threshold
AMP33_GAPS = 1e-4  #: fraction of amplifier 33's pixels that are missing (zero) in all resultants
CONVERTER_STEP = 16.0  #: spacing of the table of the converter's error, DN
REFERENCE_TYPES = (
    *("mask", "saturation", "refpix", "darkdecaysignal", "inverselinearity", "integralnonlinearity", "readnoise", "gain"),
    *("dark", "flat", "distortion", "photom", "epsf"),
)


def find_references(settings: Settings) -> dict[str, Path]:
    """Find the references of an exposure with CRDS.

    Parameters
    ----------
    settings : Settings
        Settings of the exposure.

    Returns
    -------
    dict of pathlib.Path
        File of each reference type; types that don't apply are left out.

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
    """Replace values of a reference that are NaN or not positive by the usual one.

    Parameters
    ----------
    values : numpy.ndarray
        Values of the reference.
    reftype : str
        Key of `USUAL`.

    Returns
    -------
    numpy.ndarray
        Positive values, of the shape of `values`.
    """
    return np.where(values > 0, values, np.float32(USUAL[reftype]))


def simulate(settings: Settings, sky: Table | None, references: dict, *, threads: int = 1) -> tuple[dict, dict, Table | None]:
    """Simulate one exposure.

    Parameters
    ----------
    settings : Settings
        Settings of the exposure.
    sky : astropy.table.Table or None
        Sources, see `simulator.simulate_sky.make_sky`; not needed for a gradient.
    references : dict
        Open reference model of each reference type.
    threads : int
        Number of threads for the compiled loops.

    Returns
    -------
    arrays : dict
        Arrays of the raw file by name: data (resultants, rows, columns) with the border, and amp33 (resultants, rows, 128), DN,
        uint16; with the settings for them also reference_read, reference_amp33 (without resultants) and resultantdq (uint8).
    truth : dict
        Arrays scene (DN/s, as a flat-fielded image has it) and count_rate (DN/s, as a ramp has it: scene × flat + dark), both
        without the border; cosmic_rays (see `simulator.detector.throw_cosmic_rays`; resultant is the first that shows them).
    sources : astropy.table.Table or None
        Sources on the image, see `simulator.optics.render_sources`; `None` without a sky.

    Raises
    ------
    RampflowError
        The dead channel of the settings is not one of the detector's.
    """
    shape = references["gain"].data.shape
    trimmed = tuple(n - 2 * BORDER for n in shape)
    sky_rng, cosmic_rng, pixel_rng, noise_rng, file_rng = np.random.default_rng(
        [settings.seed, detector_number(settings.detector)]
    ).spawn(5)
    n_reads = settings.read_pattern[-1][-1]
    channels = shape[1] // CHANNEL_WIDTH
    if settings.dead_channel is not None and not 1 <= settings.dead_channel <= channels:
        raise RampflowError(f"--dead-channel is {settings.dead_channel}; this detector has the channels 1 to {channels}")

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
    """Light that falls on the pixels, DN/s, and its sources."""
    scene, sources = np.zeros(trimmed), None if sky is None else sky[:0]
    if settings.gradient:
        return np.geomspace(*settings.gradient, trimmed[1]) / usable(references["gain"].data[SCIENCE], "gain"), sources
    if settings.exposure_type in SEES_SKY:
        spread, per_njy = None, DISPERSED_RATE
        if "epsf" in references:
            epsf, entry = references["epsf"], references["photom"].phot_table[settings.optical_element]
            # Focus 0 and the second spectral type, as in the pipeline's source catalog.
            stamps = defocus(np.array(epsf.psf[0, 1]), settings.defocus * epsf.meta.oversample)
            spread = PointSpread(stamps, epsf.meta.pixel_x, epsf.meta.pixel_y, epsf.meta.oversample)
            per_njy = 1e-9 / (entry["photmjsr"] * 1e6 * entry["pixelareasr"])
        scene, sources = render_sources(trimmed, sky, make_projection(settings, references), spread, per_njy)
    background = BACKGROUND.get(settings.exposure_type, 0.0) if settings.background is None else settings.background
    return scene + background, sources


def reference_point(references: dict) -> tuple[float, float]:
    """Compute the position of the detector's center in the focal plane.

    Parameters
    ----------
    references : dict
        Open reference model of each reference type.

    Returns
    -------
    v2 : float
        Position along V2, arcsec.
    v3 : float
        Position along V3, arcsec.
    """
    distortion = references["distortion"].coordinate_distortion_transform
    rows, columns = references["gain"].data.shape
    v2, v3 = distortion((columns - 2 * BORDER - 1) / 2, (rows - 2 * BORDER - 1) / 2)
    return float(v2), float(v3)


def make_projection(settings: Settings, references: dict) -> Projection:
    """Make the true projection of an exposure, without the pointing error of its header.

    Parameters
    ----------
    settings : Settings
        Settings of the exposure.
    references : dict
        Open reference model of each reference type.

    Returns
    -------
    simulator.optics.Projection
        Projection between the sky and the pixels.
    """
    distortion = references["distortion"].coordinate_distortion_transform
    v2_ref, v3_ref = reference_point(references)
    return Projection(distortion, v2_ref, v3_ref, settings.attitude(v2_ref, v3_ref), ABERRATION_SCALE)


def _count_rate(scene, references, rng) -> np.ndarray:
    """Count rate of the pixels, DN/s float32: the scene times the flat field (0 in dead pixels), plus the dark current."""
    sensitivity = np.ones_like(scene)
    if "flat" in references:
        flat = np.array(references["flat"].data)
        sensitivity = np.where(flat > 0, flat, rng.uniform(0.3, 1, flat.shape))
    sensitivity[flags.has(references["mask"].dq[SCIENCE], flags.DEAD)] = 0
    return (scene * sensitivity + np.nan_to_num(references["dark"].dark_slope[SCIENCE])).astype(np.float32)


def _accumulate(count_rate, hits, references, settings, rng, threads) -> tuple[np.ndarray, np.ndarray]:
    """Resultants before the readout noise (charge, non-linearity, full well, converter), and the pedestal; DN."""
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
    if settings.dead_channel:
        dead = slice((settings.dead_channel - 1) * CHANNEL_WIDTH, settings.dead_channel * CHANNEL_WIDTH)
        result[..., dead] = pedestal[:, dead]
    if settings.reference_offset:
        result[:, border_pixels(0, rows, (rows, columns))] += np.float32(settings.reference_offset)
    return result, pedestal


def _read_out(data, references, settings, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add the readout noise and signals and round: resultants of detector and amplifier 33 (uint16), pedestal of the latter.

    The pedestal of amplifier 33 is 0 where its pixels are missing.
    """
    shape, number = data.shape[1:], detector_number(settings.detector)
    refpix, decay = references["refpix"], references["darkdecaysignal"].decay_table[settings.detector]
    common = electronics.CommonNoise(shape, refpix.gamma[:] + refpix.zeta[:] + refpix.alpha[:])
    frame, factors = electronics.dark_decay(
        shape, settings.read_pattern, settings.frame_time, number, decay["amplitude"], decay["time_constant"]
    )
    read_noise = usable(references["readnoise"].data, "readnoise")
    # Bad reference pixels are noisy.
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
    """The arrays of the raw file (see `simulate`), encoded as they are sent to the ground, and those that decode them."""
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
            if settings.model == "science":  # in files of ground tests it is added back already
                subtrahend = arrays[reference].astype(np.int32) - offset
        for frame in arrays[name]:
            frame[:] = np.clip(frame - subtrahend, 0, 65535)
    if settings.resultantdq:
        arrays["resultantdq"] = electronics.draw_resultantdq(rng, ramp)
    if settings.saturated:
        # Pixels without a threshold need the flag: no value of theirs counts as saturated.
        saturation = references["saturation"]
        unchecked = ~np.isfinite(saturation.data) | flags.has(saturation.dq, flags.NO_SAT_CHECK)
        arrays.setdefault("resultantdq", np.zeros(ramp.shape, np.uint8))[:, unchecked] |= flags.SATURATED
    return arrays


def write_exposure(output: Path, settings: Settings, arrays: dict, references: dict) -> None:
    """Write the Level 1 file, which validates it.

    Parameters
    ----------
    output : pathlib.Path
        File to write.
    settings : Settings
        Settings of the exposure.
    arrays : dict
        Arrays of the file, see `simulate`.
    references : dict
        Open reference model of each reference type.
    """
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


def write_truth(output: Path, truth: dict, sources: Table | None) -> None:
    """Write the truth of an exposure, and its sources as ECSV.

    Parameters
    ----------
    output : pathlib.Path
        File of the truth to write (.asdf); the sources get its name with the suffix .ecsv.
    truth : dict
        Arrays of the truth, see `simulate`.
    sources : astropy.table.Table or None
        Sources on the image; `None` without a sky.
    """
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
    add("--sky", type=Path, help="catalog of simulate_sky (required without --gradient)")
    add("--truth", type=Path, help="truth to write (default: …_truth.asdf beside the output)")
    add("--cache", type=Path, help="CRDS cache to use without a server (default: CRDS as set in the environment)")
    add("--detector", default=default.detector, help="WFI01 to WFI18 (default: %(default)s)")
    add("--exposure-type", default=default.exposure_type, help="as in meta.exposure.type (default: %(default)s)")
    add(
        "--optical-element",
        default=default.optical_element,
        help="as in meta.instrument.optical_element (default: %(default)s)",
    )
    add(
        "--ra",
        type=float,
        default=default.ra,
        help="position of the detector's center on the sky, degrees (default: %(default)s)",
    )
    add(
        "--dec",
        type=float,
        default=default.dec,
        help="position of the detector's center on the sky, degrees (default: %(default)s)",
    )
    add("--roll", type=float, default=default.roll, help="position angle of V3 there, degrees (default: %(default)s)")
    add("--focal-plane", action="store_true", help="ra, dec and roll are those of the focal plane's center")
    add(
        "--dither",
        type=float,
        nargs=2,
        default=default.dither,
        help="offset of the telescope to the east and north, arcsec (default: %(default)s)",
    )
    add(
        "--pointing-error",
        type=float,
        nargs=2,
        default=default.pointing_error,
        help="error of the header's position to the east and north, arcsec (default: %(default)s)",
    )
    add("--ma-table", choices=MA_TABLES, default=default.ma_table, help="name of the read pattern (default: %(default)s)")
    add("--frame-time", type=float, default=default.frame_time, help="seconds per read (default: %(default)s)")
    add("--guide-window", type=int, nargs=2, help="first column and row of the guide window (default: on another detector)")
    add("--saturated", action="store_true", help="saturate every pixel from the first resultant on")
    add("--background", type=float, help="background, DN/s (default: depends on the exposure type)")
    add(
        "--cosmic-ray-flux",
        type=float,
        default=default.cosmic_ray_flux,
        help="particles per second and cm² (default: %(default)s)",
    )
    add("--snowballs", type=int, default=default.snowballs, help="number of snowballs (default: %(default)s)")
    add(
        "--defocus",
        type=float,
        default=default.defocus,
        help="standard deviation of a Gaussian that widens the images of the sources, pixels (default: %(default)s)",
    )
    add("--dead-channel", type=int, metavar="N", help="channel (from 1) that sees no light: its counts stay at its pedestal")
    add(
        "--reference-offset",
        type=float,
        default=default.reference_offset,
        metavar="DN",
        help="added to the counts of the reference pixels in all resultants (default: %(default)s)",
    )
    add(
        "--gradient",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="replace the sky by light that rises logarithmically from LOW electrons per second in the first column to HIGH "
        "in the last; the truth has the count rates after flat field and dark current",
    )
    add(
        "--jumps",
        action="store_true",
        help=f"replace random cosmic rays and snowballs by a grid of hits, one in every {electronics.JUMP_SPACING} rows and "
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
        help="add N DN to data and amp33, so that few counts are clipped at 0 "
        "where a reference read is subtracted; 300 suffices (default: %(default)s)",
    )
    add(
        "--resultantdq",
        action="store_true",
        help=f"flag 1 in 10,000 pixels of each resultant each DO_NOT_USE, SATURATED and JUMP_DET; flag runs of "
        f"{electronics.DROPOUT_LENGTH} pixels, whose counts are lost, DROPOUT and DO_NOT_USE",
    )
    add(
        "--model",
        choices=MODELS,
        default=default.model,
        help="data model of the file: fps and tvac are those of ground tests, with arrays that are quantities and a reference "
        "read that is added back already (default: %(default)s)",
    )
    add("--model-version", choices=OLDER_VERSIONS, help="an older version of the science model (default: the newest)")
    for name in ("program", "observation", "visit", "exposure"):
        add(f"--{name}", type=int, default=getattr(default, name), help=f"{name} number (default: %(default)s)")
    add("--start-time", default=default.start_time, help="UTC (default: %(default)s)")
    add("--seed", type=int, default=default.seed, help="equal seeds make equal exposures (default: %(default)s)")
    add("--threads", type=int, default=1, help="number of threads for the compiled loops (default: %(default)s)")
    args = parser.parse_args()
    if args.cache:
        os.environ["CRDS_PATH"] = str(args.cache.resolve())
        os.environ["CRDS_SERVER_URL"] = "https://crds-serverless-mode.stsci.edu"
    if not args.output.name.endswith("_uncal.asdf"):
        parser.error(f"{args.output}: the name of a raw exposure must end with _uncal.asdf")
    if args.model != "science" and args.exposure_type not in GROUND_TEST_TYPES:
        parser.error(f"--model {args.model} has no type {args.exposure_type}; it takes {', '.join(GROUND_TEST_TYPES)}")
    if args.model != "science" and args.model_version:
        parser.error(f"--model-version is for --model science only, not for {args.model}")
    if not args.sky and not args.gradient:
        parser.error("--sky or --gradient is needed as the source of the light")

    import roman_datamodels.datamodels as rdm
    from astropy.table import Table

    settings = Settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)})
    try:
        files = find_references(settings)
    except RampflowError as error:
        parser.error(str(error))
    references = {reftype: rdm.open(path) for reftype, path in files.items()}
    sky = Table.read(args.sky) if args.sky else None
    try:
        arrays, truth, sources = simulate(settings, sky, references, threads=args.threads)
    except RampflowError as error:
        parser.error(str(error))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_exposure(args.output, settings, arrays, references)
    write_truth(args.truth or args.output.with_name(args.output.name.replace("_uncal", "_truth")), truth, sources)
    return 0


if __name__ == "__main__":
    sys.exit(main())
