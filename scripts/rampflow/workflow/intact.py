"""Whether a product is whole and belongs to its exposure, by its own content.

Snakemake asks only whether a product exists and how old it is. A crash of a machine leaves empty files, an interrupted copy
leaves cut ones, and a file may be copied under the name of another.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile

#: Ends of the names of a catalog and of the image that it belongs to.
CATALOG, IMAGE = "_cat.parquet", "_cal.asdf"
NUMBERS = "_qa.json"  #: end of the name of the file with the numbers of an exposure
_PNG_BEGIN, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def find_fault(path: Path) -> str:
    """Find out whether a product is whole and is the one that its name says.

    Parameters
    ----------
    path : pathlib.Path
        A product that exists: an ASDF, parquet, PNG or JSON file.

    Returns
    -------
    str
        What is wrong with it; empty if nothing is. Pixels are not read.
    """
    try:
        name = {".asdf": _name_in_asdf, ".parquet": _name_in_catalog, ".png": _name_of_picture, ".json": _name_in_json}[
            path.suffix
        ](path)
    except (RampflowError, OSError, ValueError, LookupError, TypeError):
        return "it is damaged"
    return "" if name == path.name else f"it is {name} by its metadata"


def _name_in_asdf(path: Path) -> str:
    with AsdfFile(path, parse=False) as file:
        return str(file.entry("roman", "meta", "filename"))


def _name_in_catalog(path: Path) -> str:
    """The file name in the metadata of a catalog. The date of the image tells a catalog of another image of this name apart."""
    from pyarrow import ArrowException, parquet

    try:
        metadata = parquet.read_schema(path).metadata or {}
    except ArrowException as error:
        raise ValueError(str(error)) from None
    own, date = (metadata[f"roman.meta.{key}".encode()].decode() for key in ("filename", "image.file_date"))
    image = path.with_name(path.name.removesuffix(CATALOG) + IMAGE)
    with contextlib.suppress(RampflowError), AsdfFile(image, parse=False) as file:
        made = file.entry("roman", "meta", "file_date")
        made = str(made.get("value") if isinstance(made, dict) else made)
        if own == path.name and made.replace("T", " ")[:23] != date[:23]:
            return f"of an image of {date[:23]}"
    return own


def _name_of_picture(path: Path) -> str:
    """The name of a picture, which has no metadata, if it is whole."""
    content = path.read_bytes()
    if not content.startswith(_PNG_BEGIN) or not content.endswith(_PNG_END):
        raise ValueError
    return path.name


def _name_in_json(path: Path) -> str:
    content = json.loads(path.read_text())
    return content["filename"] if path.name.endswith(NUMBERS) else f"{content['association']}_tweakreg.json"
