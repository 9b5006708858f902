"""Blocks of ASDF files: their headers, and the types of the values in them.

A block has a magic word, the size of its header, the header, and its bytes: ASDF standard, low-level file layout
(https://www.asdf-format.org/projects/asdf-standard).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

UNCOMPRESSED = b"\0" * 4  #: compression of a block whose bytes are stored as they are
LZ4 = b"lz4\0"  #: compression by lz4
NO_CHECKSUM = b"\0" * 16  #: checksum of a block that has none, as the standard allows

MAGIC = b"\xd3BLK"
# Flags, compression, allocated size, used size, data size, MD5 of the used bytes.
_HEADER = struct.Struct(">I4sQQQ16s")
HEADER_SIZE = len(MAGIC) + 2 + _HEADER.size  #: bytes before those of a block that is written here

# Bytes written at a time: with ext4 in Linux 6.18, writes of 1 MB or more take four times as long for the same file.
_WRITE_SIZE = 1 << 18

_DATATYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_DATATYPES |= {"float16", "float32", "float64", "complex64", "complex128"}


class ByteSource(Protocol):
    """A file whose bytes can be read from any place on."""

    path: Path

    def read_into(self, buffer: np.ndarray, offset: int) -> None:
        """Read bytes of the file.

        Parameters
        ----------
        buffer : numpy.ndarray
            The bytes to fill.
        offset : int
            Place of the first of them in the file.
        """


class RandomAccess(Protocol):
    """Bytes that are not in a file of this machine, of which any part can be read.

    Attributes
    ----------
    size : int
        Number of all bytes.
    """

    size: int

    def read(self, size: int, offset: int) -> bytes:
        """Read a part.

        Parameters
        ----------
        size : int
            Number of bytes.
        offset : int
            Place of the first of them.

        Returns
        -------
        bytes
            The part; shorter where the bytes end.
        """


class Block(NamedTuple):
    """Place and form of a block's bytes.

    Attributes
    ----------
    start : int
        Place of its first byte in the file.
    used : int
        Number of its bytes in the file.
    compression : bytes
        Four letters, `UNCOMPRESSED` or `LZ4` for example.
    size : int
        Number of its bytes when uncompressed.
    checksum : bytes
        MD5 of its bytes in the file, or `NO_CHECKSUM`.
    """

    start: int
    used: int
    compression: bytes
    size: int
    checksum: bytes


def read_block(read_at: Callable[[int, int], bytes], position: int, file_size: int, number: int) -> tuple[Block, int] | None:
    """Read the header of a block.

    Parameters
    ----------
    read_at : callable
        Returns as many bytes of the file as its first argument says, from the place of its second one on.
    position : int
        Place of the block in the file.
    file_size : int
        Bytes of the file.
    number : int
        Number of the block in the file, for the message.

    Returns
    -------
    (Block, int) or None
        What the header says, and the place of what follows the block. `None` where no block begins at `position`.

    Raises
    ------
    ValueError
        The header is damaged, or the file ends too early.
    """
    head = read_at(HEADER_SIZE, position)
    if not head.startswith(MAGIC):
        return None
    if len(head) < HEADER_SIZE:
        raise ValueError(f"ends inside the header of block {number} (truncated)")
    (header_size,) = struct.unpack_from(">H", head, len(MAGIC))
    _, compression, allocated, used, size, checksum = _HEADER.unpack_from(head, len(MAGIC) + 2)
    start = position + len(MAGIC) + 2 + header_size
    if header_size < _HEADER.size or used > allocated or (compression == UNCOMPRESSED and size != used):
        raise ValueError(f"the header of block {number} is damaged")
    if start + used > file_size:
        raise ValueError(f"block {number} ends at byte {start + used} of a file of {file_size} bytes (truncated)")
    return Block(start, used, compression, size, checksum), min(start + allocated, file_size)


def block_header(block: Block) -> bytes:
    """Header of a block to be written.

    Parameters
    ----------
    block : Block
        What the header is to say.

    Returns
    -------
    bytes
        The header with magic word and size, `HEADER_SIZE` bytes.
    """
    content = _HEADER.pack(0, block.compression, block.used, block.used, block.size, block.checksum)
    return MAGIC + struct.pack(">H", _HEADER.size) + content


def numpy_dtype(datatype: str, byteorder: str) -> np.dtype:
    """Translate a type of ASDF to numpy's.

    Parameters
    ----------
    datatype : str
        Name of the type of each value, ``float32`` for example.
    byteorder : str
        ``little`` or ``big``.

    Returns
    -------
    numpy.dtype
        The same type.

    Raises
    ------
    ValueError
        Arrays of such values are not read here.
    """
    if datatype == "bool8":
        return np.dtype(bool)
    if datatype not in _DATATYPES:
        raise ValueError(f"its datatype is {datatype!r}")
    if byteorder not in ("little", "big"):
        raise ValueError(f"its byteorder is {byteorder!r}")
    return np.dtype(datatype).newbyteorder("<" if byteorder == "little" else ">")


def asdf_datatype(dtype: np.dtype) -> tuple[str, str]:
    """Translate a type of numpy to ASDF's.

    Parameters
    ----------
    dtype : numpy.dtype
        The type of each value.

    Returns
    -------
    datatype : str
        Name of the type.
    byteorder : str
        ``little`` or ``big``.
    """
    if dtype.kind == "b":
        return "bool8", "little"
    big = dtype.byteorder == ">" or (dtype.byteorder == "=" and not np.little_endian)
    return dtype.newbyteorder("=").name, "big" if big else "little"


def write_bytes(descriptor: int, content: np.ndarray | bytes, position: int) -> None:
    """Write bytes, or those of a contiguous array, to an open file.

    Parameters
    ----------
    descriptor : int
        Descriptor of the open file.
    content : numpy.ndarray or bytes
        What to write.
    position : int
        Place in the file of the first byte.
    """
    view = memoryview(content) if isinstance(content, bytes) else content.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + _WRITE_SIZE], position + done)
