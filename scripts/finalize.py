"""Write the final products of an exposure.

They are the calibrated image (_cal) with a preview, its WCS product (_wcs) and its numbers (_qa); with a source catalog also
this (_cat) and its segmentation map (_segm). What tweakreg found for the association is applied to image, WCS and catalog.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rampflow import dq as dqflags
from rampflow.alignment.product import apply_solution, read_solution, update_catalog
from rampflow.chain import STEPS
from rampflow.detector import BORDER
from rampflow.errors import RampflowError, one_line
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import CompressedArray, create_asdf
from rampflow.files.atomic import replacing
from rampflow.files.checksums import log_checksum
from rampflow.files.data_models import data_model, data_model_of
from rampflow.files.level1 import newer_metadata, update_processed
from rampflow.files.links import is_link, original
from rampflow.files.models import check_product, metadata_schema, properties
from rampflow.files.tags import DATA_MODELS, ROMAN_PREFIX
from rampflow.files.yaml_tree import tagged
from rampflow.pictures.image import PREVIEW_SIZE, THUMBNAIL_SIZE, bin_down, binning, corners_of, draw, save_picture, stretch
from rampflow.quality.exposure_numbers import numbers_of_exposure
from rampflow.quality.measures import count_flags, measure_sky, sky_cells
from rampflow.step.consistency import other_exposure
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.step.exposure import Exposure
from rampflow.step.logs import recorded_log, step_logger
from rampflow.step.program import reported_errors
from rampflow.step.provenance import LOG_KEY, stamp
from rampflow.wcs.wcs_tree import with_border

if TYPE_CHECKING:
    import pyarrow

log = step_logger("finalize")

ROWS_AT_ONCE = 32  #: rows read at a time, few enough for the second cache
SKY_ROWS = 500  #: rows that show the sky over the detector, about so many

#: Where a source catalog has the metadata that are compared with the image's.
IDENTITY_IN_CATALOG = {"filename": "filename", "detector": "instrument.detector"}


def finish_statuses(cal_step: dict, detector: int) -> None:
    """Set the status of each step that did not run, in place: N/A where it is for other detectors, else SKIPPED.

    Parameters
    ----------
    cal_step : dict
        ``meta.cal_step``.
    detector : int
        Number of the detector.
    """
    for step in STEPS.values():
        if cal_step.get(step.status, "INCOMPLETE") == "INCOMPLETE":
            cal_step[step.status] = "N/A" if step.detectors and detector not in step.detectors else "SKIPPED"


def median_in_place(values: np.ndarray) -> float:
    """Compute a median in a quarter of the time of `numpy.median`, which saves 0.1 s for a full frame.

    Parameters
    ----------
    values : numpy.ndarray
        Finite values, 1-D; their order changes.

    Returns
    -------
    float
        The median; NaN where there is no value.
    """
    if not values.size:
        return np.nan
    middle = values.size // 2
    values.partition(middle)
    return values[middle] if values.size % 2 else (values[:middle].max() + values[middle]) / 2


def good_pixels(image: np.ndarray, dq: np.ndarray, err: np.ndarray) -> np.ndarray:
    """Find the good pixels.

    Parameters
    ----------
    image, dq, err : numpy.ndarray
        Count rate (DN/s), flags, error (DN/s), of shape (row, column).

    Returns
    -------
    numpy.ndarray
        Whether the count rate is finite, not DO_NOT_USE, and has a finite positive error; of their shape.
    """
    return np.isfinite(image) & ~dqflags.has(dq, dqflags.DO_NOT_USE) & (err > 0) & np.isfinite(err)


def image_statistics(values: np.ndarray, pixels: int) -> dict:
    """Compute the statistics of an image, ``meta.statistics``.

    Parameters
    ----------
    values : numpy.ndarray
        Its good pixels, see `good_pixels`. They are overwritten.
    pixels : int
        Number of all its pixels.

    Returns
    -------
    dict
        ``image_median`` and ``image_rms`` (1.4826 × the median absolute deviation) of the good pixels, NaN without any;
        ``good_pixel_fraction``; ``zodiacal_light``, which is not modeled: −1.
    """
    if not values.size:
        log.warning("The image has no good pixel: its median and rms are NaN")
    median = median_in_place(values)
    mad_to_sigma = 1.482602218505602  # 1 / Φ⁻¹(3/4)
    values -= median
    rms = mad_to_sigma * median_in_place(np.abs(values, out=values))
    return {
        "zodiacal_light": -1.0,
        "image_median": float(median),
        "image_rms": float(rms),
        "good_pixel_fraction": float(values.size / pixels),
    }


def measure_image(image: Exposure) -> tuple[dict, dict, np.ndarray]:
    """Read an image, and measure it.

    Parameters
    ----------
    image : Exposure
        The image.

    Returns
    -------
    statistics : dict
        As `image_statistics` returns them.
    numbers : dict
        Numbers of `rampflow.quality.numbers`: pixels by flag, and how uniform the sky is.
    binned : numpy.ndarray
        Mean of the good pixels of each block, for the preview, float32.
    """
    planes = [image.array(name, 2) for name in ("data", "dq", "err")]
    rows, columns = planes[0].shape
    every, factor = max(rows // SKY_ROWS, 1), binning((rows, columns), PREVIEW_SIZE)
    at_once = math.lcm(every, factor) * max(ROWS_AT_ONCE // math.lcm(every, factor), 1)
    flags = dict.fromkeys((f"dq_{name.lower()}" for name in dqflags.pixel_flags()), 0)
    # By rows, so that fresh memory is needed for the good pixels only: the system clears what it gives.
    values, count = np.empty(rows * columns, planes[0].dtype.newbyteorder("=")), 0
    sample, binned = [], []
    for start in range(0, rows, at_once):
        data, dq, err = (plane.read_rows(start, start + at_once) for plane in planes)
        is_good = good_pixels(data, dq, err)
        good = data[is_good]
        values[count : count + good.size] = good
        count += good.size
        count_flags(dq, flags)
        sample.append(np.where(is_good[::every], data[::every], np.nan))
        binned.append(bin_down(data, is_good, factor))
    statistics = image_statistics(values[:count], values.size)
    cells = sky_cells(np.concatenate(sample), every)
    numbers = flags | {"saturated_fraction": flags["dq_saturated"] / values.size}
    numbers |= measure_sky(cells, statistics["image_median"], statistics["image_rms"])
    return statistics, numbers, np.concatenate(binned)


def read_catalog(path: Path) -> pyarrow.Table:
    """Read a source catalog.

    Parameters
    ----------
    path : pathlib.Path
        The catalog.

    Returns
    -------
    pyarrow.Table
        The catalog with the metadata of its schema.

    Raises
    ------
    RampflowError
        It can't be read, or has no metadata.
    """
    from rampflow.files.parquet import pyarrow, read_table

    try:
        table = read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise RampflowError(f"{path}: this source catalog can't be read ({one_line(error)}); get it again") from None
    if not table.schema.metadata:
        raise RampflowError(
            f"{path}: this source catalog has no metadata (roman.meta); get the file of source_catalog or romancal"
        )
    return table


def record_catalog(meta: dict, table: pyarrow.Table, name: str) -> None:
    """Record an image's source catalog in its ``meta``, in place.

    Parameters
    ----------
    meta : dict
        Metadata of the image.
    table : pyarrow.Table
        The catalog; its metadata has the status of its step and the references that it used.
    name : str
        File name of the final catalog.
    """
    recorded = table.schema.metadata
    # The product of another pipeline lacks entries that the calibrated image beside it has.
    if status := recorded.get(b"source_catalog.status"):
        meta["cal_step"]["source_catalog"] = status.decode()
    meta["source_catalog"] = {"tweakreg_catalog_name": name}
    prefix = b"roman.meta.ref_file."
    named = {key.removeprefix(prefix).decode(): name.decode() for key, name in recorded.items() if key.startswith(prefix)}
    for reftype in ("epsf", "apcorr"):
        meta["ref_file"][reftype] = named.get(reftype, meta["ref_file"].get(reftype, NOT_APPLICABLE))
    # Those that not every catalog has: dust maps, and references with parameters. The context is named by the image already.
    meta["ref_file"] |= {t: name for t, name in named.items() if t not in meta["ref_file"] and not t.startswith("crds.")}
    meta["cal_logs"] = [*meta.get("cal_logs", []), *json.loads(recorded.get(LOG_KEY, b"[]"))]


def final_catalog(table: pyarrow.Table, name: str, image: dict) -> pyarrow.Table:
    """Give a source catalog the metadata of the final one.

    Parameters
    ----------
    table : pyarrow.Table
        The catalog as source_catalog wrote it.
    name : str
        File name of the final catalog.
    image : dict
        Metadata of the final image, its ``meta``.

    Returns
    -------
    pyarrow.Table
        The catalog with its own name, date and software; name and date of the image that it belongs to, and that image's
        footprint.
    """
    from rampflow.catalog.products import flattened

    own: dict[str, Any] = {}
    stamp(own, name)
    own |= {"image": {"filename": image["filename"], "file_date": image["file_date"]}}
    if (region := image.get("wcsinfo", {}).get("s_region")) is not None:
        own["wcsinfo"] = {"s_region": region}
    texts = flattened({"roman": {"meta": own}})
    metadata = {key: value for key, value in table.schema.metadata.items() if key != LOG_KEY}
    return table.replace_schema_metadata(metadata | {key.encode(): text.encode() for key, text in texts.items()})


def convert_data_model(exposure: Exposure, tag: str, *, with_second_flags: bool = False) -> None:
    """Give a calibrated image or a segmentation map another version of its data model, in place.

    Parameters
    ----------
    exposure : Exposure
        The image or map. One of another major version stays as it is.
    tag : str
        The tag to write.
    with_second_flags : bool
        Whether images of this version have ``dq2``.
    """
    old, new = exposure.tag, tag.removeprefix(ROMAN_PREFIX)
    if old == new or old.partition(".")[0] != new.partition(".")[0]:
        return
    update_processed(exposure, tag)
    roman = dict(exposure.roman)
    if not with_second_flags and "dq2" in roman:
        if exposure.array("dq2", 2).read().any():
            log.warning("%s: has flags in dq2, which %s doesn't have: they are lost", exposure.path.name, new)
        del roman["dq2"]
    elif with_second_flags and "dq2" not in roman:
        roman["dq2"] = np.zeros(exposure.array("data", 2).shape, np.uint32)
    exposure.roman = exposure.tree["roman"] = tagged(roman, tag)
    log.info("Data model: %s, written as %s", old, new)


def finish_segmentation(given: Path, path: Path, image: Exposure, stem: str, name: str, final: dict) -> None:
    """Write the final segmentation map: that of source_catalog with the metadata of the aligned image.

    Parameters
    ----------
    given, path : pathlib.Path
        The map as source_catalog wrote it, and the file to write.
    image : Exposure
        The image after the last step.
    stem : str
        Name of the exposure.
    name : str
        File name of the final map.
    final : dict
        Metadata of the final image, its ``meta``, whose footprint the map gets.
    """
    with AsdfFile(given) as file:
        exposure = Exposure(file)
        exposure.expect_model("segmentation_map", "finalize")
        check_same_exposure(given, _identity(exposure.meta), image, stem)
        convert_data_model(exposure, data_model_of(image.tag).segmentation_map)
        meta = exposure.meta
        stamp(meta, name)
        if (region := final.get("wcsinfo", {}).get("s_region")) is not None:
            meta["wcsinfo"]["s_region"] = region
        exposure.roman["data"] = CompressedArray(exposure.array("data", 2).read())
        with create_asdf(path, file.tree, file.standard):
            pass


def write_image(image: Exposure, path: Path, name: str) -> tuple[dict, np.ndarray]:
    """Measure the calibrated image, and write it.

    Parameters
    ----------
    image : Exposure
        The image after the last step.
    path : pathlib.Path
        The file to write.
    name : str
        Its final name, for the metadata.

    Returns
    -------
    numbers : dict
        Its numbers, see `measure_image`.
    binned : numpy.ndarray
        The image for its preview.
    """
    meta = image.meta
    finish_statuses(meta["cal_step"], image.detector)
    meta["statistics"], numbers, binned = measure_image(image)
    meta["model_type"], meta["product_type"] = "ImageModel", "l2"
    stamp(meta, name)
    log.info("Statistics: %s", ", ".join(f"{key} {value:.6g}" for key, value in meta["statistics"].items()))
    meta["cal_logs"] = [*meta.get("cal_logs", []), *recorded_log()]
    with create_asdf(path, image.tree, image.file.standard):
        pass
    return numbers, binned


def write_wcs(image: Exposure, path: Path, name: str) -> None:
    """Write the WCS product of an image.

    It has the image's WCS, and the same for a raw image, whose pixels are counted from the corner of the reference pixels.

    Parameters
    ----------
    image : Exposure
        The calibrated image.
    path : pathlib.Path
        The file to write.
    name : str
        Its final name, for the metadata.
    """
    model = data_model_of(image.tag)
    tag, given = model.wcs, image.meta
    if image.tag.partition(".")[0] != model.image.removeprefix(ROMAN_PREFIX).partition(".")[0]:  # it keeps its older version
        given = newer_metadata(given, image.tag, tag.removeprefix(ROMAN_PREFIX))
    names, _ = properties(metadata_schema(tag))
    meta = {key: value for key, value in given.items() if key in names}
    meta["model_type"] = "WfiWcsModel"
    stamp(meta, name)
    product = tagged({"meta": meta}, tag)
    if image.meta.get("wcs") is not None:
        product["wcs_l2"], product["wcs_l1"] = image.meta["wcs"], with_border(image.meta["wcs"], BORDER)
    with create_asdf(path, {**image.tree, "roman": product}, image.file.standard):
        pass


def check_same_exposure(path: Path, given: dict[str, str], image: Exposure, stem: str) -> None:
    """Refuse a file that belongs to another exposure than an image, by its metadata.

    Parameters
    ----------
    path : pathlib.Path
        The file, for the message.
    given : dict of str
        Its ``filename`` and ``detector``; empty text where it has none. Only names of the archive are compared.
    image : Exposure
        The image after the last step.
    stem : str
        Name of the exposure whose products are written.

    Raises
    ------
    RampflowError
        It belongs to another exposure.
    """
    if other := other_exposure(given, stem, _identity(image.meta)):
        raise RampflowError(f"{path}: is {other}, whose products are written; give the files of one exposure")


def _identity(meta: dict) -> dict[str, str]:
    return {"filename": str(meta.get("filename", "")), "detector": str(meta.get("instrument", {}).get("detector", ""))}


def check_alignment(stem: str, solution: dict) -> None:
    """Refuse to write the products of an exposure that isn't aligned.

    Parameters
    ----------
    stem : str
        Name of the exposure.
    solution : dict
        Its solution, of `rampflow.alignment.product.read_solution`; empty where no alignment was tried.

    Raises
    ------
    RampflowError
        The exposure is not aligned; the message has the alignment's reason.
    """
    status, reason = solution.get("status", "SKIPPED"), solution.get("reason") or "no alignment was tried"
    if status != "COMPLETE":
        raise RampflowError(
            f"{stem}: require_alignment is true and the alignment is {status} ({reason}): no products are written; to have "
            "them unaligned, set require_alignment: false"
        )


def log_earlier_products(arguments: argparse.Namespace, image: Exposure) -> None:
    """Log which products are written anew, if the image is one.

    Parameters
    ----------
    arguments : argparse.Namespace
        Values of the command line.
    image : Exposure
        The image after the last step.
    """
    name = str(image.meta.get("filename", ""))
    if not name.endswith("_cal.asdf"):
        return
    given = [name, *(original(pair[0]).name for pair in (arguments.catalog, arguments.segmentation) if pair)]
    date = image.meta.get("file_date")
    log.info(
        "Written anew from %s of %s %s, %s; its tweakreg was %s",
        ", ".join(given),
        image.meta.get("calibration_software_name", "unknown software"),
        image.meta.get("calibration_software_version", ""),
        date.get("value") if isinstance(date, dict) else date,
        image.meta["cal_step"].get("tweakreg", "INCOMPLETE"),
    )


def write_products(arguments: argparse.Namespace, image: Exposure) -> None:
    """Write the products of an exposure: each appears whole, and all of them or none.

    Parameters
    ----------
    arguments : argparse.Namespace
        Values of the command line.
    image : Exposure
        The image after the last step.
    """
    stem = arguments.cal.name.removesuffix("_cal.asdf")
    check_same_exposure(original(arguments.input), _identity(image.meta), image, stem)
    log_earlier_products(arguments, image)
    solution = read_solution(arguments.solutions, stem) if arguments.solutions else {}
    if arguments.require_alignment:
        check_alignment(stem, solution)
    if arguments.data_model:
        model = data_model(arguments.data_model)
        convert_data_model(image, model.image, with_second_flags=model.has_second_flags)
    with contextlib.ExitStack() as files:
        cal, wcs = (files.enter_context(replacing(path)) for path in (arguments.cal, arguments.wcs))
        table = None
        if arguments.catalog:
            from rampflow.files.parquet import write_table

            given, final = original(arguments.catalog[0]), arguments.catalog[1]
            table = read_catalog(given)
            recorded = {name.decode(): value.decode() for name, value in table.schema.metadata.items() if len(value) < 100}
            identity = {name: recorded.get(f"roman.meta.{place}", "") for name, place in IDENTITY_IN_CATALOG.items()}
            check_same_exposure(given, identity, image, stem)
            record_catalog(image.meta, table, final.name)
        if solution:
            apply_solution(image.meta, solution)
        measured, binned = write_image(image, cal, arguments.cal.name)
        check_product(cal, "ImageModel")
        final_meta = {name: image.meta[name] for name in ("filename", "file_date", "wcsinfo") if name in image.meta}
        if arguments.preview:
            picture = draw(stretch(binned), corners_of(image.meta.get("wcsinfo", {}).get("s_region")))
            for path, size in zip(arguments.preview, (PREVIEW_SIZE, THUMBNAIL_SIZE), strict=True):
                save_picture(picture, size, files.enter_context(replacing(path)))
        if arguments.catalog:
            table = final_catalog(update_catalog(table, solution), final.name, final_meta)
            write_table(table, files.enter_context(replacing(final)))
        if arguments.segmentation:
            given, final = original(arguments.segmentation[0]), arguments.segmentation[1]
            segmentation = files.enter_context(replacing(final))
            finish_segmentation(given, segmentation, image, stem, final.name, final_meta)
            check_product(segmentation, "SegmentationMapModel")
        write_wcs(image, wcs, arguments.wcs.name)
        check_product(wcs, "WfiWcsModel")
        if arguments.qa:
            numbers = numbers_of_exposure(
                stem,
                image.meta,
                measured,
                catalog=table,
                solution=solution,
                benchmarks=arguments.benchmarks,
            )
            files.enter_context(replacing(arguments.qa)).write_text(json.dumps(numbers, indent=1) + "\n")
    log_checksums(arguments)


def log_checksums(arguments: argparse.Namespace) -> None:
    """Log the checksums of the products, and of those inputs that are files of the user.

    Parameters
    ----------
    arguments : argparse.Namespace
        Values of the command line.
    """
    pairs = [pair for pair in (arguments.catalog, arguments.segmentation) if pair]
    given = [path for path in (arguments.input, *(before for before, _ in pairs)) if is_link(path)]
    products = [arguments.cal, arguments.wcs, *(after for _, after in pairs), *(arguments.preview or ()), arguments.qa]
    for path in [*given, *filter(None, products)]:
        log_checksum(log, path)


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(
        prog="finalize.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="INPUT", type=Path, help="the exposure after the last step (.asdf)")
    parser.add_argument("cal", metavar="CAL", type=Path, help="the calibrated image to write (_cal.asdf)")
    parser.add_argument("wcs", metavar="WCS", type=Path, help="the WCS product to write (_wcs.asdf)")
    parser.add_argument(
        "--preview",
        metavar=("PREVIEW", "THUMBNAIL"),
        type=Path,
        nargs=2,
        help=f"pictures of the image to write, {PREVIEW_SIZE} and {THUMBNAIL_SIZE} pixels a side at most (.png)",
    )
    parser.add_argument("--qa", metavar="FILE", type=Path, help="the numbers of the exposure to write (_qa.json)")
    parser.add_argument(
        "--benchmarks",
        metavar="FOLDER",
        type=Path,
        help="folder with the benchmark of each step, STEP.tsv, for its time and memory",
    )
    parser.add_argument("--solutions", metavar="FILE", type=Path, help="the association's alignment (_tweakreg.asdf)")
    parser.add_argument("--require_alignment", action="store_true", help="refuse an exposure that isn't aligned")
    parser.add_argument(
        "--data_model", choices=tuple(DATA_MODELS), help="version of the data model to write (default: that of INPUT)"
    )
    for product, suffix in (("catalog", "_cat.parquet"), ("segmentation", "_segm.asdf")):
        parser.add_argument(
            f"--{product}",
            metavar=("IN", "OUT"),
            type=Path,
            nargs=2,
            help=f"the {product} as source_catalog wrote it, and the product to write ({suffix})",
        )
    arguments = parser.parse_args(argv)
    with reported_errors("finalize", arguments.input) as outcome, AsdfFile(arguments.input) as file:
        image = Exposure(file)
        image.expect_model("wfi_image", "finalize")
        write_products(arguments, image)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
