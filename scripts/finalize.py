"""finalize: write the final products of an exposure, the calibrated image (_cal) and its WCS product (_wcs)."""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from wfi import SOFTWARE_NAME, __version__
from wfi import dq as dqflags
from wfi.asdf_io import AsdfFile, create_asdf, replacing
from wfi.errors import RampflowError
from wfi.step import STATUSES, Exposure, recorded_log, reported_errors, stamp, step_logger

log = step_logger("finalize")


def finish_statuses(cal_step: dict, detector: int) -> None:
    """Say of each step that did not run why, in place: N/A for WFI18's transient on other detectors, else SKIPPED.

    Parameters
    ----------
    cal_step : dict
        ``meta.cal_step``.
    detector : int
        Number of the detector.
    """
    for status in STATUSES:
        if cal_step.get(status, "INCOMPLETE") == "INCOMPLETE":
            cal_step[status] = "N/A" if status == "wfi18_transient" and detector != 18 else "SKIPPED"


def image_statistics(image: np.ndarray, dq: np.ndarray, err: np.ndarray) -> dict:
    """Statistics of an image, ``meta.statistics``.

    Parameters
    ----------
    image, dq, err : numpy.ndarray
        Count rate (DN/s), flags, error (DN/s).

    Returns
    -------
    dict
        Over the good pixels (finite, not DO_NOT_USE, error > 0): ``image_median``, ``image_rms`` (1.4826 × the median absolute
        deviation), NaN without any; ``good_pixel_fraction``; ``zodiacal_light``, which is not modelled: −1.
    """
    good = np.isfinite(image) & ~dqflags.has(dq, dqflags.DO_NOT_USE) & (err > 0)
    values = image[good]
    if not values.size:
        log.warning("The image has no good pixel: its median and rms are NaN")
    median = np.median(values) if values.size else np.nan
    mad_to_sigma = 1.482602218505602  # 1 / Φ⁻¹(3/4)
    rms = mad_to_sigma * np.median(np.abs(values - median)) if values.size else np.nan
    return {
        "zodiacal_light": -1.0,
        "image_median": float(median),
        "image_rms": float(rms),
        "good_pixel_fraction": float(values.size / image.size),
    }


def write_image(image: Exposure, path: Path, name: str) -> None:
    """Write the calibrated image to `path`, with `name` in its metadata."""
    meta = image.meta
    finish_statuses(meta["cal_step"], image.detector)
    meta["statistics"] = image_statistics(*(image.array(plane, 2).read() for plane in ("data", "dq", "err")))
    meta["model_type"], meta["product_type"] = "ImageModel", "l2"
    stamp(meta, name)
    log.info("Statistics: %s", ", ".join(f"{key} {value:.6g}" for key, value in meta["statistics"].items()))
    meta["cal_logs"] = [*meta.get("cal_logs", []), *recorded_log()]
    with create_asdf(path, image.tree, image.file.standard):
        pass


def write_wcs(cal: Path, path: Path, name: str) -> None:
    """Check the calibrated image `cal` against its schema, and write its WCS product to `path`.

    Raises
    ------
    RampflowError
        The image is not valid.
    """
    import asdf
    from roman_datamodels import datamodels

    # The file still has the name that it is written under; its metadata has the final one.
    warnings.simplefilter("ignore", datamodels.FilenameMismatchWarning)
    try:
        with datamodels.open(cal) as image:
            image.validate()
            product = datamodels.WfiWcsModel.from_model_with_wcs(image)
            product.meta.model_type = "WfiWcsModel"
            product.meta.calibration_software_name, product.meta.calibration_software_version = SOFTWARE_NAME, __version__
            # The model takes its file's name for its own: it is written under the final one, in a folder of its own.
            with tempfile.TemporaryDirectory(prefix=".rampflow-", dir=path.parent) as folder:
                product.to_asdf(Path(folder) / name)
                (Path(folder) / name).replace(path)
    except asdf.ValidationError as error:
        lines = str(error).strip().splitlines()
        raise RampflowError(f"{cal}: is not a valid ImageModel ({lines[0]}; {lines[-1].strip()}); report it") from error


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="finalize.py", description=__doc__)
    parser.add_argument("input", metavar="INPUT", type=Path, help="the exposure after the last step (.asdf)")
    parser.add_argument("cal", metavar="CAL", type=Path, help="the calibrated image to write (_cal.asdf)")
    parser.add_argument("wcs", metavar="WCS", type=Path, help="the WCS product to write (_wcs.asdf)")
    arguments = parser.parse_args(argv)
    with reported_errors("finalize") as outcome, AsdfFile(arguments.input) as file:
        image = Exposure(file)
        image.expect_model("wfi_image", "finalize")
        with replacing(arguments.cal) as cal, replacing(arguments.wcs) as wcs:
            write_image(image, cal, arguments.cal.name)
            write_wcs(cal, wcs, arguments.wcs.name)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
