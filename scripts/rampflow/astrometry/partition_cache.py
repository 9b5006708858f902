"""A folder with the columns of partitions that were read from the network, which all runs and users may share.

The environment variable `VARIABLE` names it; without it, nothing is kept. The name of a file depends on the address of the
partition, its state on the server and the columns, so that no file ever becomes wrong. Any may be removed at any time. Files
appear whole. When the folder has more than `SIZE_VARIABLE` gigabytes, those that were used longest ago are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing
from rampflow.step.logs import step_logger

log = step_logger("astrometric_catalog")

VARIABLE = "ASTROMETRIC_CATALOG_CACHE"
SIZE_VARIABLE = "ASTROMETRIC_CATALOG_CACHE_GB"
DEFAULT_GB = 20.0

_GROUP_ROWS = 65_536  #: of a file; the rows of a partition are sorted by place, so that a region needs few groups
_ABANDONED = 86_400  #: seconds after which what a killed run has left in the folder is removed


def cached_table(address: str, stamp: str, columns: Sequence[str], read: Callable, rows: object = None) -> Any:
    """Read rows of a table of the network, or of the file of the cache that has it.

    Parameters
    ----------
    address : str
        Address of the table.
    stamp : str
        Text that changes with its content.
    columns : sequence of str
        Names of its columns.
    read : callable
        Returns the table (`pyarrow.Table`).
    rows : pyarrow.dataset.Expression, optional
        Filter of the rows to return; by default all.

    Returns
    -------
    pyarrow.Table
        The rows of the table.
    """
    from pyarrow import ArrowException, parquet

    from rampflow.files.parquet import write_table

    folder = Path(os.path.expanduser(os.environ[VARIABLE]))
    key = hashlib.sha256("\0".join([address, stamp, *sorted(columns)]).encode()).hexdigest()[:32]
    path = folder / f"{key}.parquet"
    with contextlib.suppress(OSError, ArrowException):  # missing, just removed, or damaged by its disk
        # Without the checksums, most damage of a disk would be other positions.
        table = parquet.read_table(path, filters=rows, partitioning=None, page_checksum_verification=True)
        with contextlib.suppress(OSError):  # of another user, who doesn't allow it
            os.utime(path)
        log.info("%s: from the cache %s", address, folder)
        return table
    table = read()
    try:
        with replacing(path, shared=True) as partial:
            write_table(table, partial, row_group_size=_GROUP_ROWS, write_page_checksum=True)
            partial.chmod(0o664)
        remove_oldest(folder, float(os.environ.get(SIZE_VARIABLE) or DEFAULT_GB))
    except (RampflowError, OSError, ValueError) as error:
        log.warning("%s=%s: can't be used (%s); the catalog is read without it", VARIABLE, folder, error)
    return table if rows is None else table.filter(rows)


def is_used() -> bool:
    """Test whether there is a cache.

    Returns
    -------
    bool
        Whether the environment names one.
    """
    return bool(os.environ.get(VARIABLE))


def remove_oldest(folder: Path, gigabytes: float) -> None:
    """Remove files that were used longest ago until the folder is small enough, and what killed runs have left.

    Parameters
    ----------
    folder : pathlib.Path
        The cache.
    gigabytes : float
        Largest size, GB.
    """
    for partial in folder.glob(".rampflow-*"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > _ABANDONED:
                shutil.rmtree(partial, ignore_errors=True)
    found = []
    for path in folder.glob("*.parquet"):
        with contextlib.suppress(OSError):  # another run has removed it
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    size = sum(of_file for _, of_file, _ in found)
    for _, of_file, path in sorted(found):
        if size <= gigabytes * 1e9:
            return
        try:
            path.unlink()
        except FileNotFoundError:  # by another run
            pass
        except OSError:  # of another user, who doesn't allow it
            continue
        size -= of_file
