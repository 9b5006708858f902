"""Find and measure the sources of a calibrated image."""

import dataclasses
import sys

import numpy as np

from rampflow import dq as dqflags
from rampflow.catalog import columns, dust, photometry, products, psf
from rampflow.catalog.background import Background
from rampflow.catalog.daofind import measure_daofind
from rampflow.catalog.detection import find_segments
from rampflow.catalog.forced import read_segments
from rampflow.catalog.psf_photometry import GriddedPSF, fit_psf
from rampflow.catalog.smoothing import smooth
from rampflow.detector import PIXEL_SCALE
from rampflow.errors import RampflowError, counted
from rampflow.files.atomic import replacing
from rampflow.files.links import original
from rampflow.step.declaration import Parameter, Range, Reference, Step
from rampflow.step.job import Job
from rampflow.step.logs import step_logger
from rampflow.step.program import run_step
from rampflow.wcs.wcs_tree import Wcs, frame_fault


def _dust_map(hemisphere: str) -> Reference:
    return Reference(
        f"dustmap_{hemisphere}",
        f"E(B-V) of the {hemisphere}ern galactic hemisphere (FITS); without it, dust_ebv is NaN there",
        made_for=(),
        optional=True,
        crds_type="dustmap",
        selected_by={"roman.field": hemisphere},
    )


LARGEST_KERNEL = 50  #: pixels; sharpness and roundness of each source are measured on a stamp that is six times as wide

STEP = Step(
    name="source_catalog",
    summary="Detect and measure the sources of a calibrated image: a catalog and a segmentation map.",
    references=(
        Reference(
            "epsf",
            "effective PSF on a grid of positions; without it, no PSF is fitted",
            plausible={"psf": psf.STAMP_SUM, "meta.oversample": Range(1, 20, source="4 in the references of CRDS")},
            made_for=("detector", "optical_element"),
        ),
        Reference(
            "apcorr",
            "encircled energy of the PSF by radius; without it, no source is marked as extended",
            plausible={
                "data.{optical_element}": photometry.MOST_LIGHT_RADIUS,
                "data.{optical_element}.ee_fractions": Range(0, 1.02, source="fractions of the light of a PSF"),
                "data.{optical_element}.ee_radii": Range(0, 1000, "pixels", "a PSF is about ten pixels wide"),
            },
        ),
        _dust_map("north"),
        _dust_map("south"),
    ),
    parameters=(
        Parameter(
            "bkg_boxsize", int, 1000, "edge length of the boxes in which the background is measured", "pixels", minimum=10
        ),
        Parameter(
            "kernel_fwhm",
            float,
            2.0,
            "full width at half maximum of the Gaussian that smooths the detection image",
            "pixels",
            minimum=0.1,
            maximum=LARGEST_KERNEL,
        ),
        Parameter(
            "snr_threshold", float, 3.0, "detection threshold, as a multiple of the background noise per pixel", minimum=0.1
        ),
        Parameter("npixels", int, 25, "minimum number of connected pixels in a source", "pixels", minimum=1),
        Parameter("deblend", bool, False, "split sources that have more than one peak"),
        Parameter("fit_psf", bool, True, "fit the effective PSF to the sources"),
        Parameter(
            "forced_segmentation",
            str,
            "",
            "segmentation map (_segm.asdf) of the sources to measure; by default, they are detected",
        ),
    ),
    outputs=(
        ("catalog", "the source catalog (_cat.parquet)"),
        ("segmentation", "the segmentation map (_segm.asdf)"),
    ),
)

log = step_logger("source_catalog")

BLOCK = 256  #: rows whose background is computed at a time


def mask_pixels(image: np.ndarray, err: np.ndarray, dq: np.ndarray) -> np.ndarray:
    """Mask the pixels with DO_NOT_USE, and those without a finite value or without a finite, positive error.

    Parameters
    ----------
    image, err : numpy.ndarray
        Image and its error, shape (rows, columns).
    dq : numpy.ndarray
        Flags, uint32, same shape.

    Returns
    -------
    numpy.ndarray of bool
        True where a pixel is masked, same shape.
    """
    good = np.isfinite(image)
    good &= np.isfinite(err)
    good &= err > 0
    masked = np.logical_not(good, out=good)
    masked |= dqflags.has(dq, dqflags.DO_NOT_USE)
    return masked


