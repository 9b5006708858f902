"""Excerpts of HATS catalogs: the partitions of a region, with the columns that are read, as a catalog on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rampflow.astrometry.files import NAMES, quantity_of
from rampflow.astrometry.hats import INDEX, PROPERTIES, parse_properties, read_hats
from rampflow.astrometry.region import Region
from rampflow.astrometry.stores import ArrowStore, Store
from rampflow.files.atomic import replacing

if TYPE_CHECKING:
    import pyarrow


class _CopyingStore(ArrowStore):
    """A place of a catalog that keeps a copy of all that is read from it: of tables, the columns that may be needed.

    Parameters
    ----------
    store : rampflow.astrometry.stores.Store
        The place.
    folder : pathlib.Path
        Folder of the copies.
    """

    def __init__(self, store: Store, folder: Path):
        from pyarrow import fs

        super().__init__(fs.LocalFileSystem(), str(folder), store.address)
        self._store, self._folder = store, folder
        self._special: set[str] = set()
        self.partitions: set[str] = set()

    def read(self, name: str) -> bytes:
        content = self._store.read(name)
        with replacing(self._folder / name) as partial:
            partial.write_bytes(content)
        if name.rpartition("/")[2] in PROPERTIES:
            self._special |= set(parse_properties(content.decode(errors="replace")).values())
        return content

    def open(self, name: str) -> pyarrow.NativeFile:
        from pyarrow import parquet

        self.partitions.add(name)
        path = self._folder / name
        if not path.exists():
            with self._store.open(name) as file:
                known = parquet.read_schema(file).names
                columns = [column for column in known if self._is_needed(column)]
                file.seek(0)
                table = parquet.read_table(file, columns=columns, partitioning=None)
            with replacing(path) as partial:
                parquet.write_table(table, partial, row_group_size=65_536)
        return super().open(name)

    def _is_needed(self, column: str) -> bool:
        plain = column.lower()
        named = any(plain in candidates for candidates, _ in NAMES.values())
        return named or column == INDEX or column in self._special or quantity_of(column) is not None

    def stamp(self, name: str) -> str:
        return ""

    def files_in(self, folder: str) -> list[str]:
        return self._store.files_in(folder)


def write_excerpt(store: Store, region: Region, folder: Path) -> int:
    """Copy the partitions of a HATS catalog that lie in a region.

    Parameters
    ----------
    store : rampflow.astrometry.stores.Store
        Place of the catalog.
    region : Region
        The region.
    folder : pathlib.Path
        Where the excerpt is written, a HATS catalog itself. Its list of partitions has those that were not copied, too.
        Partitions that it has are not read again.

    Returns
    -------
    int
        Number of partitions of the region.

    Raises
    ------
    OSError, ValueError
        The catalog can't be read, see `rampflow.astrometry.hats.read_hats`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copying = _CopyingStore(store, folder)
    read_hats(copying, region)
    return len(copying.partitions)
