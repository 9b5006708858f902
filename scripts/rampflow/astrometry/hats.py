"""Stars from a HATS catalog, in a folder or on S3. Only the partitions and rows in the region are read.

HATS divides the sky into HEALPix pixels of different orders, with a parquet file for each; ``partition_info.csv`` lists them.
The column ``_healpix_29`` has the order-29 pixel (nested) of each row, and the rows are sorted by it
(https://hats.readthedocs.io).
"""

from __future__ import annotations

import functools
import math
import operator

import numpy as np

from rampflow.astrometry.region import Region

ORDER = 29  #: of the pixels in the column `INDEX`
INDEX = "_healpix_29"
INFO = "partition_info.csv"
GAIA_DR3 = "stpubdata/gaia/gaia_dr3/public/hats/gaia"  #: bucket and prefix
GAIA_DR3_S3_REGION = "us-east-1"

#: Columns that are read: name in this package, and name in the catalog.
NAMES = {
    "ra": "ra",
    "dec": "dec",
    "mag": "phot_g_mean_mag",
    "pmra": "pmra",
    "pmdec": "pmdec",
    "parallax": "parallax",
    "ref_epoch": "ref_epoch",
    "ra_error": "ra_error",
    "dec_error": "dec_error",
    "pmra_error": "pmra_error",
    "pmdec_error": "pmdec_error",
}

#: Maximum number of ranges in the filter of the rows: more would take longer than reading a few extra rows.
_MOST_RANGES = 64


def read_hats(filesystem, root: str, region: Region) -> dict[str, np.ndarray]:
    """Read the stars of a HATS catalog that lie in a region.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem
        File system of the catalog.
    root : str
        Folder of the catalog in the file system.
    region : Region
        The region.

    Returns
    -------
    dict of numpy.ndarray
        The columns of `NAMES` that the catalog has, (n,) each: degrees, mas, Julian years; NaN where null.

    Raises
    ------
    OSError
        The catalog, or a file of it, doesn't exist or can't be read.
    ValueError
        The catalog is not a valid HATS catalog.
    """
    import pyarrow.csv
    import pyarrow.dataset

    with filesystem.open_input_stream(f"{root}/{INFO}") as stream:
        info = pyarrow.csv.read_csv(stream)
    if not {"Norder", "Npix"} <= set(info.column_names):
        raise ValueError(f"its {INFO} has no columns Norder and Npix")
    ranges = covering_ranges(region)
    paths = [
        f"{root}/dataset/Norder={order}/Dir={pixel // 10000 * 10000}/Npix={pixel}.parquet"
        for order, pixel in overlapping(info["Norder"].to_numpy(), info["Npix"].to_numpy(), ranges)
    ]
    if not paths:
        return {"ra": np.empty(0), "dec": np.empty(0)}
    # Without `partitioning=None` the names of the folders, as Norder, would be read as columns.
    dataset = pyarrow.dataset.dataset(paths, format="parquet", filesystem=filesystem, partitioning=None)
    columns = {name: column for name, column in NAMES.items() if column in dataset.schema.names}
    if missing := {INDEX, "ra", "dec"} - set(dataset.schema.names):
        raise ValueError(f"its partitions have no column {' and '.join(sorted(missing))}")
    index = pyarrow.dataset.field(INDEX)
    rows = functools.reduce(operator.or_, [(index >= int(start)) & (index < int(stop)) for start, stop in ranges])
    table = dataset.to_table(columns=list(columns.values()), filter=rows)
    stars = {name: np.asarray(table[column].to_numpy(), float) for name, column in columns.items()}
    inside = region.contains(stars["ra"], stars["dec"])
    return {name: values[inside] for name, values in stars.items()}


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
