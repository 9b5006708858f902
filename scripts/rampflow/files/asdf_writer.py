"""Write ASDF files: arrays whole, by rows or by planes, and the tree last, so that it can hold what was computed meanwhile."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rampflow.files import tags
from rampflow.files.atomic import replacing
from rampflow.files.blocks import HEADER_SIZE, LZ4, NO_CHECKSUM, UNCOMPRESSED, Block, asdf_datatype, block_header, write_bytes
from rampflow.files.compression import compress_lz4
from rampflow.files.stored_array import StoredArray
from rampflow.files.yaml_tree import dump_tree, map_tree, tagged

_HEADROOM = 1 << 17  #: bytes kept free for what a step adds to the tree (logs, status) after its arrays have their places
#: Errors of a file system that gives a file its room only when it is written.
NO_ROOM_BEFOREHAND = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_INLINE_SIZE = 256  #: values; an array in memory of so many or fewer is written in the tree


class EmptyArray:
    """The place of an array that the caller writes later.

    Parameters
    ----------
    shape : sequence of int
        Length of each axis.
    dtype : dtype-like
        Type of its values.
    replaces : numpy.ndarray, optional
        An array in memory of this shape and type that nobody needs any more once its values are written. What is written in
        memory takes its place; a file does not use it.

    Attributes
    ----------
    shape : tuple of int
        Length of each axis.
    dtype : numpy.dtype
        Type of its values.
    nbytes : int
        Number of its bytes.
    replaces : numpy.ndarray or None
        The array in memory that it replaces.
    """

    def __init__(self, shape: Sequence[int], dtype: npt.DTypeLike, replaces: np.ndarray | None = None):
        self.shape, self.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self.replaces = replaces


class CompressedArray:
    """An array in memory that is written compressed by lz4: for one that is nearly all zero, such as a map of sources.

    Parameters
    ----------
    values : numpy.ndarray
        The array.

    Attributes
    ----------
    shape : tuple of int
        Length of each axis.
    dtype : numpy.dtype
        Type of its values.
    nbytes : int
        Bytes when uncompressed.
    stored : bytes
        What is written.
    """

    def __init__(self, values: np.ndarray):
        self.shape, self.dtype, self.nbytes = values.shape, values.dtype, values.nbytes
        self.stored = compress_lz4(values)


def _takes_block(node: Any) -> bool:
    """Whether a node is an array that is written as a block."""
    if isinstance(node, np.ndarray):
        return node.size > _INLINE_SIZE or node.dtype.kind == "c"  # YAML has no complex numbers
    return isinstance(node, StoredArray | EmptyArray | CompressedArray)


def _reserve(descriptor: int, size: int) -> None:
    """Give a file its room beforehand: a full disk shows before the work, and rows are written with half of the system time."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in NO_ROOM_BEFOREHAND:
            raise
        os.ftruncate(descriptor, size)


