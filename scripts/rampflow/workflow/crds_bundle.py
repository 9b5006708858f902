"""A CRDS cache with what one run needs, for machines without a network."""

from __future__ import annotations

import pprint
import shutil
from collections.abc import Iterable
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing
from rampflow.workflow import references

INSTRUMENT_FOLDER = "wfi"  #: of the references, as CRDS names it


def copy_file(source: Path, target: Path) -> bool:
    """Copy a file, which appears whole, unless it is there.

    Parameters
    ----------
    source, target : pathlib.Path
        The file and its copy.

    Returns
    -------
    bool
        Whether it was copied. A copy of the same size and time is left alone.

    Raises
    ------
    RampflowError
        The file can't be read, or the copy can't be written.
    """
    try:
        status = source.stat()
        if target.is_file():
            known = target.stat()
            if (known.st_size, known.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
                return False
        with replacing(target) as partial:
            shutil.copyfile(source, partial)
            shutil.copystat(source, partial)
    except OSError as error:
        raise RampflowError(f"{source}: can't be copied to {target} ({error.strerror or error})") from None
    return True


def copy_cache(context: str, names: Iterable[str], folder: Path) -> int:
    """Make a CRDS cache with the rules of a context and some references, from the user's cache.

    References that the user's cache lacks are fetched into it first.

    Parameters
    ----------
    context : str
        Name of the CRDS context.
    names : iterable of str
        File names of the references.
    folder : pathlib.Path
        The new cache, in CRDS's layout with a folder for each instrument. It has no server: CRDS reads it with
        CRDS_SERVER_URL=https://crds-serverless-mode.stsci.edu.

    Returns
    -------
    int
        Number of references.

    Raises
    ------
    RampflowError
        A reference can't be fetched or copied.
    """
    for name in references.mapping_names(context):
        copy_file(references.fetch(name, context), folder / "mappings" / references.OBSERVATORY / name)
    found = sorted(set(names))
    for name in found:
        path = references.fetch(name, context)
        copy_file(path, folder / "references" / references.OBSERVATORY / INSTRUMENT_FOLDER / name)
    config = folder / "config" / references.OBSERVATORY
    with replacing(config / "ref_cache_subdir_mode") as partial:
        partial.write_text("instrument")
    with replacing(config / "server_config") as partial:
        partial.write_text(pprint.pformat(references.serverless_info(context)))
    return len(found)
