"""The source catalog that an exposure is aligned with: its positions, and the exposure that its metadata identify."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from rampflow import dq
from rampflow.errors import RampflowError
from rampflow.step.consistency import archive_names
from rampflow.step.exposure import Exposure

#: Error of a position for which the catalog has none, pixels: that of a star well above the background.
USUAL_ERROR = 0.01
#: Minimum error of a position, pixels. By photon noise alone a few bright stars would dominate, but the model of an
#: undersampled PSF is less accurate. On simulated frames a larger minimum doesn't reduce the scatter.
LEAST_ERROR = 0.005

#: Columns with the positions. These may be mixed, as in romancal: for each axis, the first name that exists.
MIXED = (("x", "y"), ("x_psf", "y_psf"))
#: In a catalog of given sources (a forced segmentation map), columns with this prefix were measured in the exposure's own
#: image; the others are positions in the image of the map.
FORCED = "forced_"
WHOLE = (("forced_x_psf", "forced_y_psf"), ("forced_x_centroid", "forced_y_centroid"), ("x_centroid", "y_centroid"))
FLAGS = "warning_flags"

#: Pixels. Entries of a catalog closer to each other are one source listed twice.
REPEATED_RADIUS = 0.5

#: Largest distance of a position of a catalog from the same source found on the image, pixels.
SAME_SOURCE_RADIUS = 2.0
#: Minimum number of shared sources, relative to the shorter of two catalogs of one image. Two catalogs of one image share most
#: of their bright sources; those of different images share one in a hundred by chance.
LEAST_SHARED = 0.25
#: Largest median offset of two catalogs of one image, pixels: methods of measurement differ by less; an origin at (1, 1) or
#: another dither differs by more.
LARGEST_MEDIAN_OFFSET = 0.25
#: Median offset beyond which a caveat is reported, pixels.
USUAL_MEDIAN_OFFSET = 0.1
#: Minimum number of sources to compare two catalogs.
MIN_TO_COMPARE = 5

#: Metadata that identify an exposure, in its image and in its catalog.
IDENTITY = (
    "instrument.detector",
    "instrument.optical_element",
    "observation.observation_id",
    "observation.exposure",
    "exposure.start_time",
)


@dataclasses.dataclass(frozen=True)
class SourcePositions:
    """Positions of the sources of one exposure.

    Attributes
    ----------
    x, y : numpy.ndarray
        Pixels.
    error : numpy.ndarray
        Standard deviation of a coordinate, pixels.
    """

    x: np.ndarray
    y: np.ndarray
    error: np.ndarray

    def __len__(self):
        return len(self.x)

    @property
    def positions(self) -> np.ndarray:
        """The positions of the sources.

        Returns
        -------
        numpy.ndarray
            Columns x and y, (n, 2), pixels.
        """
        return np.column_stack([self.x, self.y])

    def merged(self, radius: float = REPEATED_RADIUS) -> SourcePositions:
        """Merge entries within some distance of each other to one source.

        Two entries of one source would exclude each other from the matching, which uses no source with a close neighbor.

        Parameters
        ----------
        radius : float
            Distance, pixels.

        Returns
        -------
        SourcePositions
            The sources in the same order; the same object if nothing was merged. A merged source is at the mean of its entries,
            weighted by their errors, and has the smallest of these errors.
        """
        pairs = cKDTree(self.positions).query_pairs(radius, output_type="ndarray") if len(self) else np.empty((0, 2), int)
        if not len(pairs):
            return self
        graph = sparse.coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(self), len(self)))
        n_groups, group = sparse.csgraph.connected_components(graph, directed=False)
        weight = self.error**-2.0
        total = np.bincount(group, weight, n_groups)
        x, y = (np.bincount(group, weight * values, n_groups) / total for values in (self.x, self.y))
        error = np.full(n_groups, np.inf)
        np.minimum.at(error, group, self.error)
        _, first = np.unique(group, return_index=True)
        first = np.sort(first)
        chosen = group[first]
        alone = np.bincount(group, minlength=n_groups)[chosen] == 1
        x, y = (np.where(alone, own[first], mean[chosen]) for own, mean in ((self.x, x), (self.y, y)))
        return SourcePositions(x, y, error[chosen])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of a catalog with the sources that were found on an image.

    Attributes
    ----------
    n_given, n_found : int
        Number of positions of the catalog, and of sources found.
    n_shared : int
        Number of pairs, one of each, within `SAME_SOURCE_RADIUS`.
    offset : tuple of float
        Median of the catalog's positions minus those found, in x and y, pixels; NaN without pairs.
    offset_error : float
        Standard error of the offset, pixels.
    """

    n_given: int
    n_found: int
    n_shared: int
    offset: tuple[float, float]
    offset_error: float

    @property
    def conclusive(self) -> bool:
        """Whether there are enough sources to compare.

        Returns
        -------
        bool
            Whether both catalogs have at least `MIN_TO_COMPARE` sources.
        """
        return min(self.n_given, self.n_found) >= MIN_TO_COMPARE

    def contradiction(self) -> str:
        """Describe how the catalog contradicts the image.

        Returns
        -------
        str
            The contradiction with numbers; empty if there is none, or if there are too few sources to compare.
        """
        if not self.conclusive:
            return ""
        if self.n_shared < LEAST_SHARED * min(self.n_given, self.n_found):
            return (
                f"{self.n_shared} of its {self.n_given} positions lie within {SAME_SOURCE_RADIUS:g} pixels of the "
                f"{self.n_found} sources found on this image"
            )
        if self._is_offset(LARGEST_MEDIAN_OFFSET):
            return f"{self.described()}; the center of the first pixel is (0, 0)"
        return ""

    def caveat(self) -> str:
        """Describe an offset that is larger than usual but no contradiction.

        Returns
        -------
        str
            The offset with numbers; empty if it is not larger than usual.
        """
        return self.described() if self._is_offset(USUAL_MEDIAN_OFFSET) else ""

    def described(self) -> str:
        """Describe the offset.

        Returns
        -------
        str
            The offset with numbers.
        """
        return (
            f"its positions are off by ({self.offset[0]:.2f}, {self.offset[1]:.2f}) pixels in the median of {self.n_shared} "
            "sources found on this image"
        )

    def _is_offset(self, limit: float) -> bool:
        return self.n_shared >= MIN_TO_COMPARE and bool(np.hypot(*self.offset) > limit + 5 * self.offset_error)


