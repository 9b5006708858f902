"""Draw a calibrated image as PNG, with north, east and a scale, and a thumbnail of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rampflow import SOFTWARE_NAME, __version__, dq
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.pictures import image as pictures
from rampflow.step.exposure import Exposure
from rampflow.step.program import reported_errors

if TYPE_CHECKING:
    from PIL import Image

SIZE, THUMBNAIL = 1080, 300  #: pixels a side at most; those of the previews in the Roman archive


def make_preview(image: np.ndarray, flags: np.ndarray, s_region: str | None) -> Image.Image:
    """Draw a calibrated image.

    Parameters
    ----------
    image, flags : numpy.ndarray
        Count rate (DN/s) and data quality. Pixels with DO_NOT_USE are left out.
    s_region : str or None
        Footprint, ``meta.wcsinfo.s_region``.

    Returns
    -------
    PIL.Image.Image
        The picture, of `SIZE` pixels a side at most.
    """
    good = ~dq.has(flags, dq.DO_NOT_USE)
    good &= np.isfinite(image)
    binned = pictures.bin_down(image, good, pictures.binning(image.shape, SIZE))
    return pictures.draw(pictures.stretch(binned), pictures.corners_of(s_region))


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="preview.py", description=__doc__)
    parser.add_argument("input", metavar="INPUT", type=Path, help="the calibrated image (_cal.asdf)")
    parser.add_argument("preview", metavar="PREVIEW", type=Path, help=f"the picture to write, {SIZE} pixels at most (.png)")
    parser.add_argument("thumbnail", metavar="THUMBNAIL", type=Path, help=f"the thumbnail to write, {THUMBNAIL} pixels (.png)")
    arguments = parser.parse_args(argv)
    from PIL.PngImagePlugin import PngInfo

    software = PngInfo()
    software.add_text("Software", f"{SOFTWARE_NAME} {__version__}")
    with reported_errors("preview", arguments.input) as outcome, AsdfFile(arguments.input) as file:
        exposure = Exposure(file)
        exposure.expect_model("wfi_image", "preview")
        data, flags = (exposure.array(name, 2).read() for name in ("data", "dq"))
        picture = make_preview(data, flags, exposure.meta.get("wcsinfo", {}).get("s_region"))
        with replacing(arguments.preview) as large:
            picture.save(large, "PNG", pnginfo=software)
            with replacing(arguments.thumbnail) as small:  # begins here, so that an error names the file that is being written
                picture.thumbnail((THUMBNAIL, THUMBNAIL))
                picture.save(small, "PNG", pnginfo=software)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
