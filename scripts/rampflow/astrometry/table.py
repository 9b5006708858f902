"""The astrometric catalog of an association as a file: stars at the epoch of its exposures, and how they came there."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np

from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing

_KEY = b"astrometric_catalog"

#: Columns of the file, all float64, and their units.
UNITS = {
    "ra": "deg",
    "dec": "deg",
    "mag": "mag",
    "ra_error": "mas",
    "dec_error": "mas",
    "pmra": "mas/yr",
    "pmdec": "mas/yr",
    "parallax": "mas",
}


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the stars of an astrometric catalog come from; in the file as JSON in its schema's metadata.

    Attributes
    ----------
    source : str
        Name of the catalog, or of the file or folder.
    epoch : float or None
        Julian year that the positions are of; `None` where nothing was asked for.
    region : list of list of float
        Circles on the sky that are covered: ra, dec, radius in degrees.
    rows : int
        Number of stars.
    status : str
        SUCCESS, or FAILED when the catalog can't be had; then there are no stars.
    reason : str
        Why there are no stars; empty where there are some.
    attempt : int
        How often the catalog has been asked for, by this run and those before it that didn't get it.
    """

    source: str
    epoch: float | None
    region: list[list[float]]
    rows: int
    status: str
    reason: str
    attempt: int = 1

    @property
    def unavailable(self) -> bool:
        """Whether the catalog couldn't be had, so that it's worth another attempt."""
        return self.status == "FAILED" and bool(self.region)


def write_catalog(path: Path, stars: dict[str, np.ndarray], origin: Origin) -> None:
    """Write an astrometric catalog; columns that `stars` hasn't are NaN, and it may have none.

    Raises
    ------
    RampflowError
        It can't be written.
    """
    from rampflow.files.parquet import pyarrow as pa
    from rampflow.files.parquet import write_table

    fields = [pa.field(name, pa.float64(), metadata={"unit": unit}) for name, unit in UNITS.items()]
    schema = pa.schema(fields, metadata={_KEY: json.dumps(dataclasses.asdict(origin))})
    unknown = np.full(len(stars.get("ra", ())), np.nan)
    table = pa.table([np.asarray(stars.get(name, unknown), float) for name in UNITS], schema=schema)
    with replacing(path) as partial:
        write_table(table, partial)


def read_catalog(path: Path):
    """Read an astrometric catalog.

    Parameters
    ----------
    path : path-like
        A file that astrometric_catalog.py wrote.

    Returns
    -------
    stars : astropy.table.Table
        ra, dec (degrees, ICRS at the epoch), mag, ra_error, dec_error (mas; ra_error on the sky, as Gaia's), pmra, pmdec (mas
        per year), parallax (mas): for the way between the epoch and that of each exposure; NaN where unknown.
    origin : Origin

    Raises
    ------
    RampflowError
        It is not such a file.
    """
    from astropy.table import Table

    from rampflow.files.parquet import pyarrow as pa
    from rampflow.files.parquet import read_table

    try:
        table = read_table(path)
        origin = Origin(**json.loads((table.schema.metadata or {})[_KEY]))
        return Table({name: table[name].to_numpy() for name in UNITS}), origin
    except FileNotFoundError:
        raise RampflowError(f"{path}: this astrometric catalog does not exist") from None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        raise RampflowError(f"{path}: is not a catalog that astrometric_catalog.py wrote; make it again") from None


def next_attempt(path: Path) -> int:
    """The number of the attempt that a run makes to get a catalog, from the file that an earlier run left.

    A catalog that was got keeps the number of its attempt, so that nothing is repeated; one that couldn't be had has the next.
    pyarrow, whose import takes longer than all else that a workflow does at its start, is not needed for this: the end of a
    parquet file holds the metadata as they are, after their key.
    """
    try:
        with open(path, "rb") as file:
            file.seek(-8, os.SEEK_END)
            size, magic = int.from_bytes(file.read(4), "little"), file.read(4)
            file.seek(-8 - size, os.SEEK_END)
            footer = file.read(size)
        start = footer.index(b"{", footer.index(_KEY)) if magic == b"PAR1" else len(footer)
        text = footer[start:].decode(errors="replace")
        origin = Origin(**json.JSONDecoder().raw_decode(text)[0])
    except (OSError, ValueError, TypeError):
        return 1
    return origin.attempt + 1 if origin.unavailable else origin.attempt