def measure(
    field: photometry.Field,
    labels: np.ndarray,
    smoothed: np.ndarray,
    *,
    fwhm: float,
    energy: dict | None = None,
    epsf: GriddedPSF | None = None,
    threads: int = 1,
) -> dict:
    """Measure all columns of a catalog.

    Parameters
    ----------
    field : rampflow.catalog.photometry.Field
        Background-subtracted image.
    labels : numpy.ndarray
        Label of the source that each pixel belongs to, int32, shape (rows, columns); 0 for none.
    smoothed : numpy.ndarray
        Smoothed image, in any unit, in which positions and shapes are measured, same shape.
    fwhm : float
        Full width at half maximum of the Gaussian of sharpness and roundness, pixels.
    energy : dict, optional
        Encircled energy of the PSF by aperture radius (arcsec).
    epsf : rampflow.catalog.psf_photometry.GriddedPSF, optional
        Effective PSF; without it, the columns of PSF fits are left out.
    threads : int
        Number of threads of the PSF fits.

    Returns
    -------
    dict
        Array of each column by its name, one value per source.
    """
    found = photometry.measure_segments(field, labels, smoothed)
    # In single precision, as in the catalog, so that measurements at these positions can be repeated from the catalog.
    x, y = (found[name].astype(np.float32).astype(float) for name in ("x_centroid", "y_centroid"))
    found |= photometry.measure_apertures(field, x, y)
    found |= measure_daofind(field.image, x, y, fwhm)
    found |= photometry.find_neighbors(found["label"], x, y, field.pixel_scale)
    found["is_extended"] = photometry.flag_extended(found, energy)
    found["warning_flags"] = photometry.flag_sources(field.dq, x, y, found["masked"], found["unreliable"])
    if epsf is not None:
        log.info("Fitting the PSF to %s", counted(len(x), "source"))
        found |= fit_psf(epsf, field.image, field.err, field.mask, x, y, unit=field.unit, threads=threads)
        found["ra_psf"], found["dec_psf"] = photometry.sky_position(field.wcs, found["x_psf"], found["y_psf"])
    found["ra_centroid"], found["dec_centroid"] = photometry.sky_position(field.wcs, found["x_centroid"], found["y_centroid"])
    found["ra"] = found["ra_centroid"]
    found["dec"] = found["dec_centroid"]
    window = found["x_centroid_win"], found["y_centroid_win"]
    found["ra_centroid_win"], found["dec_centroid_win"] = photometry.sky_position(field.wcs, *window)
    return found | {name: np.full(len(x), value) for name, value in columns.UNMEASURED.items()}


def read_field(job: Job) -> photometry.Field:
    """Read the image of an exposure with its errors, units and WCS; its background is not subtracted.

    Parameters
    ----------
    job : Job
        The job, with its exposure.

    Returns
    -------
    rampflow.catalog.photometry.Field
        The image.

    Raises
    ------
    RampflowError
        The image has no WCS, although its pointing is known, or one that ends in another frame than ICRS.
    """
    image, err, dq = (job.exposure.array(name, 2).read() for name in ("data", "err", "dq"))
    image = image.astype(np.float32, copy=False)
    err = err.astype(np.float32, copy=False)
    calibration = job.exposure.get("meta.photometry", dict)
    conversion, area = (calibration.get(name) or 0 for name in ("conversion_megajanskys", "pixel_area"))
    tree = job.exposure.meta.get("wcs")
    if tree is not None:
        if fault := frame_fault(tree):
            raise RampflowError(f"{job.exposure.path}: {fault}")
        wcs = Wcs(tree)
        scale, north = photometry.scale_and_north(wcs, image.shape)
        mirrored = photometry.is_mirrored(wcs, image.shape)
    elif job.exposure.meta["cal_step"].get("assign_wcs") == "SKIPPED":  # without a valid pointing
        wcs = None
        north, mirrored = np.nan, False
        scale = float(np.degrees(np.sqrt(area)) * 3600) if area > 0 else PIXEL_SCALE
        log.info("The image has no WCS: sky positions are NaN, and the pixel scale is taken as %.4f arcsec", scale)
    else:
        raise RampflowError(f"{job.exposure.path}: meta.wcs is missing; run assign_wcs first")
    if not area > 0:  # missing, or a placeholder
        area = np.radians(scale / 3600) ** 2
    if not conversion > 0:
        log.warning("meta.photometry.conversion_megajanskys is missing or not positive: all fluxes are NaN; run photom first")
        conversion = np.nan
    return photometry.Field(
        image=image,
        err=err,
        dq=dq,
        mask=mask_pixels(image, err, dq),
        wcs=wcs,
        unit=conversion * area * 1e15,  # MJy to nJy
        pixel_side=float(np.degrees(np.sqrt(area)) * 3600),
        pixel_scale=scale,
        north=north,
        mirrored=mirrored,
    )


