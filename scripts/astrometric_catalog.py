"""Retrieve the stars that the exposures of one association are aligned to, at their mean epoch.

The sky region and the epoch are those in the headers of the images. The output is a small parquet file with columns ra, dec
(degrees, ICRS at the epoch), mag, ra_error, dec_error (mas), pmra, pmdec (mas/yr), parallax (mas); NaN where unknown. tweakreg
moves the stars by these motions to the epoch of each exposure::

    python astrometric_catalog.py STARS.parquet --images A_flat.asdf B_flat.asdf --astrometric_catalog GAIADR3_S3

If the catalog can't be retrieved (no network, a failing server), the file is written without stars and with the reason, the
exposures are delivered unaligned, and the next run of the workflow tries again.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from rampflow.astrometry import check_astrometric_catalog
from rampflow.astrometry.hats import Description
from rampflow.astrometry.parameters import SEARCH_PARAMETERS, SOURCE
from rampflow.astrometry.region import survey_images
from rampflow.astrometry.star_catalogs import CatalogUnavailable, fetch_stars
from rampflow.astrometry.star_table import Origin, write_star_table
from rampflow.errors import counted
from rampflow.files.links import is_link, original
from rampflow.files.path_lists import read_list
from rampflow.step.declaration import add_parameters
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors

log = step_logger("astrometric_catalog")

#: Years within which few stars move by more than a milliarcsecond.
SHORT_SPAN = 0.1


def get_catalog(images: list[Path], source: str, *, margin: float, timeout: float, attempt: int = 1) -> tuple[dict, Origin]:
    """Retrieve the stars for the images of one association.

    Parameters
    ----------
    images : list of pathlib.Path
        Images of the association.
    source : str
        Catalog, see `rampflow.astrometry.check_astrometric_catalog`.
    margin : float
        Search margin around each image, arcsec.
    timeout : float
        Total timeout for retrieving the catalog, seconds.
    attempt : int
        Number of this attempt, which the origin records.

    Returns
    -------
    stars : dict of numpy.ndarray
        Columns of the file, (n,) each; empty if there are none.
    origin : rampflow.astrometry.star_table.Origin
        Origin of the stars.

    Raises
    ------
    RampflowError
        An image or the user's own catalog can't be read.
    """
    region, epochs = survey_images(images, margin)
    stars: dict[str, np.ndarray] = {}
    status, reason, epoch, description = "SUCCESS", "", None, Description(source)
    if not region.circles:
        status, reason = "FAILED", "no image can be aligned"
        log.warning("No image of %d can be aligned: no stars are retrieved", len(images))
    else:
        epoch, span = float(np.mean(epochs)), max(epochs) - min(epochs)
        log.info(
            "%s to align, at the epoch %.4f (from %.4f to %.4f)", counted(len(epochs), "image"), epoch, min(epochs), max(epochs)
        )
        try:
            stars, reason, description = fetch_stars(source, region, epoch, timeout)
        except CatalogUnavailable as error:
            status, reason = "FAILED", str(error)
        else:
            if reason:
                log.warning("%s: no stars to align to: %s", source, reason)
            elif span > SHORT_SPAN and not np.isfinite(stars["pmra"]).any():
                log.warning(
                    "The exposures are up to %.1f years apart and the stars of %s have no proper motions: all are aligned to "
                    "the same positions",
                    span,
                    source,
                )
    rows = len(stars["ra"]) if stars else 0
    region_list = [[c.ra, c.dec, c.radius] for c in region.circles]
    title, version, ref_epoch = description
    return stars, Origin(source, epoch, region_list, rows, status, reason, attempt, title, version, ref_epoch)


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line.

    Returns
    -------
    argparse.ArgumentParser
        The parser.
    """
    result = argparse.ArgumentParser(
        prog="astrometric_catalog.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("output", metavar="OUTPUT", type=Path, help="file of the stars to write (.parquet)")
    result.add_argument(
        "--images",
        metavar="IMAGE",
        nargs="+",
        required=True,
        help="images of the association, with their WCS (.asdf); @FILE reads their names from a file, one in each line",
    )
    result.add_argument(
        "--attempt", metavar="N", type=int, default=1, help="number of this attempt, which is recorded (default: %(default)s)"
    )
    add_parameters(result, (SOURCE, *SEARCH_PARAMETERS))
    return result


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    arguments = parser().parse_args(argv)
    with reported_errors("astrometric_catalog") as outcome:
        start = time.monotonic()
        given = arguments.astrometric_catalog
        source = check_astrometric_catalog(str(original(given)) if is_link(given) else given, Path.cwd())
        images = [Path(path) for path in read_list(arguments.images)]
        stars, origin = get_catalog(
            images, source, margin=arguments.margin, timeout=arguments.vo_timeout, attempt=arguments.attempt
        )
        write_star_table(arguments.output, stars, origin)
        if origin.unavailable:
            log.warning(
                "The astrometric catalog %s couldn't be retrieved (%s): the exposures will be delivered unaligned. The next "
                "run tries again; or set astrometric_catalog to a file or a local HATS catalog",
                source,
                origin.reason,
            )
        log.info("%s from %s in %.1f s -> %s", counted(origin.rows, "star"), source, time.monotonic() - start, arguments.output)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