def compare(given: SourcePositions, found: SourcePositions) -> Comparison:
    """Compare the positions of a catalog with the sources that were found on an image.

    Parameters
    ----------
    given, found : SourcePositions
        Sources of the catalog, and those found on the image.

    Returns
    -------
    Comparison
        The comparison.
    """
    nothing = Comparison(len(given), len(found), 0, (np.nan, np.nan), np.nan)
    if not len(given) or not len(found):
        return nothing
    there = cKDTree(found.positions)
    distance, index = there.query(given.positions, distance_upper_bound=SAME_SOURCE_RADIUS)
    near = np.flatnonzero(np.isfinite(distance))
    _, back = cKDTree(given.positions).query(found.positions[index[near]])
    near = near[back == near]
    if not len(near):
        return nothing
    offsets = given.positions[near] - found.positions[index[near]]
    median = np.median(offsets, axis=0)
    # Of a normal distribution, the median absolute deviation is 0.67 σ and the median's standard error 1.25 σ/√n.
    scatter = np.median(np.abs(offsets - median), axis=0).max() / 0.6745
    return Comparison(
        len(given), len(found), len(near), (float(median[0]), float(median[1])), float(1.2533 * scatter / np.sqrt(len(near)))
    )


@dataclasses.dataclass(frozen=True)
class SourceCatalog:
    """A source catalog as read from a file.

    Attributes
    ----------
    path : pathlib.Path
        File of the catalog.
    columns : dict of numpy.ndarray
        Columns that the alignment uses, (n_rows,) each.
    n_rows : int
        Number of rows.
    identity : dict of str
        Metadata that identify the exposure, as far as the catalog has them: the names of `IDENTITY`, and ``filename``.
    """

    path: Path
    columns: dict[str, np.ndarray]
    n_rows: int
    identity: dict[str, str]

    def positions(self) -> tuple[str, str] | None:
        """Choose the columns with the positions.

        Returns
        -------
        (str, str) or None
            Names of the columns with x and y; `None` if there are none.
        """
        x, y = (next((pair[axis] for pair in MIXED if pair[axis] in self.columns), None) for axis in (0, 1))
        if x is not None and y is not None:
            return x, y
        forced = any(name.startswith(FORCED) for name in self.columns)
        return next(
            (pair for pair in WHOLE if set(pair) <= set(self.columns) and (pair[0].startswith(FORCED) or not forced)), None
        )

    def sources(self) -> SourcePositions:
        """Extract the positions.

        Sources whose core is flagged DO_NOT_USE (``warning_flags``) and those without a finite position are left out.

        Returns
        -------
        SourcePositions
            Positions and errors, pixels.

        Raises
        ------
        RampflowError
            The catalog has rows but no columns of positions.
        """
        names = self.positions()
        if names is None and not self.n_rows:
            return SourcePositions(np.empty(0), np.empty(0), np.empty(0))
        if names is None:
            raise RampflowError(
                f"{self.path}: has no columns x (or x_psf) and y (or y_psf), nor those of a source catalog; it has "
                f"{', '.join(self.columns) or 'none of them'}"
            )
        x, y = (self.columns[name] for name in names)
        error = np.full(x.shape, USUAL_ERROR)
        x_error, y_error = (self.columns.get(f"{name}_err") for name in names)
        if x_error is not None and y_error is not None:
            measured = np.sqrt((x_error**2 + y_error**2) / 2)
            known = np.isfinite(measured) & (measured > 0)
            error[known] = np.hypot(measured[known], LEAST_ERROR)
        good = np.isfinite(x) & np.isfinite(y)
        flags = self.columns.get((FORCED if names[0].startswith(FORCED) else "") + FLAGS)
        if flags is not None:
            good &= ~dq.has(np.nan_to_num(flags).astype(np.int64).astype(np.uint32), dq.DO_NOT_USE)
        return SourcePositions(x[good], y[good], error[good])

    def other_exposure(self, image: Exposure, stem: str) -> str:
        """Compare the metadata of the catalog with those of an image.

        Parameters
        ----------
        image : Exposure
            The image.
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Metadata that name another exposure than the image's; empty if there are none.
        """
        differences = []
        for name in IDENTITY:
            ours, theirs = _text(_field(image.meta, name)), self.identity.get(name, "")
            if ours and theirs and not _same(ours, theirs):
                differences.append(f"{name} {theirs}, not {ours}")
        own = {name for text in (stem, str(image.meta.get("filename", ""))) for name in archive_names(f"{text}_")}
        named = archive_names(self.identity.get("filename", ""))
        if own and named and not own & named:
            differences.insert(0, f"it is of {', '.join(sorted(named))}")
        return "; ".join(differences)


