"""The file with the alignment of an association, and its application to the products of each exposure."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.stored_array import StoredArray
from rampflow.wcs.conversion import tree_of_wcs
from rampflow.wcs.wcs_tree import Wcs

if TYPE_CHECKING:
    import pyarrow

_KEY = "tweakreg"

#: Columns of a source catalog on the detector and those on the sky that follow from them, as in romancal's tweakreg.
COORDINATES = (
    (("x_centroid", "y_centroid"), ("ra", "dec")),
    (("x_centroid", "y_centroid"), ("ra_centroid", "dec_centroid")),
    (("x_centroid_win", "y_centroid_win"), ("ra_centroid_win", "dec_centroid_win")),
    (("x_psf", "y_psf"), ("ra_psf", "dec_psf")),
    # Positions of given sources (a forced segmentation map) in this image; romancal doesn't update these.
    (("forced_x_centroid", "forced_y_centroid"), ("forced_ra", "forced_dec")),
    (("forced_x_centroid", "forced_y_centroid"), ("forced_ra_centroid", "forced_dec_centroid")),
    (("forced_x_psf", "forced_y_psf"), ("forced_ra_psf", "forced_dec_psf")),
)


def write_solutions(path: Path, header: dict, solutions: dict[str, dict]) -> None:
    """Write the alignment of an association as an ASDF file.

    Each exposure has a block of its own, whose bytes are an ASDF file: `read_solution` reads one among a thousand without the
    others, and their trees, which take gigabytes together, are never in memory at once.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    header : dict
        What is true of the whole association: its name, catalog, parameters, ``cal_logs``.
    solutions : dict of dict
        For each stem ``status`` (for ``meta.cal_step.tweakreg``: COMPLETE, FAILED or SKIPPED), ``reason`` and the numbers of
        the summary; where it was tried ``wcs_fit_results`` and ``catalog``, the file name of its source catalog; where it
        succeeded ``wcs`` (`rampflow.alignment.exposures.StoredWcs`) and ``s_region``. asdf and gwcs make an object of the WCS.
    """
    documents = {}
    for stem, solution in solutions.items():
        entry = {key: tree_of_wcs(value.load()) if key == "wcs" else value for key, value in solution.items()}
        documents[stem] = np.frombuffer(_document({_KEY: entry}), np.uint8)
    with create_asdf(path, {_KEY: {**header, "exposures": documents}}):
        pass


def _document(tree: dict) -> bytes:
    """The bytes of an ASDF file with a tree without large arrays, without the room that its writer keeps free."""
    with tempfile.TemporaryDirectory(prefix="rampflow-") as folder:
        path = Path(folder) / "tree.asdf"
        with create_asdf(path, tree):
            pass
        with AsdfFile(path, parse=False) as file:
            return file.text.removesuffix(b"...\n").rstrip(b"\n") + b"\n...\n"


def _tree_of(document: bytes) -> dict:
    """The tree of the bytes that `_document` made."""
    with tempfile.TemporaryDirectory(prefix="rampflow-") as folder:
        path = Path(folder) / "tree.asdf"
        path.write_bytes(document)
        with AsdfFile(path) as file:
            return file.tree


def read_solution(path: Path, stem: str) -> dict:
    """Read the alignment of one exposure.

    Parameters
    ----------
    path : pathlib.Path
        A file of `write_solutions`. The solutions of other exposures are not read.
    stem : str
        Name of the exposure.

    Returns
    -------
    dict
        Its entry in `write_solutions`, with ``wcs`` as a YAML tree, and ``cal_logs``, the lines of the association and its own.

    Raises
    ------
    RampflowError
        The file is not one of tweakreg, doesn't have the exposure, or is damaged.
    """
    with AsdfFile(path, parse=False) as file:
        documents = file.entry(_KEY, "exposures")
        if not isinstance(documents, dict):
            raise RampflowError(f"{path}: is not a file that tweakreg wrote; give ASSOCIATION_tweakreg.asdf")
        if stem not in documents:
            raise RampflowError(f"{path}: the exposure {stem} is not in this association; run tweakreg again")
        document = documents[stem]
        try:
            # An array of a few bytes is in the tree, others are in a block.
            content = document.read() if isinstance(document, StoredArray) else np.asarray(document, np.uint8)
            solution = _tree_of(content.tobytes())[_KEY]
        except (RampflowError, LookupError, TypeError, ValueError):
            raise RampflowError(
                f"{path}: the solution of {stem} can't be read; remove this file and run tweakreg again"
            ) from None
        # Without the lines of other exposures: a thousand exposures would have a thousand times a thousand lines.
        others = documents.keys() - {stem}
        lines = file.entry(_KEY, "cal_logs") or []
        return {**solution, "cal_logs": [line for line in lines if _subject_of(line) not in others]}


def _subject_of(line: str) -> str:
    """The exposure that a line of the log begins with, if it does."""
    return line.split(" :: ", 3)[-1].partition(": ")[0]


def apply_solution(meta: dict, solution: dict) -> None:
    """Align an image, in place.

    Parameters
    ----------
    meta : dict
        ``meta`` of the image's tree: its ``wcs`` (name FIT-LVL2-catalog), ``wcsinfo.s_region``, ``wcs_fit_results``,
        ``source_catalog.tweakreg_catalog_name``, ``cal_step.tweakreg`` and ``cal_logs`` are set; without an alignment the first
        two stay.
    solution : dict
        See `read_solution`.
    """
    meta["cal_step"]["tweakreg"] = solution["status"]
    if "wcs_fit_results" in solution:
        meta["wcs_fit_results"] = solution["wcs_fit_results"]
    if "catalog" in solution:
        meta["source_catalog"] = {**meta.get("source_catalog", {}), "tweakreg_catalog_name": solution["catalog"]}
    if "wcs" in solution:
        meta["wcs"] = solution["wcs"]
        if solution.get("s_region"):
            meta["wcsinfo"]["s_region"] = solution["s_region"]
    if solution.get("cal_logs"):
        meta["cal_logs"] = [*meta.get("cal_logs", []), *solution["cal_logs"]]


def update_catalog(table: pyarrow.Table, solution: dict) -> pyarrow.Table:
    """Recompute the coordinates of a source catalog on the sky.

    Parameters
    ----------
    table : pyarrow.Table
        A source catalog; of the columns in `COORDINATES`, those that it has are recomputed, with their types and metadata.
    solution : dict
        See `read_solution`.

    Returns
    -------
    pyarrow.Table
        With the footprint in its metadata (``roman.meta.wcsinfo.s_region``) where it had one; the same table without an
        alignment.
    """
    from rampflow.files.parquet import pyarrow

    if "wcs" not in solution:
        return table
    wcs, known = Wcs(solution["wcs"]), set(table.column_names)
    for pixels, sky in COORDINATES:
        if known.issuperset(pixels + sky):
            x, y = (table[name].to_numpy() for name in pixels)
            for name, values in zip(sky, wcs(x, y), strict=True):
                index = table.schema.get_field_index(name)
                field = table.schema.field(index)
                table = table.set_column(index, field, pyarrow.array(values, field.type))
    metadata, key = dict(table.schema.metadata or {}), b"roman.meta.wcsinfo.s_region"
    if key in metadata and solution.get("s_region"):
        metadata[key] = solution["s_region"].encode()
    return table.replace_schema_metadata(metadata)
