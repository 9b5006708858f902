"""Compressed blocks of ASDF files: lz4 read from any place on and written, zlib and bzp2 read whole."""

from __future__ import annotations

import bisect
import bz2
import contextlib
import math
import struct
import threading
import zlib
from collections.abc import Iterator

import numpy as np

from rampflow.errors import RampflowError, one_line
from rampflow.files.blocks import LZ4, UNCOMPRESSED, Block, ByteSource

_LZ4_FRAME = 1 << 22  #: bytes that are compressed at a time, as by asdf
_LARGEST_RATIO = {b"zlib": 1032, LZ4: 255}  #: bytes that one stored byte can stand for


def decompress_block(file: ByteSource, block: Block) -> np.ndarray:
    """Read the bytes of a block, uncompressed.

    Parameters
    ----------
    file : AsdfFile
        The file of the block.
    block : Block
        The block.

    Returns
    -------
    numpy.ndarray
        Its `size` bytes.

    Raises
    ------
    RampflowError
        The block is damaged, or compressed in a way that is not known here.
    """
    size = block.size
    if block.compression == LZ4:
        result = np.empty(size, np.uint8)
        Lz4Frames(file, block, kept=0).read_into(result, 0)
        return result
    if block.compression not in (UNCOMPRESSED, b"zlib", b"bzp2"):
        raise RampflowError(f"{file.path}: a block is compressed with {block.compression!r}, which can't be read; use lz4")
    stored = np.empty(block.used, np.uint8)
    file.read_into(stored, block.start)
    if block.compression == UNCOMPRESSED:
        return stored
    with _named_damage(file):
        if size > block.used * _LARGEST_RATIO.get(block.compression, math.inf):
            raise ValueError(f"{size} bytes can't come from {block.used}")
        if block.compression == b"zlib":
            raw = zlib.decompressobj().decompress(stored.data, size)
        else:
            raw = bz2.BZ2Decompressor().decompress(stored.tobytes(), size)
        if len(raw) < size:
            raise ValueError(f"{len(raw)} bytes of {size}")
        return np.frombuffer(raw, np.uint8)


@contextlib.contextmanager
def _named_damage(file: ByteSource) -> Iterator[None]:
    try:
        yield
    except RampflowError:
        raise
    except Exception as error:  # each format has its own
        raise RampflowError(f"{file.path}: a compressed block is damaged ({one_line(error)}); get the file again") from None


def compress_lz4(values: np.ndarray) -> bytes:
    """Compress an array by lz4, as asdf does.

    Parameters
    ----------
    values : numpy.ndarray
        The array.

    Returns
    -------
    bytes
        The bytes of its block.
    """
    import lz4.block

    raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    frames = (lz4.block.compress(raw[start : start + _LZ4_FRAME]) for start in range(0, len(raw), _LZ4_FRAME))
    return b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)


class Lz4Frames:
    """The uncompressed bytes of an lz4 block, read from any place on.

    Such a block is a series of frames: the length of what follows (big-endian), then an lz4 block that begins with its own
    uncompressed length (little-endian).

    Parameters
    ----------
    file : AsdfFile
        The file of the block.
    block : Block
        The block.
    kept : int
        Number of frames read in part that are kept for the next part.

    Raises
    ------
    RampflowError
        The lengths of the frames don't fit the block.
    """

    def __init__(self, file: ByteSource, block: Block, kept: int):
        self._file, self._kept, self._lock = file, kept, threading.Lock()
        self._recent: dict[int, bytes] = {}
        self._starts: list[int] = [0]  # of each frame, in the uncompressed bytes
        self._places: list[tuple[int, int]] = []  # of each frame in the file, with its length there
        header, position, end = np.empty(8, np.uint8), block.start, block.start + block.used
        with _named_damage(file):
            while position < end:
                file.read_into(header[: end - position], position)
                (length,), (size,) = struct.unpack(">I", header.data[:4]), struct.unpack("<I", header.data[4:])
                position += 4
                if not 0 < size <= min(block.size - self._starts[-1], length * _LARGEST_RATIO[LZ4]):
                    raise ValueError("a frame has another length than its block")
                if length > end - position:
                    raise ValueError("its last frame is cut")
                self._places.append((position, length))
                self._starts.append(self._starts[-1] + size)
                position += length
            if self._starts[-1] != block.size:
                raise ValueError(f"{self._starts[-1]} bytes of {block.size}")

    def read_into(self, buffer: np.ndarray, start: int) -> None:
        """Fill a buffer with uncompressed bytes.

        Parameters
        ----------
        buffer : numpy.ndarray
            The bytes to fill.
        start : int
            Number of the first of them in the uncompressed block.

        Raises
        ------
        RampflowError
            A frame is damaged.
        """
        stop, position = start + len(buffer), start
        number = bisect.bisect_right(self._starts, start) - 1
        while position < stop:
            first, last = self._starts[number], self._starts[number + 1]
            content = self._content(number, to_keep=first < start or last > stop)
            end = min(last, stop)
            buffer[position - start : end - start] = np.frombuffer(content, np.uint8)[position - first : end - first]
            position, number = end, number + 1

    def _content(self, number: int, *, to_keep: bool) -> bytes:
        import lz4.block

        with self._lock:
            content = self._recent.pop(number, None)
            if content is None:
                position, length = self._places[number]
                stored = np.empty(length, np.uint8)
                self._file.read_into(stored, position)
                with _named_damage(self._file):
                    content = lz4.block.decompress(stored)
            if to_keep and self._kept:
                self._recent[number] = content  # the last of them is the newest
                if len(self._recent) > self._kept:
                    del self._recent[next(iter(self._recent))]
        return content