def read_energy(job: Job, element: str, scale: float) -> dict | None:
    """Read the encircled energy of the PSF in the apertures.

    Parameters
    ----------
    job : Job
        The job, with its ``apcorr`` reference.
    element : str
        Optical element of the exposure.
    scale : float
        Arcsec per pixel.

    Returns
    -------
    dict or None
        Fraction of the energy by aperture radius (arcsec); `None` if there is no reference, or it lacks the optical element.

    Raises
    ------
    RampflowError
        The values of the reference are not encircled energies.
    """
    if job.references["apcorr"] is None:
        return None
    with job.open_reference("apcorr") as reference:
        entry = reference.get("data", dict).get(element)
        if not entry or entry.get("ee_radii") is None or entry.get("ee_fractions") is None:
            log.warning("%s: data.%s is missing or empty: no source is marked as extended", reference.path, element)
            return None
        radii, fractions = (
            array.read() if hasattr(array, "read") else array for array in (entry["ee_radii"], entry["ee_fractions"])
        )
        try:
            energy = photometry.encircled_energy(radii, fractions, scale)
        except (TypeError, ValueError) as error:
            raise RampflowError(
                f"{reference.path}: data.{element} is not an encircled energy: {error}; give another apcorr reference"
            ) from None
        photometry.check_energy(reference.path, f"data.{element}", radii, fractions)
        return energy


def read_epsf(job: Job) -> GriddedPSF | None:
    """Read the effective PSF.

    Parameters
    ----------
    job : Job
        The job, with its ``epsf`` reference.

    Returns
    -------
    rampflow.catalog.psf_photometry.GriddedPSF or None
        The PSF; `None` if `fit_psf` is false, or if there is no reference.
    """
    if not job.parameters.fit_psf:
        return None
    if job.references["epsf"] is None:
        log.warning("No epsf reference is given: no PSF is fitted")
        return None
    with job.open_reference("epsf") as reference:
        # With allow_mismatch, the PSF may be that of another filter, with another width. Its width is then not checked.
        element = "" if job.allow_mismatch else job.exposure.get("meta.instrument.optical_element", str)
        return psf.read_psf(reference, job.exposure.meta.get("guide_star", {}), element)


