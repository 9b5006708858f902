"""Prepare processed exposures for other tools: FITS files, regions, DS9, a notebook with Imviz, a picture of the focal plane.

An exposure is given by its name, or by its image (_cal.asdf)::

    python scripts/view.py r0000101001001001001_0001_wfi01_f158 --results results --fits --regions
    python scripts/view.py results/*_wfi01_f158_cal.asdf --ds9

All that follows ``--`` are options of ds9.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rampflow import SOFTWARE_NAME, __version__, dq
from rampflow.command_line import script_parser
from rampflow.detector import PIXEL_SCALE
from rampflow.errors import RampflowError, counted
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.step.exposure import Exposure
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors
from rampflow.views.ds9 import open_ds9
from rampflow.views.exposure_files import find_detectors, find_image, name_of_image, read_image_sources

if TYPE_CHECKING:
    from rampflow.views.sip import SipHeader

FLAGS = ("SATURATED", "JUMP_DET", "DO_NOT_USE")
MAX_ERROR = 0.05  #: pixels, 5.5 mas
MAX_REGIONS = 2000  #: of a flag, so that ds9 stays quick
MOSAIC_SIZE = 1600  #: pixels of the longer side of the picture of the focal plane
DETECTORS = 18

log = step_logger("view")


def approximate_wcs(exposure: Exposure, max_error: float) -> SipHeader | None:
    """Approximate the WCS of an image by FITS keywords.

    Parameters
    ----------
    exposure : Exposure
        The image.
    max_error : float
        Largest error, pixels.

    Returns
    -------
    rampflow.views.sip.SipHeader or None
        The keywords; `None` if the image has no WCS.

    Raises
    ------
    RampflowError
        The error is larger.
    """
    tree = exposure.meta.get("wcs")
    if tree is None:
        log.warning("%s: has no WCS (its pointing is unknown), nor has the FITS file", exposure.path.name)
        return None
    from rampflow.views.sip import fit_sip
    from rampflow.wcs.conversion import wcs_of_tree

    found = fit_sip(wcs_of_tree(tree), exposure.array("data", 2).plane_shape)
    if found.largest > max_error:
        raise RampflowError(
            f"{exposure.path}: FITS keywords (TAN with SIP polynomials) differ from its WCS by up to {found.error:.3g} mas "
            f"({found.pixel_error:.2g} pixels; inverse {found.inverse_error:.2g} pixels), more than --max_error {max_error:g} "
            "pixels; give a larger one to write the file nevertheless"
        )
    return found


def write_fits(exposure: Exposure, path: Path, max_error: float) -> None:
    """Write a calibrated image as a FITS file.

    Parameters
    ----------
    exposure : Exposure
        The image.
    path : pathlib.Path
        The file.
    max_error : float
        Largest error of its WCS, pixels.

    Raises
    ------
    RampflowError
        The error of its WCS is larger, or the file can't be written.
    """
    from rampflow.views import fits_files

    approximation = approximate_wcs(exposure, max_error)
    fits_files.write_fits(path, exposure, approximation)
    if approximation is None:
        print(f"{path}: without a WCS")
    else:
        print(
            f"{path}: TAN-SIP of degree {approximation.degree}, largest error {approximation.error:.2g} mas "
            f"({approximation.pixel_error:.1g} pixels; inverse {approximation.inverse_error:.1g} pixels)"
        )


def write_regions(exposure: Exposure, folder: Path, flags: list[str], limit: int, *, sky: bool) -> list[Path]:
    """Write the sources and the flagged pixels of an image as regions.

    Parameters
    ----------
    exposure : Exposure
        The image.
    folder : pathlib.Path
        Where the files go.
    flags : list of str
        Names of the flags.
    limit : int
        Largest number of regions of a flag.
    sky : bool
        Positions on the sky instead of pixels.

    Returns
    -------
    list of pathlib.Path
        The files.

    Raises
    ------
    RampflowError
        The package regions is not installed, or the catalog can't be read.
    """
    from rampflow.views import region_files
    from rampflow.wcs.footprint import pixel_solid_angle
    from rampflow.wcs.wcs_tree import Wcs

    data, tree = exposure.array("dq", 2), exposure.meta.get("wcs")
    if sky and tree is None:
        log.warning("%s: has no WCS: its regions are in pixels", exposure.path.name)
    wcs = Wcs(tree) if sky and tree is not None else None
    stem, written = name_of_image(exposure.path), []
    sources = read_image_sources(exposure.path)
    if sources is not None:
        # The unit of shapes, as in source_catalog.
        area = exposure.meta.get("photometry", {}).get("pixel_area") or 0
        if area <= 0 and tree is not None:
            area = pixel_solid_angle(Wcs(tree), data.plane_shape)
        side = float(np.degrees(np.sqrt(area)) * 3600) if area > 0 else PIXEL_SCALE
        made = region_files.source_regions(sources, side, wcs)
        written.append(folder / f"{stem}_sources.reg")
        region_files.write_regions(written[-1], made)
        print(f"{written[-1]}: {counted(len(made), 'source')}")
    made, counts = region_files.flag_regions(data.read(), flags, limit, wcs)
    written.append(folder / f"{stem}_flags.reg")
    region_files.write_regions(written[-1], made)
    for name, count in counts.items():
        cut = f", the largest of {count.found} (--max_regions)" if count.written < count.found else ""
        print(f"{written[-1]}: {name}: {counted(count.pixels, 'pixel')} in {counted(count.written, 'region')}{cut}")
    return written


def write_notebook(images: list[Path], folder: Path) -> None:
    """Write a notebook that opens images and their sources in Imviz.

    Parameters
    ----------
    images : list of pathlib.Path
        The images.
    folder : pathlib.Path
        Where the notebook and the tables of the sources go.

    Raises
    ------
    RampflowError
        The package nbformat is not installed, or a catalog can't be read.
    """
    from rampflow.views import notebooks

    catalogs = {}
    for image in images:
        sources = read_image_sources(image)
        if sources is not None:
            catalogs[name_of_image(image)] = folder / f"{name_of_image(image)}_sources.ecsv"
            with AsdfFile(image) as file:
                sky = Exposure(file).meta.get("wcs") is not None
            notebooks.write_sources(catalogs[name_of_image(image)], sources, sky=sky)
    path = folder / f"{name_of_image(images[0])}_imviz.ipynb"
    notebooks.write_notebook(path, notebooks.make_notebook({name_of_image(image): image for image in images}, catalogs))
    print(f"{path}: open it with jupyter lab {shlex.quote(str(path))}")


def write_mosaic(image: Path, folder: Path, size: int) -> None:
    """Draw all detectors of an exposure.

    Parameters
    ----------
    image : pathlib.Path
        Image of one of them.
    folder : pathlib.Path
        Where the picture goes.
    size : int
        Pixels of its longer side.

    Raises
    ------
    RampflowError
        The name of the image has no detector, or no image has a footprint.
    """
    from PIL.PngImagePlugin import PngInfo

    from rampflow.pictures import focal_plane
    from rampflow.pictures.image import corners_of

    name, images = find_detectors(image)
    tiles = []
    for path in images:
        with AsdfFile(path) as file:
            exposure = Exposure(file)
            region = exposure.meta.get("wcsinfo", {}).get("s_region")
            corners = corners_of(region if isinstance(region, str) else None)
            if exposure.meta.get("wcs") is None or corners is None:
                log.warning("%s: has no WCS: left out", path.name)
                continue
            data, flags = (exposure.array(array, 2).read() for array in ("data", "dq"))
            detector = str(exposure.get("meta.instrument.detector", str))
        good = np.isfinite(data) & ~dq.has(flags, dq.DO_NOT_USE)
        tiles.append(focal_plane.make_tile(detector, data, good, corners, size))
    if not tiles:
        raise RampflowError(f"{name}: no image of the exposure has a WCS, so that their places on the sky are unknown")
    picture = focal_plane.draw_mosaic(focal_plane.compose(tiles, size))
    software, path = PngInfo(), folder / f"{name}_focal_plane.png"
    software.add_text("Software", f"{SOFTWARE_NAME} {__version__}")
    with replacing(path) as partial:
        picture.save(partial, "PNG", pnginfo=software)
    shown = {tile.name for tile in tiles}
    missing = [f"WFI{n:02d}" for n in range(1, DETECTORS + 1) if f"WFI{n:02d}" not in shown]
    print(f"{path}: {counted(len(tiles), 'detector')}" + (f", without {', '.join(missing)}" if missing else ""))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line.

    Returns
    -------
    argparse.ArgumentParser
        The parser.
    """
    parser = script_parser("view.py", __doc__ or "", usage="%(prog)s STEM ... [options] [-- DS9_OPTION ...]")
    add = parser.add_argument
    add("exposures", metavar="STEM", nargs="+", help="name of an exposure (a detector), or its image (_cal.asdf)")
    add("--results", metavar="FOLDER", type=Path, default=Path("results"), help="results folder (default: %(default)s)")
    add("--output", metavar="FOLDER", type=Path, default=Path("view"), help="where the files go (default: %(default)s)")
    add("--fits", action="store_true", help="write a FITS file, with the WCS as TAN-SIP")
    add("--regions", action="store_true", help="write the sources and the flagged pixels as regions of DS9")
    add("--ds9", action="store_true", help="write both and open them in ds9")
    add("--jdaviz", action="store_true", help="write a notebook that opens the images and their sources in Imviz")
    add("--mosaic", action="store_true", help="draw all detectors of the exposure as they lie on the sky")
    add(
        "--max_error",
        metavar="PIXELS",
        type=float,
        default=MAX_ERROR,
        help="largest error of the WCS of a FITS file (default: %(default)s)",
    )
    add("--coordinates", choices=("image", "sky"), default="image", help="coordinates of the regions (default: %(default)s)")
    add(
        "--flags",
        metavar="NAME",
        nargs="+",
        choices=dq.pixel_flags(),
        default=list(FLAGS),
        help=f"flags that get regions (default: {' '.join(FLAGS)})",
    )
    add(
        "--max_regions",
        metavar="N",
        type=int,
        default=MAX_REGIONS,
        help="maximum number of regions of a flag; the largest are kept (default: %(default)s)",
    )
    add(
        "--mosaic_size",
        metavar="PIXELS",
        type=int,
        default=MOSAIC_SIZE,
        help="longer side of the picture of the focal plane (default: %(default)s)",
    )
    return parser


