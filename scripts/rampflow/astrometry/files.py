"""Stars from a file of the user's: ECSV, parquet, CSV or FITS."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rampflow.astrometry.region import Region
from rampflow.errors import RampflowError

SUFFIXES = (".ecsv", ".parquet", ".csv", ".fits")

#: Names (in any case) of the columns that are read, the first that there is; and their units.
NAMES = {
    "ra": (("ra", "sky_centroid.ra"), "deg"),
    "dec": (("dec", "sky_centroid.dec"), "deg"),
    "mag": (("phot_g_mean_mag", "mag"), "mag"),
    "pmra": (("pmra",), "mas/yr"),
    "pmdec": (("pmdec",), "mas/yr"),
    "parallax": (("parallax",), "mas"),
    "ref_epoch": (("ref_epoch",), "yr"),
    "ra_error": (("ra_error",), "mas"),
    "dec_error": (("dec_error",), "mas"),
    "pmra_error": (("pmra_error",), "mas/yr"),
    "pmdec_error": (("pmdec_error",), "mas/yr"),
}


def read_file(path: Path, region: Region) -> dict[str, np.ndarray]:
    """Stars of a file that lie in a region.

    Parameters
    ----------
    path : pathlib.Path
        A file with one of `SUFFIXES`; its columns are known by `NAMES`, in any case; positions may be in a sky_centroid.
    region : Region

    Returns
    -------
    dict of numpy.ndarray
        The columns of `NAMES` that the file has, in their units (converted, where the file says others); NaN where masked.

    Raises
    ------
    RampflowError
        The file can't be read, or has no positions.
    """
    try:
        table = _open(path)
    except RampflowError:
        raise
    except Exception as error:  # each format has its own ways to be broken
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise RampflowError(f"{path}: this astrometric catalog can't be read ({reason})") from None
    stars = {}
    for name, (candidates, unit) in NAMES.items():
        column = next((found for c in candidates if (found := _find(path, table.colnames, c))), None)
        if column is not None:
            stars[name] = _values(path, table[column], unit)
    if "ra" not in stars or "dec" not in stars:
        raise RampflowError(
            f"{path}: an astrometric catalog has columns ra and dec (in any case), or sky_centroid; this file has "
            f"{', '.join(table.colnames) or 'none'}"
        )
    known = np.isfinite(stars["ra"]) & np.isfinite(stars["dec"])
    if (abs(stars["dec"][known]) > 90).any() or (abs(stars["ra"][known]) > 360).any():
        raise RampflowError(f"{path}: ra and dec must be in degrees; some are beyond 360 and 90")
    inside = known & region.contains(stars["ra"], stars["dec"])
    return {name: values[inside] for name, values in stars.items()}


def _open(path: Path):
    from astropy.table import Table

    if path.suffix.lower() == ".parquet":
        from rampflow.files.parquet import ParquetFile

        wanted = {c for candidates, _ in NAMES.values() for c in candidates}
        with ParquetFile(path) as file:
            schema = file.schema_arrow
            names = [n for n in schema.names if n.lower() in wanted]
            if not names:
                return Table(names=schema.names)
            columns = file.read(columns=names)
        # A column of numbers becomes floats, with NaN where it has no value.
        table = Table({n: np.asarray(columns[n].to_numpy(), float) for n in names})
        for name in names:
            table[name].unit = (schema.field(name).metadata or {}).get(b"unit", b"").decode() or None
        return table
    kind = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".fits": "fits"}[path.suffix.lower()]
    table = Table.read(path, format=kind, **({"comment": "#"} if kind == "ascii.csv" else {}))
    centroid = _find(path, table.colnames, "sky_centroid")
    if centroid is not None and hasattr(table[centroid], "icrs"):
        for axis in ("ra", "dec"):
            table[f"sky_centroid.{axis}"] = getattr(table[centroid].icrs, axis).deg
    return table


def _find(path: Path, names: list[str], wanted: str) -> str | None:
    """The column that is called `wanted`, in any case."""
    found = [name for name in names if name.lower() == wanted]
    if len(found) > 1:
        raise RampflowError(f"{path}: has several columns {wanted} ({', '.join(found)}); which one counts can't be known")
    return found[0] if found else None


def _values(path: Path, column, unit: str) -> np.ndarray:
    """A column as float64 in a unit."""
    from astropy import units

    try:
        values = np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
        factor = units.Unit(column.unit).to(unit) if column.unit else 1.0
    except (ValueError, TypeError, units.UnitsError) as error:
        raise RampflowError(f"{path}: its column {column.name} can't be used as numbers in {unit} ({error})") from None
    return values * factor