def read_source_catalog(path: Path) -> SourceCatalog:
    """Read the source catalog of an exposure; its content decides the format, not its name.

    Parameters
    ----------
    path : pathlib.Path
        A parquet file, an ECSV file, or another table that astropy can read (FITS, CSV, ...).

    Returns
    -------
    SourceCatalog
        The catalog.

    Raises
    ------
    RampflowError
        The file can't be read.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise RampflowError(f"{path}: can't be opened ({error.strerror})") from None
    if start.startswith(b"#ASDF"):
        raise RampflowError(f"{path}: is an ASDF file; save the catalog as parquet or ECSV")
    return _read_parquet(path) if start.startswith(b"PAR1") or path.suffix == ".parquet" else _read_table(path, start)


def read_sources(path: Path) -> SourcePositions:
    """Read the positions of a source catalog.

    Parameters
    ----------
    path : pathlib.Path
        File of the catalog, see `read_source_catalog`.

    Returns
    -------
    SourcePositions
        Positions and errors, pixels.

    Raises
    ------
    RampflowError
        The file can't be read or has no columns of positions.
    """
    return read_source_catalog(path).sources()


def _is_used(name: str) -> bool:
    plain = name.removesuffix("_err")
    return plain in {n for pair in (*MIXED, *WHOLE) for n in pair} or name in (FLAGS, FORCED + FLAGS)


def _read_parquet(path: Path) -> SourceCatalog:
    from rampflow.files.parquet import ParquetFile, pyarrow

    try:
        file = ParquetFile(path)
        schema = file.schema_arrow
        table = file.read(columns=[name for name in schema.names if _is_used(name)])
        columns = {name: np.asarray(table[name].to_numpy(zero_copy_only=False), float) for name in table.column_names}
    except (OSError, ValueError, TypeError, pyarrow.ArrowException) as error:
        raise RampflowError(f"{path}: can't be read as a parquet file ({error}); make it again") from None
    meta = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in (schema.metadata or {}).items()}
    return SourceCatalog(path, columns, table.num_rows if columns else file.metadata.num_rows, _identity(meta))


def _read_table(path: Path, start: bytes) -> SourceCatalog:
    from astropy.table import Table

    try:
        # As in romancal, whose catalog_format is ECSV regardless of the suffix.
        table = Table.read(path, format="ascii.ecsv" if start.startswith(b"# %ECSV") else None)
        columns = {
            name: np.ma.filled(np.ma.asarray(table[name]).astype(float), np.nan) for name in table.colnames if _is_used(name)
        }
    except Exception as error:  # readers of other formats raise all kinds
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise RampflowError(f"{path}: can't be read as a table ({reason}); give parquet or ECSV") from None
    return SourceCatalog(path, columns, len(table), _identity(_flat(table.meta)))


def _flat(tree: dict, path: str = "") -> dict[str, str]:
    """The values of a tree as text, by their dotted names."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{path}.{key}" if path else str(key)
        flat |= _flat(value, name) if isinstance(value, dict) else {name: str(value)}
    return flat


def _identity(meta: dict[str, str]) -> dict[str, str]:
    """The metadata of a catalog that identify its exposure: below ``roman.meta`` (parquet), ``meta`` or at the top."""
    found: dict[str, str] = {}
    for name in (*IDENTITY, "image.filename", "filename"):
        for prefix in ("roman.meta.", "meta.", ""):
            if prefix + name in meta:
                found.setdefault("filename" if name.endswith("filename") else name, meta[prefix + name])
    return found


def _field(meta: dict, name: str) -> Any:
    value: Any = meta
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _text(value) -> str:
    """A value of an image's metadata as a catalog writes it; a tagged time may be a mapping."""
    value = value.get("value", "") if isinstance(value, dict) else value
    return "" if value is None else str(value)


def _same(one: str, other: str) -> bool:
    """Whether two texts are equal, as words in any case or as times to the second."""
    try:
        times = [datetime.datetime.fromisoformat(text).replace(tzinfo=None) for text in (one, other)]
    except ValueError:
        return one.strip().lower() == other.strip().lower()
    return abs((times[0] - times[1]).total_seconds()) < 1
