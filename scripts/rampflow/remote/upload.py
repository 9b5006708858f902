"""Transfers of whole files to S3, where they appear whole or not at all."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.remote.errors import RemoteError, named_errors
from rampflow.remote.files import RemoteFile, find_file, open_store

_PART = 16 << 20  #: bytes of each part of a large file


def upload(path: Path, address: str) -> RemoteFile:
    """Bring a file of this machine to S3, and check it there.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    address : str
        Its address on S3. A large file is sent in parts; S3 shows it when all have arrived.

    Returns
    -------
    rampflow.remote.files.RemoteFile
        The file on S3.

    Raises
    ------
    RemoteError
        It can't be written there, or is another one afterwards.
    RampflowError
        The file can't be read.
    """
    import obstore

    try:
        size = path.stat().st_size
        with named_errors(address):
            store, key = open_store(address)
            obstore.put(store, key, path, chunk_size=_PART, use_multipart=size > _PART)
    except OSError as error:
        raise RampflowError(f"{path}: can't be read ({error.strerror or error})") from None
    found = find_file(address)
    if found.size != size or not _may_be(found, path):
        raise RemoteError(
            f"{address}: has {found.size} bytes and the ETag {found.version} after {path} with {size} bytes was written there: "
            "something else writes to this place, or the service is at fault; start again"
        )
    return found


def _may_be(found: RemoteFile, path: Path) -> bool:
    """Whether an ETag is not the MD5 of other bytes. That of a file in parts or with encryption is no MD5."""
    if not re.fullmatch('"[0-9a-f]{32}"', found.version) or found.size > _PART:
        return True
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return f'"{digest}"' == found.version


def is_as_uploaded(known: dict[str, list], listed: dict[str, RemoteFile]) -> bool:
    """Test whether files on S3 are those that were uploaded.

    Parameters
    ----------
    known : dict
        Size and ETag of each file, by its name.
    listed : dict
        The files that are there, by their names.

    Returns
    -------
    bool
        Whether each is there with its size and ETag.
    """
    return all(name in listed and [listed[name].size, listed[name].version] == list(state) for name, state in known.items())
