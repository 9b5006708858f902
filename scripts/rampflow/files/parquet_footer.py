"""The footer of a parquet file, without pyarrow, whose import takes longer than the rest of the start of a workflow."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MAGIC = b"PAR1"


def read_footer(path: Path) -> bytes:
    """Read the end of a parquet file, where its metadata are: plain text after their keys.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    bytes
        Its footer.

    Raises
    ------
    OSError
        The file can't be read.
    ValueError
        It is not a parquet file, or is truncated.
    """
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 8, 0))
        size, magic = int.from_bytes(file.read(4), "little"), file.read(4)
        if magic != _MAGIC or not 0 < size <= end - 12:
            raise ValueError("it is not a parquet file, or is truncated")
        file.seek(end - 8 - size)
        return file.read(size)


def text_of(footer: bytes, key: str) -> str:
    """Read an entry of the metadata in a footer.

    Parameters
    ----------
    footer : bytes
        From `read_footer`.
    key : str
        Name of the entry.

    Returns
    -------
    str
        Its text, of up to 127 bytes; empty if there is none.
    """
    # As Thrift's compact protocol writes two texts: a byte for the kind, the length, and the text.
    field = re.escape(b"\x18" + bytes([len(key)]) + key.encode()) + b"\x18([\x00-\x7f])"
    found = re.search(field, footer, re.DOTALL)
    return footer[found.end() : found.end() + found[1][0]].decode(errors="replace") if found else ""
