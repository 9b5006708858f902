"""Stars from a file of the user: ECSV, parquet, CSV or FITS."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from rampflow.astrometry.region import Region
from rampflow.errors import RampflowError, counted
from rampflow.step.logs import step_logger

log = step_logger("astrometric_catalog")

SUFFIXES: tuple[str, ...] = (".ecsv", ".parquet", ".csv", ".fits")

#: Names of the columns that are read, in any case (the first that exists is used), and their units.
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

#: Larger values (mas per year, mas) are placeholders: the fastest star moves by 10,400 mas per year, the nearest has 769 mas.
LARGEST = {"pmra": 11_000.0, "pmdec": 11_000.0, "parallax": 1_000.0}
#: Range of plausible epochs of positions, Julian years.
EPOCHS = (1800.0, 2200.0)

#: Names of proper motions and epochs in other catalogs, without case and separators, and the corresponding name in `NAMES`.
#: Columns with these names aren't read: a file that has one of them and lacks the column in `NAMES` is refused.
OTHER_NAMES = {
    r"(pm|mu|propermotion)(ra|alpha|rade?)(cosdec?|star|\*)?": "pmra",
    r"(pm|mu|propermotion)(de|dec|delta|decl)": "pmdec",
    r"(ref|pm|pos|coord)?epoch|epochref|epoch(jyear|ra|dec)?": "ref_epoch",
}
#: Names of the frame of the positions, in any case, in the metadata of a table or as a column.
FRAME_NAMES = ("frame", "coord_frame", "coordinate_frame", "refframe", "radesys", "radecsys", "equinox")
OTHER_FRAMES = ("FK4", "FK5", "B1950", "GALACTIC", "SUPERGALACTIC", "ECLIPTIC", "CIRS", "GAPPT")


def read_file(path: Path, region: Region) -> dict[str, np.ndarray]:
    """Read the stars of a file that lie in a region.

    Parameters
    ----------
    path : pathlib.Path
        A file with one of `SUFFIXES`. `NAMES` has the names of its columns, in any case; positions may be in a sky_centroid.
    region : Region
        The region.

    Returns
    -------
    dict of numpy.ndarray
        The columns of `NAMES` that the file has, (n,) each, in the units of `NAMES`; NaN where masked, and for motions larger
        than `LARGEST`.

    Raises
    ------
    RampflowError
        The file can't be read or has no positions, or its contents can't be used: proper motions without an epoch or with one
        component, another frame, positions out of range, or positions that lie in the region only after a correction (ra and
        dec swapped, ra in hours, or both in radians).
    """
    try:
        table, names = _open(path)
    except RampflowError:
        raise
    except Exception as error:  # readers of the formats raise all kinds
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
            f"{', '.join(names) or 'none'}"
        )
    _check_frame(path, table)
    _check_positions(path, stars["ra"], stars["dec"])
    _check_motions(path, stars, names)
    known = np.isfinite(stars["ra"]) & np.isfinite(stars["dec"])
    if not known.all():
        log.warning("%s: %d of %d rows have no position and are left out", path.name, (~known).sum(), known.size)
    inside = known & region.contains(stars["ra"], stars["dec"])
    if not inside.any():
        _check_order(path, stars["ra"][known], stars["dec"][known], region)
    return {name: values[inside] for name, values in stars.items()}


def describe_stars(path: Path) -> str:
    """Describe the positions of the stars of a file, for a message.

    Parameters
    ----------
    path : pathlib.Path
        The file, see `read_file`.

    Returns
    -------
    str
        The number of rows and the limits of ra and dec, degrees.
    """
    table, _ = _open(path)
    columns = [next(found for c in NAMES[axis][0] if (found := _find(path, table.colnames, c))) for axis in ("ra", "dec")]
    ra, dec = (_values(path, table[column], "deg") for column in columns)
    if not np.isfinite(ra).any() or not np.isfinite(dec).any():
        return f"its {counted(len(ra), 'row has', 'rows have')} no position"
    limits = np.nanmin(ra), np.nanmax(ra), np.nanmin(dec), np.nanmax(dec)
    return "its {} at ra {:.4f} to {:.4f}, dec {:+.4f} to {:+.4f}".format(counted(len(ra), "row is", "rows are"), *limits)


def _check_frame(path: Path, table) -> None:
    """Refuse positions that are not ICRS according to the metadata or columns of the file."""
    declared = [(str(key), [value]) for key, value in table.meta.items() if str(key).lower() in FRAME_NAMES]
    columns = [name for name in table.colnames if name.lower() in FRAME_NAMES]
    declared += [(name, np.unique(np.ma.compressed(np.ma.asarray(table[name])).astype(str)).tolist()) for name in columns]
    for name, values in declared:
        for value in map(str, values):
            text = value.strip().upper()
            year = re.fullmatch(r"J?(\d{4}(?:\.\d*)?)", text)
            if text.startswith(OTHER_FRAMES) or (name.lower() == "equinox" and year and float(year[1]) != 2000):
                raise RampflowError(
                    f"{path}: its {name} is {value!r}; positions must be ICRS: convert them, and correct or remove this entry"
                )


def _check_positions(path: Path, ra: np.ndarray, dec: np.ndarray) -> None:
    """Refuse positions that are out of range in degrees."""
    wrong = np.flatnonzero((np.abs(np.nan_to_num(dec)) > 90) | (np.abs(np.nan_to_num(ra)) > 360))
    if not wrong.size:
        return
    swapped = (np.abs(np.nan_to_num(ra)) <= 90).all() and (np.abs(np.nan_to_num(dec)) <= 360).all()
    hint = "; the two columns seem to have changed places" if swapped else ""
    raise RampflowError(
        f"{path}: ra and dec must be in degrees; {wrong.size} of {len(ra)} rows are beyond 360 and 90 (row {wrong[0] + 1}: "
        f"ra {ra[wrong[0]]:g}, dec {dec[wrong[0]]:g}){hint}; remove rows without a position, or leave it empty"
    )


def _check_motions(path: Path, stars: dict[str, np.ndarray], names: list[str]) -> None:
    """Refuse motions that can't be applied; set placeholders to NaN, in place."""
    others = {name: other for other in names for name in [quantity_of(other)] if name and name not in stars}
    motions = [name for name in ("pmra", "pmdec") if name in stars or name in others]
    needed = ("pmra", "pmdec", "ref_epoch") if motions else ()
    missing = [name for name in needed if name not in stars]
    if missing:
        renaming = "".join(f"; if {others[name]!r} is that, rename it" for name in missing if name in others)
        raise RampflowError(
            f"{path}: proper motions need pmra (with the factor cos dec) and pmdec in mas/yr and ref_epoch, the Julian year of "
            f"the positions (without any of them the positions are taken as they are); missing: {', '.join(missing)}{renaming}"
        )
    drop_placeholders(path, stars)


