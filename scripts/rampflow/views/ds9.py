"""The image viewer DS9, which is another program."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from rampflow.errors import RampflowError

#: The sky and its noise, the whole image.
DS9_OPTIONS = ("-scale", "zscale", "-zoom", "to", "fit")


def open_ds9(files: list[tuple[Path, list[Path]]], options: list[str]) -> None:
    """Open images and their regions in ds9, and wait for its end.

    Parameters
    ----------
    files : list of tuple
        FITS file and files of regions of each image.
    options : list of str
        More options of ds9.

    Raises
    ------
    RampflowError
        ds9 ended with an error.
    """
    command = ["ds9"]
    for image, regions in files:
        command += [f"{image}[SCI]", *DS9_OPTIONS]
        for path in regions:
            command += ["-regions", "load", str(path)]
    command += options
    if shutil.which("ds9") is None:
        print(f"There is no ds9 on the PATH. Where there is one: {shlex.join(command)}")
        return
    print(shlex.join(command), flush=True)
    status = subprocess.run(command).returncode
    if status:
        raise RampflowError(f"ds9 ended with exit status {status}; it needs a display (DISPLAY)")
