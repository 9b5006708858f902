"""Stars from a HATS catalog: a folder, a bucket of S3 or a web server. Only the partitions in the region are read.

HATS divides the sky into HEALPix pixels of different orders, with a parquet file or a folder of such files for each;
``partition_info.csv`` lists them. A properties file names the columns with the positions and with the pixel of each row
(nested, of a high order), by which the rows are sorted. A collection is a folder of such catalogs, of which one is the primary
(https://www.ivoa.net/documents/Notes/HATS, https://hats.readthedocs.io).
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rampflow.astrometry import partition_cache
from rampflow.astrometry.files import NAMES, quantity_of
from rampflow.astrometry.region import Region
from rampflow.astrometry.stores import Store
from rampflow.remote.addresses import is_remote
from rampflow.step.logs import step_logger

ORDER = 29  #: of the pixels in the column `INDEX`
INDEX = "_healpix_29"
INFO = "partition_info.csv"
COLLECTION = "collection.properties"
PROPERTIES = ("hats.properties", "properties")
TABLE = ".parquet"  #: end of the names of files in a partition that is a folder
GAIA_DR3 = "stpubdata/gaia/gaia_dr3/public/hats/gaia"  #: bucket and prefix
#: Kinds of tables with positions; other kinds (margin, association, index, map) are parts of a collection.
KINDS = ("object", "source")
FRAMES = ("equatorial", "icrs")

#: Maximum number of ranges in the filter of the rows: more would take longer than reading a few extra rows.
_MOST_RANGES = 64

log = step_logger("astrometric_catalog")


class DamagedFile(ValueError):
    """A file of a catalog whose content is no table, or not that of such a file; the message names it."""


class Description(NamedTuple):
    """What a catalog says of itself.

    Attributes
    ----------
    title : str
        Name of the catalog.
    version : str
        Its version or date; empty if unknown.
    epoch : float or None
        Epoch of its positions, Julian year; `None` if unknown.
    """

    title: str
    version: str = ""
    epoch: float | None = None


def find_catalog(names: list[str]) -> str | None:
    """Find the file by which a folder is known for a HATS catalog or collection.

    Parameters
    ----------
    names : list of str
        Names of the files in the folder.

    Returns
    -------
    str or None
        Name of the file; `None` if there is none.
    """
    return next((name for name in (COLLECTION, INFO, *PROPERTIES) if name in names), None)


def parse_properties(text: str) -> dict[str, str]:
    """Parse a properties file: ``key = value`` in each line.

    Parameters
    ----------
    text : str
        Content of the file.

    Returns
    -------
    dict of str
        The values by key.
    """
    lines = (line.strip() for line in text.splitlines())
    pairs = (re.split(r"\s*[=:]\s*", line, maxsplit=1) for line in lines if line and line[0] not in "#!")
    # Java escapes the separators in values.
    return {pair[0]: re.sub(r"\\([=:#! ])", r"\1", pair[1]) if len(pair) > 1 else "" for pair in pairs}


def read_hats(store: Store, region: Region) -> tuple[dict[str, np.ndarray], Description]:
    """Read the stars of a HATS catalog that lie in a region.

    Parameters
    ----------
    store : Store
        Place of the catalog or of the collection.
    region : Region
        The region.

    Returns
    -------
    stars : dict of numpy.ndarray
        The columns of `rampflow.astrometry.files.NAMES` that the catalog has, (n,) each: degrees, mas, Julian years; NaN where
        null. The epoch is that of the properties (``hats_coordinate_epoch``) if there is no column for it.
    description : Description
        What the catalog says of itself.

    Raises
    ------
    OSError
        The catalog, or a file of it, doesn't exist or can't be read.
    ValueError
        The catalog is not a valid HATS catalog, or not one of stars; `DamagedFile` if a file of it is damaged.
    """
    from pyarrow import parquet

    folder, properties = _open_catalog(store)
    description = _describe(store, properties)
    ranges = covering_ranges(region)
    suffix = properties.get("hats_npix_suffix", ".parquet")
    orders, pixels = _partitions(store, folder, suffix)
    wanted_partitions = overlapping(orders, pixels, ranges)
    if not wanted_partitions:
        return {"ra": np.empty(0), "dec": np.empty(0)}, description
    names = [name for order, pixel in wanted_partitions for name in _files_of(store, folder, order, pixel, suffix)]
    with _named(store, names[0]), store.open(names[0]) as file:
        metadata = parquet.read_metadata(file)
    columns, index = _columns(metadata.schema.to_arrow_schema().names, properties, names[0])
    shift = 2 * (ORDER - _order_of(index, properties)) if index else 0
    if index:
        _check_index(f"{store.address}/{names[0]}", metadata, index, shift, wanted_partitions[0])
    rows = _filter(index, ranges >> shift, ranges[:, 1] + (1 << shift) - 1 >> shift) if index else None
    wanted = list(dict.fromkeys([*columns.values(), *([index] if index else [])]))
    tables = [_read_rows(store, name, wanted, rows) for name in names]
    stars = {
        name: np.concatenate([_numbers(store, file, table[column]) for file, table in zip(names, tables, strict=True)])
        for name, column in columns.items()
    }
    inside = region.contains(stars["ra"], stars["dec"])
    stars = {name: values[inside] for name, values in stars.items()}
    if "ref_epoch" not in stars and description.epoch is not None:
        stars["ref_epoch"] = np.full(int(inside.sum()), description.epoch)
    if description.epoch is None and np.isfinite(stars.get("ref_epoch", np.nan)).any():
        description = description._replace(epoch=float(np.nanmedian(stars["ref_epoch"])))
    return stars, description


def _read_optional(store: Store, name: str) -> str | None:
    """The content of a file; `None` if there is none."""
    try:
        return store.read(name).decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        if "ACCESS_DENIED" in str(error):  # what S3 says of a missing file in a bucket that may not be listed
            return None
        raise


def _open_catalog(store: Store) -> tuple[str, dict[str, str]]:
    """The folder of the primary catalog in the place, with a slash at its end if it is not empty, and its properties."""
    folder = ""
    collection = _read_optional(store, COLLECTION)
    if collection is not None:
        primary = parse_properties(collection).get("hats_primary_table_url", "").strip("/")
        if not primary or is_remote(primary) or ".." in primary.split("/"):
            raise ValueError(
                f"its {COLLECTION} has hats_primary_table_url={primary or 'nothing'}; it must name a folder below it"
            )
        folder = f"{primary}/"
    texts = (_read_optional(store, f"{folder}{name}") for name in PROPERTIES)
    properties = parse_properties(next((text for text in texts if text is not None), ""))
    kind = properties.get("dataproduct_type", KINDS[0])
    if kind not in KINDS:
        raise ValueError(f"it is a table of the kind {kind} (dataproduct_type); give the catalog of objects, or its collection")
    frame = properties.get("hats_frame", FRAMES[0])
    if frame.lower() not in FRAMES:
        raise ValueError(f"its positions are {frame} (hats_frame); they must be ICRS")
    return folder, properties


def _describe(store: Store, properties: dict[str, str]) -> Description:
    """What the properties say of a catalog."""
    title = properties.get("obs_collection") or store.address.rpartition("/")[2]
    created, count = properties.get("hats_creation_date"), properties.get("hats_nrows")
    version = ", ".join(filter(None, [created and f"HATS of {created}", count and f"{count} rows"]))
    year = re.fullmatch(r"[JB]?(\d{4}(?:\.\d*)?)", properties.get("hats_coordinate_epoch", "").strip())
    return Description(title, version, float(year[1]) if year else None)


def _files_of(store: Store, folder: str, order: int, pixel: int, suffix: str) -> list[str]:
    """The files of a partition. Of a folder, files of other kinds beside the tables, as checksums, are left out."""
    name = f"{folder}dataset/Norder={order}/Dir={pixel // 10000 * 10000}/Npix={pixel}{suffix.rstrip('/')}"
    if not suffix.endswith("/"):
        return [name]
    found = store.files_in(name)
    if not found:
        raise FileNotFoundError(f"{store.address}/{name}: this partition has no files")
    tables = [file for file in found if file.endswith(TABLE)]
    if tables and len(tables) < len(found):  # it may be a table under the name of a transfer that ended early
        others = [file for file in found if file not in tables]
        log.warning("%s/%s: is not read: its name does not end in %s", store.address, others[0], TABLE)
    return tables or found


def _existing_partitions(store: Store, folder: str, suffix: str) -> set[tuple[int, int]]:
    """Order and number of all partitions, by the names of their files. Files of other names beside them are left out."""
    pattern = re.compile(rf"/Norder=(\d+)/.*Npix=(\d+){re.escape(suffix)}{'' if suffix.endswith('/') else '$'}")
    found = (pattern.search(name) for name in store.files_in(f"{folder}dataset"))
    return {(int(match[1]), int(match[2])) for match in found if match}


def _partitions(store: Store, folder: str, suffix: str) -> tuple[np.ndarray, np.ndarray]:
    """Order and number of all partitions, by their list, or by the names of their files if there is none."""
    import pyarrow.csv

    try:
        text = store.read(f"{folder}{INFO}")
    except FileNotFoundError:
        found = _existing_partitions(store, folder, suffix)
        if not found:
            raise
        orders, pixels = np.array(sorted(found), int).T
        return orders, pixels
    with _named(store, f"{folder}{INFO}"):
        info = pyarrow.csv.read_csv(pyarrow.BufferReader(text))
    if not {"Norder", "Npix"} <= set(info.column_names):
        raise ValueError(f"its {INFO} has no columns Norder and Npix")
    try:
        orders, pixels = (info[name].cast("int64").to_numpy(zero_copy_only=False) for name in ("Norder", "Npix"))
        valid = bool(((0 <= orders) & (orders <= ORDER) & (0 <= pixels) & (pixels < 12 << 2 * orders)).all())
    except (ValueError, TypeError):
        valid = False
    if not valid or info["Norder"].null_count + info["Npix"].null_count:
        raise DamagedFile(f"its {INFO} is damaged: Norder and Npix of a line are no pixel of HEALPix; get the file again")
    if len(np.unique(np.stack([orders, pixels]), axis=1).T) < len(orders):
        raise DamagedFile(f"its {INFO} is damaged: it has a partition twice; get the file again")
    if not text.endswith((b"\n", b"\r")):
        _check_last(store, folder, int(orders[-1]), int(pixels[-1]), suffix)
    if not is_remote(store.address):
        unlisted = _existing_partitions(store, folder, suffix) - set(zip(orders.tolist(), pixels.tolist(), strict=True))
        if unlisted:
            order, pixel = min(unlisted)
            raise DamagedFile(
                f"its {INFO} has no line for Norder={order}, Npix={pixel}, a partition below dataset; get the file again"
            )
    return orders, pixels


def _check_last(store: Store, folder: str, order: int, pixel: int, suffix: str) -> None:
    """Refuse a list whose last line has no end if it names no partition: it was cut in this line."""
    try:
        for name in _files_of(store, folder, order, pixel, suffix):
            store.open(name).close()
    except FileNotFoundError:
        raise DamagedFile(
            f"its {INFO} is cut: the last line has no end, and names no partition (Norder={order}, Npix={pixel}); get the file "
            "again"
        ) from None


def _columns(known: list[str], properties: dict[str, str], file: str) -> tuple[dict[str, str], str | None]:
    """Names in a partition of the columns to read, and of the one with the pixels; `None` if it has none."""
    lower: dict[str, str] = {}
    for name in known:
        lower.setdefault(name.lower(), name)
    columns = {name: lower[c] for name, (candidates, _) in NAMES.items() for c in candidates[::-1] if c in lower}
    for axis in ("ra", "dec"):
        if given := properties.get(f"hats_col_{axis}"):
            columns[axis] = given if given in known else lower.get(given.lower(), given)
    index: str | None = properties.get("hats_col_healpix") or INDEX
    missing = {columns.get(axis, axis) for axis in ("ra", "dec")} - set(known)
    if index not in known:
        missing |= set() if properties else {INDEX}
        index = None
    if missing:
        raise ValueError(f"{file}: has no column {' and '.join(sorted(missing))}, as the partitions must have")
    others = {quantity_of(name): name for name in known if name not in columns.values()}
    if lost := [f"{others[name]} for {name}" for name in ("pmra", "pmdec") if name in others and name not in columns]:
        raise ValueError(
            f"its proper motions have other names ({', '.join(lost)}); they must be pmra, with the factor cos dec, and pmdec"
        )
    return columns, index


def _order_of(index: str, properties: dict[str, str]) -> int:
    """HEALPix order of the column with the pixels: by the properties, or else by the digits at the end of its name."""
    text = properties.get("hats_col_healpix_order") or next(iter(re.findall(r"(?i)healpix_?(\d+)$", index)), str(ORDER))
    if not (text.isdecimal() and int(text) <= ORDER):
        raise ValueError(f"the order of its pixels (hats_col_healpix_order) is {text}; it must be a number from 0 to {ORDER}")
    return int(text)


def _check_index(name: str, metadata, index: str, shift: int, partition: tuple[int, int]) -> None:
    """Refuse a catalog whose column of pixels has another order: its filter would leave out all stars.

    Parameters
    ----------
    name : str
        Name of a file for users.
    metadata : pyarrow.parquet.FileMetaData
        Its metadata, with the limits of the column.
    index : str
        Name of the column.
    shift : int
        Bits by which its pixels are larger than those of `ORDER`.
    partition : tuple of int
        Order and number of the pixel of the partition that the file belongs to.

    Raises
    ------
    ValueError
        The pixels lie outside the partition.
    """
    order, pixel = partition
    start, stop = (number << 2 * (ORDER - order) for number in (pixel, pixel + 1))
    number = next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == index)  # nested ones count, too
    for group in range(metadata.num_row_groups):
        limits = metadata.row_group(group).column(number).statistics
        if limits is None or not limits.has_min_max:
            continue
        if int(limits.max) + 1 << shift <= start or int(limits.min) << shift >= stop:
            raise ValueError(
                f"{name}: its column {index} has the pixels {limits.min} to {limits.max}, which lie outside its partition "
                f"(Norder={order}, Npix={pixel}): the order of the pixels (hats_col_healpix_order, or the end of the column's "
                f"name) is not {ORDER - shift // 2}"
            )


def _filter(index: str, starts: np.ndarray, stops: np.ndarray):
    """The filter of the rows whose pixels are in some ranges."""
    import pyarrow.dataset

    field = pyarrow.dataset.field(index)
    parts = [(field >= int(start)) & (field < int(stop)) for start, stop in zip(starts[:, 0], stops, strict=True)]
    return functools.reduce(operator.or_, parts)


def _read_rows(store: Store, name: str, columns: list[str], rows):
    """Rows of a partition, by way of the cache if there is one."""
    from pyarrow import parquet

    def _read(filters=None):
        with store.open(name) as file:
            # Without `partitioning=None` the names of the folders, as Norder, would be read as columns.
            return parquet.read_table(file, columns=columns, filters=filters, partitioning=None)

    stamp = store.stamp(name) if is_remote(store.address) and partition_cache.is_used() else ""
    with _named(store, name):
        return partition_cache.cached_table(f"{store.address}/{name}", stamp, columns, _read, rows) if stamp else _read(rows)


@contextlib.contextmanager
def _named(store: Store, name: str) -> Iterator[None]:
    """Name the file in an error of pyarrow, which doesn't."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, KeyError, OSError) as error:
        # pyarrow raises OSError itself, and no class of it, for content that it can't decode, and for failures of S3.
        if isinstance(error, OSError) and (type(error) is not OSError or "AWS Error" in str(error)):
            raise
        raise DamagedFile(f"{store.address}/{name}: is damaged ({error}); get the file again") from None


