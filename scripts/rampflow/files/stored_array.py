"""Arrays in a file, which are read on request, as a whole or in part."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from typing import TYPE_CHECKING

import numpy as np

from rampflow.files.blocks import LZ4, UNCOMPRESSED, Block, write_bytes
from rampflow.files.compression import Lz4Frames, decompress_block

if TYPE_CHECKING:
    from rampflow.files.asdf_reader import AsdfFile


class StoredArray:
    """An array in a file, which is read on request, as a whole or in part.

    Parameters
    ----------
    file : AsdfFile
        The file, open.
    node : dict
        The array's node in the tree.
    dtype : numpy.dtype
        Type of its values, in their byte order.
    block : Block
        The block that holds its values.

    Attributes
    ----------
    shape : tuple of int
        Length of each axis.
    dtype : numpy.dtype
        Type of its values in the file.
    nbytes : int
        Bytes when uncompressed.

    Raises
    ------
    ValueError
        The array doesn't fit its block.
    """

    def __init__(self, file: AsdfFile, node: dict, dtype: np.dtype, block: Block):
        self.shape = tuple(int(n) for n in node["shape"])
        self.dtype = dtype
        self.nbytes = math.prod(self.shape) * dtype.itemsize
        self._file, self._block = file, block
        self._start = int(node.get("offset", 0))
        self._strides = None if node.get("strides") is None else tuple(int(n) for n in node["strides"])
        steps = [] if self._strides is None else [(n - 1) * step for n, step in zip(self.shape, self._strides, strict=True)]
        first = self._start + sum(min(step, 0) for step in steps)
        last = self._start + (sum(max(step, 0) for step in steps) + dtype.itemsize if steps else self.nbytes)
        if min(self.shape, default=0) < 0 or first < 0 or max(last, self.nbytes) > block.size or len(self.shape) > 32:
            raise ValueError(f"its block has {block.size} bytes")
        self._decompressed: np.ndarray | None = None
        self._frames: Lz4Frames | None = None
        self._lock = threading.Lock()

    @property
    def ndim(self) -> int:
        """Number of axes.

        Returns
        -------
        int
            The number.
        """
        return len(self.shape)

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Shape of a plane: of an image itself, or of each resultant of a ramp.

        Returns
        -------
        tuple of int
            Rows, columns.
        """
        rows, columns = self.shape[-2:]
        return rows, columns

    @property
    def _plain(self) -> bool:
        return self._block.compression == UNCOMPRESSED and self._strides is None

    @property
    def _in_order(self) -> bool:
        # Whether any part of it can be read without the rest.
        return self._block.compression in (UNCOMPRESSED, LZ4) and self._strides is None

    def read(self) -> np.ndarray:
        """Read the whole array into memory.

        Returns
        -------
        numpy.ndarray
            The array, in native byte order.
        """
        if not self._in_order:
            return self._whole().astype(self.dtype.newbyteorder("="))
        result = np.empty(self.shape, self.dtype)
        self._read_into(result.reshape(-1).view(np.uint8), 0)
        return result if self.dtype.isnative else result.astype(self.dtype.newbyteorder("="))

    def read_rows(self, start: int, stop: int, first_planes: int | None = None) -> np.ndarray:
        """Read rows of every plane, or of the first planes of a 3-D array. Rows are the last axis but one.

        Parameters
        ----------
        start, stop : int
            The first row, and the one after the last.
        first_planes : int, optional
            Number of planes to read, counted from the first; all by default.

        Returns
        -------
        numpy.ndarray
            Of a ramp of shape (resultant, row, column) an array of shape (resultant, stop − start, column), in native byte
            order.
        """
        *planes, rows, columns = self.shape
        start, stop = max(start, 0), min(stop, rows)
        if first_planes is not None:
            planes = [min(first_planes, planes[0])]
        if not self._in_order:
            whole = self._whole() if first_planes is None else self._whole()[:first_planes]
            return np.array(whole[..., start:stop, :], self.dtype.newbyteorder("="), order="C")
        n_planes = math.prod(planes)
        result = np.empty((n_planes, stop - start, columns), self.dtype)
        row = columns * self.dtype.itemsize
        for plane in range(n_planes):
            self._read_into(result[plane].reshape(-1).view(np.uint8), (plane * rows + start) * row)
        result = result.reshape(*planes, stop - start, columns)
        return result if self.dtype.isnative else result.astype(self.dtype.newbyteorder("="))

    def read_plane(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read one plane (one resultant) of a 3-D array.

        Parameters
        ----------
        index : int
            Number of the plane.
        out : numpy.ndarray, optional
            A contiguous array of the plane's shape to read into; its type is kept.

        Returns
        -------
        numpy.ndarray
            The plane, in native byte order.
        """
        result = np.empty(self.shape[1:], self.dtype) if out is None else out
        if self._in_order and result.dtype == self.dtype:
            self._read_into(result.reshape(-1).view(np.uint8), index * result.nbytes)
        else:
            result[...] = self.read_plane(index) if self._in_order else self._whole()[index]
        return result if result.dtype.isnative else result.astype(result.dtype.newbyteorder("="))

    def _read_into(self, buffer: np.ndarray, position: int) -> None:
        # Bytes of the array from `position` on.
        if self._plain:
            self._file.read_into(buffer, self._block.start + self._start + position)
            return
        with self._lock:
            if self._frames is None:
                self._file.verify_block(self._block)
                # Blocks of rows of all planes come one after the other: each plane goes on in a frame that it has begun.
                self._frames = Lz4Frames(self._file, self._block, kept=2 * math.prod(self.shape[:-2]))
        self._frames.read_into(buffer, self._start + position)

    def _whole(self) -> np.ndarray:
        # An array that can't be read by rows is decompressed once, by the first thread that needs it, and kept.
        with self._lock:
            if self._decompressed is None:
                if self._block.compression != UNCOMPRESSED:
                    self._file.verify_block(self._block)
                raw = decompress_block(self._file, self._block)
                self._decompressed = np.ndarray(self.shape, self.dtype, raw, self._start, self._strides)
        return self._decompressed

    def copy_to(self, descriptor: int, position: int) -> None:
        """Copy the array's bytes into another file, within the kernel of the system if possible.

        Parameters
        ----------
        descriptor : int
            Descriptor of the other file, open for writing.
        position : int
            Offset of the first byte in the other file.
        """
        if not self._in_order:
            write_bytes(descriptor, np.ascontiguousarray(self._whole()), position)
            return
        done = 0
        while left := self.nbytes - done:
            copied = 0
            if self._plain:
                with contextlib.suppress(OSError):
                    source = self._block.start + self._start + done
                    copied = os.copy_file_range(self._file.descriptor, descriptor, left, source, position + done)
            if not copied:  # compressed, or not supported by the file systems: copy through memory
                chunk = np.empty(min(left, 1 << 24), np.uint8)
                self._read_into(chunk, done)
                write_bytes(descriptor, chunk, position + done)
                copied = chunk.nbytes
            done += copied
