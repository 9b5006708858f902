"""A notebook that opens images and their sources in jdaviz, with Imviz, its viewer of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing

INTRODUCTION = """# Calibrated images in Imviz

Run all cells. jdaviz 5 or newer shows the images, with their WCS and their sources: `pip install "jdaviz[roman]"`."""
OPEN = """from astropy.table import Table
from jdaviz import App

images = {images}
app = App()
for name, path in images.items():
    app.load(path, format="Image", extension="data", data_label=name)
if len(images) > 1:
    app.plugins["Orientation"].align_by = "WCS"
app.show()"""
MARK = """# Sources as markers. To align the images otherwise, remove the markers first: viewer.reset_markers()
viewer = next(iter(app.viewers.values()))
catalogs = {catalogs}
for name, path in catalogs.items():
    sources = Table.read(path)
    viewer.add_markers(sources, use_skycoord="coord" in sources.colnames, marker_name=f"sources of {{name}}")"""


def make_notebook(images: dict[str, Path], catalogs: dict[str, Path]) -> Any:
    """Make a notebook that opens images and marks their sources.

    Parameters
    ----------
    images : dict of pathlib.Path
        Calibrated images (_cal.asdf) by name of the exposure.
    catalogs : dict of pathlib.Path
        Their sources, of `write_sources`, by name of the exposure.

    Returns
    -------
    nbformat.NotebookNode
        The notebook, which is valid.

    Raises
    ------
    RampflowError
        The package nbformat is not installed.
    """
    try:
        from nbformat import v4, validate
    except ImportError:
        raise RampflowError(
            "a notebook needs the package nbformat, which is not installed: pip install nbformat; in a clone: make view"
        ) from None
    cells = [
        v4.new_markdown_cell(INTRODUCTION, id="introduction"),
        v4.new_code_cell(OPEN.format(images=_literal(images)), id="images"),
    ]
    if catalogs:
        cells.append(v4.new_code_cell(MARK.format(catalogs=_literal(catalogs)), id="sources"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    validate(notebook)
    return notebook


def _literal(paths: dict[str, Path]) -> str:
    """A dictionary as Python reads it; whole paths, because the kernel runs in another folder."""
    return json.dumps({name: str(path.resolve()) for name, path in paths.items()}, indent=4, ensure_ascii=False)


def write_notebook(path: Path, notebook: Any) -> None:
    """Write a notebook.

    Parameters
    ----------
    path : pathlib.Path
        The file (.ipynb).
    notebook : nbformat.NotebookNode
        The notebook.

    Raises
    ------
    RampflowError
        The file can't be written.
    """
    import nbformat

    with replacing(path) as partial:
        nbformat.write(notebook, partial)


def write_sources(path: Path, columns: dict[str, np.ndarray], *, sky: bool) -> None:
    """Write the positions of sources as a table that astropy reads without other packages.

    Parameters
    ----------
    path : pathlib.Path
        The file (.ecsv). Its columns are the label, x and y in pixels, and coord, positions on the sky (ICRS).
    columns : dict of numpy.ndarray
        Columns label, x_centroid, y_centroid, ra_centroid and dec_centroid of the catalog.
    sky : bool
        Whether the image has a WCS; without it there is no coord.

    Raises
    ------
    RampflowError
        The file can't be written.
    """
    from astropy import units
    from astropy.coordinates import SkyCoord
    from astropy.table import Table

    positions = ("ra_centroid", "dec_centroid") if sky else ("x_centroid", "y_centroid")
    found = np.isfinite([columns[name] for name in positions]).all(axis=0)
    table = Table({"label": columns["label"][found], "x": columns["x_centroid"][found], "y": columns["y_centroid"][found]})
    if sky:
        table["coord"] = SkyCoord(*(columns[name][found] for name in positions), unit=units.deg)
    with replacing(path) as partial:
        table.write(partial, format="ascii.ecsv")