def drop_placeholders(source: object, stars: dict[str, np.ndarray]) -> None:
    """Set motions and epochs that are placeholders to NaN, in place.

    Parameters
    ----------
    source : path-like
        The catalog, for the message.
    stars : dict of numpy.ndarray
        Columns of `NAMES`, (n,) each.

    Raises
    ------
    RampflowError
        The epochs of most stars are not Julian years.
    """
    for name, largest in LARGEST.items():
        if name in stars:
            stars[name][np.abs(np.nan_to_num(stars[name])) > largest] = np.nan
    if "ref_epoch" in stars and {"pmra", "pmdec"} & set(stars):
        known = np.isfinite(stars["ref_epoch"])
        wrong = known & ((stars["ref_epoch"] < EPOCHS[0]) | (stars["ref_epoch"] > EPOCHS[1]))
        if wrong.any() and wrong.sum() * 2 >= known.sum():
            raise RampflowError(
                f"{source}: its ref_epoch is {stars['ref_epoch'][wrong][0]:g}; it must be a Julian year, as 2016.0"
            )
        stars["ref_epoch"][wrong] = np.nan


def quantity_of(name: str) -> str | None:
    """Recognize the name that another catalog has for a quantity of `NAMES`.

    Parameters
    ----------
    name : str
        Name of a column.

    Returns
    -------
    str or None
        ``pmra``, ``pmdec`` or ``ref_epoch``; `None` for any other name.
    """
    plain = re.sub(r"[\W_]", "", name.lower())
    return next((quantity for pattern, quantity in OTHER_NAMES.items() if re.fullmatch(pattern, plain)), None)


def _check_order(path: Path, ra: np.ndarray, dec: np.ndarray, region: Region) -> None:
    """Refuse a file with no star in the region, if a common mistake explains it."""
    mistakes = {
        "its ra and dec seem to have changed places": (dec, ra, np.abs(ra) <= 90),
        "its ra seems to be in hours": (15 * ra, dec, np.abs(ra) <= 24),
        "its ra and dec seem to be in radians": (*np.degrees([ra, dec]), (np.abs(ra) <= 7) & (np.abs(dec) <= 1.6)),
    }
    for mistake, (other_ra, other_dec, possible) in mistakes.items():
        inside = possible & region.contains(other_ra, other_dec)
        if inside.sum() >= 3:
            raise RampflowError(
                f"{path}: {mistake}: none of its stars is where the images are, and {inside.sum()} would be; it takes ra and "
                "dec in degrees, or with a unit"
            )


def _open(path: Path):
    """The table of a file, and the names of all its columns."""
    from astropy.table import Table

    if path.suffix.lower() == ".parquet":
        from rampflow.files.parquet import ParquetFile

        wanted = {c for candidates, _ in NAMES.values() for c in candidates}
        with ParquetFile(path) as file:
            schema = file.schema_arrow
            numbers = [n for n in schema.names if n.lower() in wanted]
            texts = [n for n in schema.names if n.lower() in FRAME_NAMES]
            columns = file.read(columns=[*numbers, *texts])
        # Numbers become floats, with NaN for missing values.
        table = Table({n: np.asarray(columns[n].to_numpy(), float) for n in numbers} if numbers else None)
        for name in numbers:
            table[name].unit = (schema.field(name).metadata or {}).get(b"unit", b"").decode() or None
        for name in texts:
            table[name] = [str(value) for value in columns[name].to_pylist()]
        table.meta = {k.decode(): v.decode(errors="replace") for k, v in (schema.metadata or {}).items() if len(v) < 100}
        return table, schema.names
    kind = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".fits": "fits"}[path.suffix.lower()]
    table = Table.read(path, format=kind, **({"comment": "#"} if kind == "ascii.csv" else {}))
    names = table.colnames
    centroid = _find(path, table.colnames, "sky_centroid")
    if centroid is not None and hasattr(table[centroid], "icrs"):
        for axis in ("ra", "dec"):
            table[f"sky_centroid.{axis}"] = getattr(table[centroid].icrs, axis).deg
    return table, names


def _find(path: Path, names: list[str], wanted: str) -> str | None:
    """The column of a name, in any case; `None` if there is none."""
    found = [name for name in names if name.lower() == wanted]
    if len(found) > 1:
        raise RampflowError(f"{path}: has several columns {wanted} ({', '.join(found)}); keep one of them")
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
