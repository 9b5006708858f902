"""The files of a processed exposure that are prepared for other tools."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from rampflow.errors import RampflowError
from rampflow.step.logs import step_logger

IMAGE, CATALOG = "_cal.asdf", "_cat.parquet"

log = step_logger("view")


def find_image(name: str, results: Path) -> Path:
    """Find the calibrated image of an exposure.

    Parameters
    ----------
    name : str
        Name of the exposure, or path of its image.
    results : pathlib.Path
        Results folder, for names.

    Returns
    -------
    pathlib.Path
        The image.

    Raises
    ------
    RampflowError
        There is no such file.
    """
    path = Path(name) if name.endswith(IMAGE) else results / f"{name}{IMAGE}"
    if not path.parent.is_dir():
        raise RampflowError(f"{path.parent}: is not a folder; give the folder of the products: --results")
    if not path.is_file():
        raise RampflowError(f"{path}: there is no such image; give the name of a processed exposure, and its folder: --results")
    return path


def name_of_image(image: Path) -> str:
    """Return the name of an exposure.

    Parameters
    ----------
    image : pathlib.Path
        Its image.

    Returns
    -------
    str
        The name.
    """
    return image.name.removesuffix(IMAGE)


def find_detectors(image: Path) -> tuple[str, list[Path]]:
    """Find the images of all detectors of an exposure.

    Parameters
    ----------
    image : pathlib.Path
        Image of one detector.

    Returns
    -------
    name : str
        Name of the exposure without the detector.
    images : list of pathlib.Path
        The images whose names differ in the number of the detector alone.

    Raises
    ------
    RampflowError
        The name has no detector.
    """
    parts = re.fullmatch(r"(.+)_wfi\d\d(_.+)", image.name)
    if parts is None:
        raise RampflowError(f"{image.name}: has no detector in its name, such as _wfi01_; --mosaic needs it to find the others")
    before, after = parts.groups()
    pattern = re.compile(rf"{re.escape(before)}_wfi\d\d{re.escape(after)}")
    return before + after.removesuffix(IMAGE), sorted(path for path in image.parent.iterdir() if pattern.fullmatch(path.name))


def read_image_sources(image: Path) -> dict[str, np.ndarray] | None:
    """Read the catalog of an image.

    Parameters
    ----------
    image : pathlib.Path
        The image.

    Returns
    -------
    dict of numpy.ndarray or None
        The columns that `rampflow.views.region_files` uses; `None` if the image has no catalog.

    Raises
    ------
    RampflowError
        The catalog can't be read.
    """
    from rampflow.files.parquet import pyarrow, read_table
    from rampflow.views.region_files import COLUMNS

    path = image.with_name(name_of_image(image) + CATALOG)
    if not path.exists():
        log.warning("%s: has no catalog (%s): its sources are not marked", image.name, path.name)
        return None
    try:
        table = read_table(path)
        # In a catalog of given sources, what is measured in the image has a prefix.
        names = {name: name if name in table.column_names else f"forced_{name}" for name in COLUMNS}
        return {name: table[column].to_numpy() for name, column in names.items()}
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise RampflowError(f"{path}: can't be read as a catalog ({error}); make it again") from error