def prepare(arguments: Any, ds9_options: list[str]) -> None:
    """Write what the command line asks for, and open it.

    Parameters
    ----------
    arguments : argparse.Namespace
        Arguments of `make_parser`.
    ds9_options : list of str
        More options of ds9.

    Raises
    ------
    RampflowError
        An image can't be used, or a package is missing.
    """
    images = [find_image(name, arguments.results) for name in arguments.exposures]
    folder = arguments.output
    opened = []
    for path in images:
        written: list[Path] = []
        image = folder / f"{name_of_image(path)}_cal.fits"
        with AsdfFile(path) as file:
            exposure = Exposure(file)
            exposure.expect_model("wfi_image", "view")
            if arguments.fits or arguments.ds9:
                write_fits(exposure, image, arguments.max_error)
            if arguments.regions or arguments.ds9:
                sky = arguments.coordinates == "sky"
                written = write_regions(exposure, folder, arguments.flags, arguments.max_regions, sky=sky)
        opened.append((image, written))
    if arguments.jdaviz:
        write_notebook(images, folder)
    if arguments.mosaic:
        for path in {find_detectors(path)[0]: path for path in images}.values():
            write_mosaic(path, folder, arguments.mosaic_size)
    if arguments.ds9:
        open_ds9(opened, ds9_options)


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    words = sys.argv[1:] if argv is None else argv
    place = words.index("--") if "--" in words else len(words)
    parser = make_parser()
    arguments = parser.parse_args(words[:place])
    if not (arguments.fits or arguments.regions or arguments.ds9 or arguments.jdaviz or arguments.mosaic):
        parser.error("nothing to do: give --fits, --regions, --ds9, --jdaviz or --mosaic")
    if not arguments.max_error > 0 or arguments.max_regions < 1 or not 100 <= arguments.mosaic_size <= 20_000:
        parser.error("--max_error must be above 0, --max_regions at least 1, --mosaic_size from 100 to 20000")
    with reported_errors("view") as outcome:
        prepare(arguments, words[place + 1 :])
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
