"""A folder with the columns of partitions that were read from the network, which all runs and users may share.

The environment variable `VARIABLE` names it; without it, nothing is kept. The name of a file depends on the address of the
partition, its state on the server and the columns, so that no file ever becomes wrong. Any may be removed at any time. Files
appear whole. When the folder has more than `SIZE_VARIABLE` gigabytes, those that were used longest ago are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing
from rampflow.step.logs import step_logger

log = step_logger("astrometric_catalog")

VARIABLE = "ASTROMETRIC_CATALOG_CACHE"
SIZE_VARIABLE = "ASTROMETRIC_CATALOG_CACHE_GB"
DEFAULT_GB = 20.0


def cached_table(address: str, stamp: str, columns: Sequence[str], read: Callable):
    """Read a table of the network, or the file of the cache that has it.

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

    Returns
    -------
    pyarrow.Table
        The table.
    """
    from pyarrow import ArrowException, parquet

    from rampflow.files.parquet import write_table

    folder = Path(os.path.expanduser(os.environ[VARIABLE]))
    key = hashlib.sha256("\0".join([address, stamp, *sorted(columns)]).encode()).hexdigest()[:32]
    path = folder / f"{key}.parquet"
    with contextlib.suppress(OSError, ArrowException):  # missing, just removed, or damaged by its disk
        table = parquet.read_table(path, partitioning=None)
        with contextlib.suppress(OSError):  # of another user, who doesn't allow it
            os.utime(path)
        log.info("%s: from the cache %s", address, folder)
        return table
    table = read()
    try:
        with replacing(path, shared=True) as partial:
            write_table(table, partial)
            partial.chmod(0o664)
        remove_oldest(folder, float(os.environ.get(SIZE_VARIABLE) or DEFAULT_GB))
    except (RampflowError, OSError, ValueError) as error:
        log.warning("%s=%s: can't be used (%s); the catalog is read without it", VARIABLE, folder, error)
    return table


def is_used() -> bool:
    """Test whether there is a cache.

    Returns
    -------
    bool
        Whether the environment names one.
    """
    return bool(os.environ.get(VARIABLE))


def remove_oldest(folder: Path, gigabytes: float) -> None:
    """Remove files that were used longest ago until the folder is small enough.

    Parameters
    ----------
    folder : pathlib.Path
        The cache.
    gigabytes : float
        Largest size, GB.
    """
    found = []
    for path in folder.glob("*.parquet"):
        with contextlib.suppress(OSError):  # another run has removed it
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    size = sum(of_file for _, of_file, _ in found)
    for _, of_file, path in sorted(found):
        if size <= gigabytes * 1e9:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        size -= of_file