def look_up_dust(job: Job, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Look up the reddening by dust at the positions of sources.

    Parameters
    ----------
    job : Job
        The job, with its ``dustmap_north`` and ``dustmap_south`` references.
    ra, dec : numpy.ndarray
        Positions of the sources, ICRS, degrees, of shape (sources,).

    Returns
    -------
    numpy.ndarray
        E(B-V), mag, of the same shape; NaN for sources without a position or a map, and where the map has no value.
    """
    maps, missing = {}, []
    for name, inside in dust.hemispheres(ra, dec).items():
        reftype = f"dustmap_{name}"
        if inside.any():
            if job.references[reftype] is None:
                missing.append(f"{reftype} ({counted(np.count_nonzero(inside), 'source')})")
            else:
                maps[name] = job.use_reference(reftype)
    if missing:
        log.warning("No dust map is given: dust_ebv is NaN without %s", " and ".join(missing))
    found = dust.reddening(ra, dec, maps)
    for name, inside in dust.hemispheres(ra, dec).items():
        if name in maps and (lost := np.count_nonzero(~np.isfinite(found[inside]))):
            log.warning("%s has no value at %s, whose dust_ebv is NaN", maps[name], counted(lost, "source"))
    return found


def subtract_background(field: photometry.Field, box: int, threads: int) -> Background:
    """Subtract the background from the pixels that are not masked, in place.

    Parameters
    ----------
    field : rampflow.catalog.photometry.Field
        Its `image` is changed.
    box : int
        Edge length of the boxes in which the background is measured, pixels.
    threads : int
        Number of threads.

    Returns
    -------
    rampflow.catalog.background.Background
        What was subtracted, and its noise.
    """
    background = Background(field.image, field.mask, box, threads=threads)
    for start in range(0, len(field.image), BLOCK):
        rows = slice(start, min(start + BLOCK, len(field.image)))
        field.image[rows] -= np.where(field.mask[rows], 0, background.level(rows.start, rows.stop))
    return background


@dataclasses.dataclass
class Sources:
    """Sources of an image. All attributes are `None` if the image was not searched.

    Attributes
    ----------
    columns : dict or None
        Array of each column of the catalog by its name; `None` without sources.
    labels : numpy.ndarray or None
        Label of the source that each pixel belongs to, shape (rows, columns); `None` without sources.
    detection : numpy.ndarray or None
        Smoothed image in which the sources were detected, nJy, same shape.
    scale : float or None
        Arcsec per pixel.
    energy : dict or None
        Encircled energy of the PSF by aperture radius (arcsec).
    """

    columns: dict | None = None
    labels: np.ndarray | None = None
    detection: np.ndarray | None = None
    scale: float | None = None
    energy: dict | None = None


def find_sources(job: Job, field: photometry.Field, element: str) -> Sources:
    """Detect the sources of an image, or take those of a given segmentation map, and measure them.

    Parameters
    ----------
    job : Job
        The job, with its parameters and references.
    field : rampflow.catalog.photometry.Field
        The image; its background is subtracted in place.
    element : str
        Optical element of the exposure.

    Returns
    -------
    Sources
        The sources and their measurements.

    Raises
    ------
    RampflowError
        A reference or the segmentation map can't be used.
    """
    p = job.parameters
    background = subtract_background(field, p.bkg_boxsize, job.threads)
    smoothed = smooth(field.image, field.mask, p.kernel_fwhm, threads=job.threads)
    if p.forced_segmentation:
        labels, detection = read_segments(original(p.forced_segmentation), field.mask, job.exposure.meta, field.pixel_scale)
    else:
        labels = find_segments(
            smoothed, background, field.mask, snr_threshold=p.snr_threshold, npixels=p.npixels, deblend=p.deblend
        )
        detection = smoothed
        if not np.isnan(field.unit):  # in nJy, as romancal writes it to the segmentation map
            detection *= np.float32(field.unit)
    sources = Sources(detection=detection, scale=field.pixel_scale, energy=read_energy(job, element, field.pixel_scale))
    if labels is None:
        return sources
    options = {"fwhm": p.kernel_fwhm, "energy": sources.energy, "threads": job.threads}
    sources.labels = labels
    epsf = read_epsf(job)
    if epsf is not None and sources.energy is not None:
        names = (job.reference_file(reftype).name for reftype in ("epsf", "apcorr"))
        psf.compare_energy(epsf, sources.energy, field.pixel_scale, *names)
    sources.columns = measure(field, labels, detection, epsf=epsf, **options)
    if p.forced_segmentation:
        remeasured = measure(field, labels, smoothed, **options)
        sources.columns = columns.merge_forced(sources.columns, remeasured)
    sources.columns["dust_ebv"] = look_up_dust(job, sources.columns["ra"], sources.columns["dec"])
    return sources


def run(job: Job, *, skipped: bool = False) -> None:
    """Process one exposure.

    Parameters
    ----------
    job : Job
        The job.
    skipped : bool
        Whether an earlier step skipped the exposure. Its catalog is then empty, and its segmentation map zero.

    Raises
    ------
    RampflowError
        The image has no WCS, a parameter is out of range, or a reference or the segmentation map can't be used.
    """
    exposure = job.exposure
    forced = job.parameters.forced_segmentation
    if forced:
        forced = str(original(forced))
    sources = Sources()
    field = None if skipped else read_field(job)
    if field is not None and field.mask.all():
        log.error("%s: all pixels are masked: the catalog is empty", exposure.path)
        skipped = True
    elif field is not None:
        sources = find_sources(job, field, exposure.get("meta.instrument.optical_element", str))
    status = "SKIPPED" if skipped else "COMPLETE"
    names = columns.column_names(fit_psf=job.parameters.fit_psf and job.references["epsf"] is not None, forced=bool(forced))
    found = sources.columns or dict.fromkeys(names, np.empty(0))
    labels = np.zeros(exposure.array("data", 2).shape, np.uint32) if sources.labels is None else sources.labels
    meta = products.catalog_metadata(exposure, job.references_used())
    table_meta = products.table_metadata(status, scale=sources.scale, energy=sources.energy)
    catalog_meta = meta | products.image_metadata(exposure.meta, forced)
    with replacing(job.outputs[0]) as catalog:
        products.write_catalog(catalog, catalog_meta, {name: found[name] for name in names}, table_meta)
        products.write_segmentation(job.outputs[1], meta, labels, sources.detection, exposure)
    log.info("Step %s: %s, %s", STEP.name, status, counted(len(found["label"]), "source"))


def run_skipped(job: Job) -> None:
    """Process a fully saturated exposure, which has no sources.

    Parameters
    ----------
    job : Job
        The job.
    """
    run(job, skipped=True)


if __name__ == "__main__":
    sys.exit(run_step(STEP, run, when_skipped=run_skipped))
