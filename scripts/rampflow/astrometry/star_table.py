"""The file with the astrometric catalog of an association: stars at the epoch of its exposures, and their origin."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing
from rampflow.files.parquet_footer import read_footer

if TYPE_CHECKING:
    from astropy.table import Table

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
    """Origin of the stars of an astrometric catalog; the file has it as JSON in the metadata of its schema.

    Attributes
    ----------
    source : str
        Name of the catalog, or of the file or folder.
    epoch : float or None
        Epoch of the positions, Julian year; `None` if no catalog was queried.
    region : list of list of float
        Circles on the sky that are covered: ra, dec, radius in degrees.
    rows : int
        Number of stars.
    status : str
        SUCCESS, or FAILED if the catalog couldn't be retrieved; then there are no stars.
    reason : str
        Why there are no stars; empty if there are some.
    attempt : int
        Number of runs that queried the catalog, up to and including the one that succeeded.
    title, version : str
        Name and version of the catalog, as far as it has them.
    ref_epoch : float or None
        Epoch of the positions in the catalog, before they were moved, Julian year (the median); `None` if unknown.
    """

    source: str
    epoch: float | None
    region: list[list[float]]
    rows: int
    status: str
    reason: str
    attempt: int = 1
    title: str = ""
    version: str = ""
    ref_epoch: float | None = None

    def described(self) -> str:
        """Describe the catalog for a log.

        Returns
        -------
        str
            Its source, name, version and epochs.
        """
        parts = [self.source, *(part for part in (self.title, self.version) if part and part != self.source)]
        parts += [f"positions of {self.ref_epoch:.4f}"] if self.ref_epoch is not None else []
        parts += [f"moved to {self.epoch:.4f}"] if self.epoch is not None else []
        return ", ".join(parts)

    @property
    def unavailable(self) -> bool:
        """Whether the catalog couldn't be retrieved, so that another attempt may succeed.

        Returns
        -------
        bool
            Whether the catalog was queried without success.
        """
        return self.status == "FAILED" and bool(self.region)


def write_star_table(path: Path, stars: dict[str, np.ndarray], origin: Origin) -> None:
    """Write an astrometric catalog.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    stars : dict of numpy.ndarray
        Columns of `UNITS`, (n,) each; those that are missing are written as NaN. Without columns, the file has no rows.
    origin : Origin
        Origin of the stars.

    Raises
    ------
    RampflowError
        The file can't be written.
    """
    from rampflow.files.parquet import pyarrow as pa
    from rampflow.files.parquet import write_table

    fields = [pa.field(name, pa.float64(), metadata={"unit": unit}) for name, unit in UNITS.items()]
    schema = pa.schema(fields, metadata={_KEY: json.dumps(dataclasses.asdict(origin))})
    unknown = np.full(len(stars.get("ra", ())), np.nan)
    table = pa.table([np.asarray(stars.get(name, unknown), float) for name in UNITS], schema=schema)
    with replacing(path) as partial:
        write_table(table, partial)


def read_star_table(path: Path) -> tuple[Table, Origin]:
    """Read an astrometric catalog.

    Parameters
    ----------
    path : pathlib.Path
        A file that astrometric_catalog.py wrote.

    Returns
    -------
    stars : astropy.table.Table
        Columns ra, dec (degrees, ICRS at the epoch), mag, ra_error, dec_error (mas; ra_error with the factor cos δ, as in
        Gaia), pmra, pmdec (mas per year) and parallax (mas); NaN where unknown. The motions move the stars to the epoch of each
        exposure.
    origin : Origin
        Origin of the stars.

    Raises
    ------
    RampflowError
        The file doesn't exist or is not such a file.
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
    """Read from the file of an earlier run which attempt to retrieve a catalog is the next.

    Parameters
    ----------
    path : pathlib.Path
        The file, which may not exist.

    Returns
    -------
    int
        Number of the attempt: one more than that of the file if the catalog couldn't be retrieved; otherwise the same, so that
        no step is repeated.
    """
    try:
        footer = read_footer(path)
        text = footer[footer.index(b"{", footer.index(_KEY)) :].decode(errors="replace")
        origin = Origin(**json.JSONDecoder().raw_decode(text)[0])
    except (OSError, ValueError, TypeError):
        return 1
    return origin.attempt + 1 if origin.unavailable else origin.attempt
