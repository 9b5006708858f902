"""Get the stars that the exposures of one association are aligned to, where they are at its epoch.

The part of the sky and the epoch, the mean of the exposures', come from the headers of the images. The result is a small
parquet file, with columns ra, dec (degrees, ICRS at the epoch), mag, ra_error, dec_error (mas), pmra, pmdec (mas/yr), parallax
(mas), NaN where unknown. With the motions, tweakreg moves the stars on to the epoch of each exposure::

    python astrometric_catalog.py STARS.parquet --images A_flat.asdf B_flat.asdf --astrometric_catalog GAIADR3_S3

A catalog that can't be had now (no network, a server in trouble) is no error: the file is written without stars and says why,
the exposures are delivered unaligned, and the next run of the workflow asks again.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from rampflow.astrometry import check_astrometric_catalog
from rampflow.astrometry.parameters import SEARCH_PARAMETERS, SOURCE
from rampflow.astrometry.region import survey_images
from rampflow.astrometry.sources import CatalogUnavailable, fetch
from rampflow.astrometry.table import Origin, write_catalog
from rampflow.files.links import original
from rampflow.step.declaration import add_parameters
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors

log = step_logger("astrometric_catalog")

#: Years within which few stars move by more than a milliarcsecond.
SHORT = 0.1


def get_catalog(images: list[Path], source: str, *, margin: float, timeout: float, attempt: int = 1) -> tuple[dict, Origin]:
    """Stars for the images of one association, and where they come from.

    Parameters
    ----------
    images : list of pathlib.Path
    source : str
        As `check_astrometric_catalog` returns it.
    margin : float
        Around each image, arcsec.
    timeout : float
        Seconds.
    attempt : int
        Recorded in the origin.

    Returns
    -------
    stars : dict of numpy.ndarray
        Columns of the file; empty when there are none.
    origin : rampflow.astrometry.table.Origin

    Raises
    ------
    RampflowError
        An image or the user's own catalog can't be read.
    """
    region, epochs = survey_images(images, margin)
    stars, status, reason, epoch = {}, "SUCCESS", "", None
    if not region.circles:
        status, reason = "FAILED", "no image is to be aligned"
        log.warning("None of the %d images is to be aligned: no stars are looked for", len(images))
    else:
        epoch, span = float(np.mean(epochs)), max(epochs) - min(epochs)
        log.info("%d images to align, at the epoch %.4f (from %.4f to %.4f)", len(epochs), epoch, min(epochs), max(epochs))
        try:
            stars, reason = fetch(source, region, epoch, timeout)
        except CatalogUnavailable as error:
            status, reason = "FAILED", str(error)
        else:
            if reason:
                log.warning("%s: no star to align to: %s", source, reason)
            elif span > SHORT and not np.isfinite(stars["pmra"]).any():
                log.warning(
                    "The exposures are up to %.1f years apart and the stars of %s have no proper motions: all are aligned to "
                    "the same positions",
                    span,
                    source,
                )
    rows = len(stars["ra"]) if stars else 0
    region_list = [[c.ra, c.dec, c.radius] for c in region.circles]
    return stars, Origin(source, epoch, region_list, rows, status, reason, attempt)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="astrometric_catalog.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("output", metavar="OUTPUT", type=Path, help="the stars to write (.parquet)")
    result.add_argument(
        "--images",
        metavar="IMAGE",
        type=Path,
        nargs="+",
        required=True,
        help="images of the association, with their WCS (.asdf)",
    )
    result.add_argument(
        "--attempt", metavar="N", type=int, default=1, help="number of this attempt, to be recorded (default: %(default)s)"
    )
    add_parameters(result, (SOURCE, *SEARCH_PARAMETERS))
    return result


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    arguments = parser().parse_args(argv)
    with reported_errors("astrometric_catalog") as outcome:
        start = time.monotonic()
        source = check_astrometric_catalog(str(original(arguments.astrometric_catalog)), Path.cwd())
        stars, origin = get_catalog(
            arguments.images, source, margin=arguments.margin, timeout=arguments.vo_timeout, attempt=arguments.attempt
        )
        write_catalog(arguments.output, stars, origin)
        if origin.unavailable:
            log.warning(
                "The astrometric catalog %s can't be had (%s): the exposures will be delivered unaligned. The next run asks "
                "again; or name a file or a local HATS catalog as astrometric_catalog",
                source,
                origin.reason,
            )
        log.info("%d stars from %s in %.1f s -> %s", origin.rows, source, time.monotonic() - start, arguments.output)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