class AsdfWriter:
    """An ASDF file being written, as `create_asdf` makes it.

    Parameters
    ----------
    descriptor : int
        Descriptor of the empty file, open for writing.
    tree : dict
        The tree, with all arrays.
    standard : str
        Version of the ASDF standard to declare.

    Attributes
    ----------
    tree : dict
        The tree that `finish` writes: metadata may change until then, arrays are added by `append` only.
    """

    def __init__(self, descriptor: int, tree: dict, standard: str):
        self.tree, self._descriptor, self._standard = tagged(tree, tags.ROOT), descriptor, standard
        self._arrays: list[Any] = []
        map_tree(self.tree, self._collect)
        self._places: list[int] = []  # of the bytes of each array
        self._head = position = len(self._text()) + _HEADROOM
        for array in self._arrays:
            self._places.append(position + HEADER_SIZE)
            position += HEADER_SIZE + (len(array.stored) if isinstance(array, CompressedArray) else array.nbytes)
        self._end = position
        _reserve(descriptor, position)
        for array, place in zip(self._arrays, self._places, strict=True):
            self._write_block(array, place)

    def _write_block(self, array: Any, place: int) -> None:
        block = Block(place, array.nbytes, UNCOMPRESSED, array.nbytes, NO_CHECKSUM)
        if isinstance(array, CompressedArray):
            checksum = hashlib.md5(array.stored, usedforsecurity=False).digest()
            block = Block(place, len(array.stored), LZ4, array.nbytes, checksum)
            write_bytes(self._descriptor, array.stored, place)
        elif isinstance(array, StoredArray):
            array.copy_to(self._descriptor, place)
        elif isinstance(array, np.ndarray):
            write_bytes(self._descriptor, np.ascontiguousarray(array), place)
        write_bytes(self._descriptor, block_header(block), place - HEADER_SIZE)

    def write_rows(self, array: EmptyArray, start: int, values: np.ndarray) -> None:
        """Write rows of every plane of an array of the tree.

        Parameters
        ----------
        array : EmptyArray
            The array.
        start : int
            Number of the first row.
        values : numpy.ndarray
            The rows, of shape (…, row, column).

        Raises
        ------
        ValueError
            The rows don't fit the array, or it is not in the tree.
        """
        place = self._place(array)
        *planes, rows, columns = array.shape
        n_planes = math.prod(planes)
        check_rows(array.shape, start, values)
        values = np.ascontiguousarray(values, array.dtype).reshape(n_planes, -1, columns)
        for plane in range(n_planes):
            write_bytes(self._descriptor, values[plane], place + (plane * rows + start) * columns * array.dtype.itemsize)

    def write_plane(self, array: EmptyArray, index: int, values: np.ndarray) -> None:
        """Write one plane (one resultant) of a 3-D array of the tree.

        Parameters
        ----------
        array : EmptyArray
            The array.
        index : int
            Number of the plane.
        values : numpy.ndarray
            The plane, of shape (row, column).

        Raises
        ------
        ValueError
            The plane doesn't fit the array, or the array is not in the tree.
        """
        check_plane(array.shape, values)
        values = np.ascontiguousarray(values, array.dtype)
        write_bytes(self._descriptor, values, self._place(array) + index * values.nbytes)

    def plane_in_place(self, array: EmptyArray, index: int) -> None:
        """Return no plane: the old values are in another file.

        Parameters
        ----------
        array : EmptyArray
            The array.
        index : int
            Number of the plane.
        """

    def write(self, array: EmptyArray, values: np.ndarray) -> None:
        """Write a whole array of the tree.

        Parameters
        ----------
        array : EmptyArray
            The array.
        values : numpy.ndarray
            Its values.

        Raises
        ------
        ValueError
            They don't fit the array, or it is not in the tree.
        """
        if values.shape != array.shape:
            raise ValueError(f"values of shape {values.shape} don't fit an array of shape {array.shape}")
        write_bytes(self._descriptor, np.ascontiguousarray(values, array.dtype), self._place(array))

    def append(self, values: np.ndarray) -> None:
        """Write an array whose shape was not known before, behind all others. The caller then puts it into the tree.

        Parameters
        ----------
        values : numpy.ndarray
            The array. A small one gets no place here: `finish` writes it in the tree.
        """
        if not _takes_block(values):
            return
        place = self._end + HEADER_SIZE
        self._arrays.append(values)
        self._places.append(place)
        self._end = place + values.nbytes
        self._write_block(values, place)

    def finish(self) -> None:
        """Write the tree in front of the blocks, and their index behind them.

        Raises
        ------
        ValueError
            The metadata grew beyond the room kept for them.
        """
        text = self._text()
        padding = self._head - len(text)
        if padding < 0:
            raise ValueError(f"the metadata grew by {_HEADROOM - padding} bytes, more than the {_HEADROOM} kept free")
        # Empty lines before the end mark of the document fill the room left: YAML ignores them there.
        end = b"...\n"
        write_bytes(self._descriptor, text[: -len(end)] + b"\n" * padding + end, 0)
        if self._places:  # without their index, asdf reads a whole file in search of it whenever it opens one
            index = "".join(f"- {place - HEADER_SIZE}\n" for place in self._places)
            write_bytes(self._descriptor, f"#ASDF BLOCK INDEX\n%YAML 1.1\n---\n{index}...\n".encode(), self._end)

    def _place(self, array: Any) -> int:
        number = self._number(array)
        if number is None:
            raise ValueError("that array is not in the tree of this file")
        return self._places[number]

    def _number(self, array: Any) -> int | None:
        return next((number for number, known in enumerate(self._arrays) if known is array), None)

    def _collect(self, node: Any) -> Any:
        if _takes_block(node) and self._number(node) is None:
            self._arrays.append(node)
        return node

    def _describe(self, node: Any) -> Any:
        """What stands in the tree for an array; any other node as it is."""
        if _takes_block(node):
            datatype, byteorder = asdf_datatype(node.dtype)
            place = {"source": self._number(node), "datatype": datatype, "byteorder": byteorder, "shape": list(node.shape)}
            return tagged(place, tags.NDARRAY)
        if isinstance(node, np.ndarray):
            values = {"data": node.tolist(), "datatype": asdf_datatype(node.dtype)[0], "shape": list(node.shape)}
            return tagged(values, tags.NDARRAY)
        return node

    def _text(self) -> bytes:
        version = f"#ASDF {tags.FILE_FORMAT}\n#ASDF_STANDARD {self._standard}\n"
        return version.encode() + dump_tree(map_tree(self.tree, self._describe))


def check_rows(shape: tuple[int, ...], start: int, values: np.ndarray) -> None:
    """Refuse rows that don't fit an array.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array, (…, row, column).
    start : int
        Number of the first row.
    values : numpy.ndarray
        The rows, of shape (…, row, column).

    Raises
    ------
    ValueError
        They have other planes or columns than the array, or go beyond its last row.
    """
    *planes, rows, columns = shape
    if values.shape != (*planes, values.shape[-2], columns) or start + values.shape[-2] > rows:
        raise ValueError(f"rows of shape {values.shape} from {start} on don't fit an array of shape {shape}")


def check_plane(shape: tuple[int, ...], values: np.ndarray) -> None:
    """Refuse a plane that doesn't fit an array.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array, (plane, row, column).
    values : numpy.ndarray
        The plane, of shape (row, column).

    Raises
    ------
    ValueError
        It has another shape than the planes of the array.
    """
    if values.shape != shape[1:]:
        raise ValueError(f"a plane of shape {values.shape} doesn't fit an array of shape {shape}")


@contextlib.contextmanager
def create_asdf(path: str | os.PathLike, tree: dict, standard: str = tags.STANDARD) -> Iterator[AsdfWriter]:
    """Write an ASDF file: arrays in memory or in another file at once, the others as the caller gives them.

    Parameters
    ----------
    path : path-like
        Final name. The file appears there when the block ends without an error.
    tree : dict
        Tree with `numpy.ndarray`, `CompressedArray`, `StoredArray` (copied from their file) and `EmptyArray` (to be written by
        the caller).
    standard : str
        Version of the ASDF standard to declare.

    Yields
    ------
    AsdfWriter
        The file, for the arrays that are still to be written.

    Raises
    ------
    RampflowError
        The file can't be written.
    """
    with replacing(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            writer = AsdfWriter(descriptor, tree, standard)
            yield writer
            writer.finish()
        finally:
            os.close(descriptor)