def _numbers(store: Store, name: str, column) -> np.ndarray:
    """A column of a partition as float64; NaN where null."""
    try:
        return column.to_numpy(zero_copy_only=False).astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{store.address}/{name}: has no numbers where they should be ({error})") from None


def covering_ranges(region: Region) -> np.ndarray:
    """Find ranges of order-29 pixels that cover a region, and a little more.

    Parameters
    ----------
    region : Region
        At least one circle.

    Returns
    -------
    numpy.ndarray
        First pixel, and the one after the last, of each range, (n, 2), int64; in order, without overlap.
    """
    from astropy import units
    from astropy_healpix import HEALPix

    parts = []
    for circle in region.circles:
        # Pixels of half the radius cover a circle with little excess; they are 58.6 degrees / 2^order wide.
        order = min(max(math.ceil(math.log2(58.6 / max(circle.radius / 2, 1e-6))), 0), ORDER)
        grid = HEALPix(2**order, order="nested")
        pixels = np.sort(grid.cone_search_lonlat(circle.ra * units.deg, circle.dec * units.deg, circle.radius * units.deg))
        shift = 2 * (ORDER - order)
        parts.append(np.stack([pixels << shift, (pixels + 1) << shift], axis=1))
    ranges = np.concatenate(parts)
    starts, stops = ranges[np.argsort(ranges[:, 0])].T
    stops = np.maximum.accumulate(stops)
    gaps = starts[1:] - stops[:-1]
    widest = np.sort(np.argsort(gaps)[-(_MOST_RANGES - 1) :])
    breaks = widest[gaps[widest] > 0]
    return np.stack([starts[np.r_[0, breaks + 1]], stops[np.r_[breaks, -1]]], axis=1)


def overlapping(orders: np.ndarray, pixels: np.ndarray, ranges: np.ndarray) -> list[tuple[int, int]]:
    """Find the HEALPix pixels that overlap ranges of order-29 pixels.

    Parameters
    ----------
    orders, pixels : numpy.ndarray
        Order and number (nested) of each pixel, (n,), int.
    ranges : numpy.ndarray
        Ranges, (m, 2), see `covering_ranges`.

    Returns
    -------
    list of (int, int)
        Order and number of the pixels that overlap.
    """
    orders, pixels = orders.astype(np.int64), pixels.astype(np.int64)
    shift = 2 * (ORDER - orders)
    starts, stops = pixels << shift, (pixels + 1) << shift
    # A pixel overlaps if the first range that ends after its start begins before its end.
    first = np.searchsorted(ranges[:, 1], starts, side="right")
    hit = (first < len(ranges)) & (ranges[np.minimum(first, len(ranges) - 1), 0] < stops)
    return [(int(k), int(n)) for k, n in zip(orders[hit], pixels[hit], strict=True)]
