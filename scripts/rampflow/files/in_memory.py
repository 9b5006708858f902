"""Exposures whose arrays lie in memory, read and written by the same methods as those in ASDF files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rampflow.files import tags
from rampflow.files.asdf_writer import EmptyArray, check_plane, check_rows
from rampflow.files.stored_array import StoredArray
from rampflow.files.yaml_tree import map_tree, tagged


class MemoryFile(NamedTuple):
    """An exposure in memory, with the attributes of an open `rampflow.files.asdf_reader.AsdfFile` that steps use.

    Attributes
    ----------
    path : pathlib.Path
        Name of the file that the exposure would be in.
    tree : dict
        The tree, with arrays as `numpy.ndarray`.
    standard : str
        Version of the ASDF standard to declare in a file.
    """

    path: Path
    tree: dict
    standard: str


class MemoryArray:
    """An array in memory, with the attributes and methods of `StoredArray`.

    Parameters
    ----------
    array : numpy.ndarray
        The array.
    """

    def __init__(self, array: np.ndarray):
        self._array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.ndim = array.ndim
        self.nbytes = array.nbytes

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Shape of a plane, as `StoredArray.plane_shape`.

        Returns
        -------
        tuple of int
            Rows, columns.
        """
        rows, columns = self.shape[-2:]
        return rows, columns

    def read(self) -> np.ndarray:
        """Copy the array, as `StoredArray.read`.

        Returns
        -------
        numpy.ndarray
            The copy.
        """
        return self._array.copy()

    def read_rows(self, start: int, stop: int, first_planes: int | None = None) -> np.ndarray:
        """Copy rows of every plane, or of the first ones, as `StoredArray.read_rows`.

        Parameters
        ----------
        start, stop : int
            The first row, and the one after the last.
        first_planes : int, optional
            Number of planes to copy; by default all.

        Returns
        -------
        numpy.ndarray
            The copy, of shape (…, row, column).
        """
        array = self._array if first_planes is None else self._array[:first_planes]
        return array[..., max(start, 0) : stop, :].copy()

    def read_plane(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Copy one plane, as `StoredArray.read_plane`.

        Parameters
        ----------
        index : int
            Number of the plane.
        out : numpy.ndarray, optional
            Array of the same shape and dtype to copy it to; by default a new one.

        Returns
        -------
        numpy.ndarray
            The plane, of shape (row, column).
        """
        if out is None:
            return self._array[index].copy()
        out[...] = self._array[index]
        return out


class MemoryWriter:
    """A tree whose arrays are written in memory, with the methods of `rampflow.files.asdf_writer.AsdfWriter`.

    Parameters
    ----------
    tree : dict
        The tree, with all arrays. A `StoredArray` is read into memory; an `EmptyArray` is written into the array that it
        replaces, or into a new one of zeros; a `numpy.ndarray` is not copied.

    Attributes
    ----------
    tree : dict
        The tree: metadata may change until `finish`, arrays may not be added.
    """

    def __init__(self, tree: dict):
        self.tree = tagged(tree, tags.ROOT)
        self._values: dict[int, np.ndarray] = {}  # by `id` of the node, which the tree keeps alive
        map_tree(self.tree, self._hold)

    def _hold(self, node: Any) -> Any:
        if id(node) not in self._values:
            if isinstance(node, EmptyArray):
                self._values[id(node)] = np.zeros(node.shape, node.dtype) if node.replaces is None else node.replaces
            elif isinstance(node, StoredArray):
                self._values[id(node)] = node.read()
            elif isinstance(node, np.ndarray):
                self._values[id(node)] = node
        return node

    def write_rows(self, array: Any, start: int, values: np.ndarray) -> None:
        """Write rows of every plane of an array, as `AsdfWriter.write_rows`.

        Parameters
        ----------
        array : EmptyArray, StoredArray or numpy.ndarray
            The array in the tree.
        start : int
            Number of the first row.
        values : numpy.ndarray
            The rows, of shape (…, row, column).

        Raises
        ------
        ValueError
            The rows don't fit the array, or it is not in the tree.
        """
        check_rows(array.shape, start, values)
        self._values_of(array)[..., start : start + values.shape[-2], :] = values

    def write_plane(self, array: Any, index: int, values: np.ndarray) -> None:
        """Write one plane (one resultant) of a 3-D array, as `AsdfWriter.write_plane`.

        Parameters
        ----------
        array : EmptyArray, StoredArray or numpy.ndarray
            The array in the tree.
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
        place = self._values_of(array)[index]
        if (values.ctypes.data, values.strides) != (place.ctypes.data, place.strides):  # else it was changed in place
            place[...] = values

    def plane_in_place(self, array: Any, index: int) -> np.ndarray | None:
        """Return a plane of an array that is written where the old values are.

        Parameters
        ----------
        array : EmptyArray, StoredArray or numpy.ndarray
            The array in the tree.
        index : int
            Number of the plane.

        Returns
        -------
        numpy.ndarray or None
            The plane with the old values, which may be changed; `None` if the array has new memory.
        """
        is_in_place = isinstance(array, EmptyArray) and array.replaces is not None
        return self._values_of(array)[index] if is_in_place else None

    def write(self, array: Any, values: np.ndarray) -> None:
        """Write a whole array, as `AsdfWriter.write`.

        Parameters
        ----------
        array : EmptyArray, StoredArray or numpy.ndarray
            The array in the tree.
        values : numpy.ndarray
            Its values.

        Raises
        ------
        ValueError
            They don't fit the array, or it is not in the tree.
        """
        if values.shape != array.shape:
            raise ValueError(f"values of shape {values.shape} don't fit an array of shape {array.shape}")
        self._values_of(array)[...] = values

    def append(self, array: np.ndarray) -> None:
        """Add an array, as `AsdfWriter.append`.

        Parameters
        ----------
        array : numpy.ndarray
            The array. The caller puts it into the tree.
        """
        self._values[id(array)] = array

    def finish(self) -> dict:
        """Put the values in the places of the arrays.

        Returns
        -------
        dict
            The tree, with each array as `numpy.ndarray`.
        """
        return map_tree(self.tree, lambda node: self._values.get(id(node), node))

    def _values_of(self, array: Any) -> np.ndarray:
        if id(array) not in self._values:
            raise ValueError("that array is not in the tree of this exposure")
        return self._values[id(array)]


class InMemory:
    """Destination of a step whose result stays in memory.

    Attributes
    ----------
    file : MemoryFile or None
        The result, once `create` has ended without an error.
    """

    def __init__(self) -> None:
        self.file: MemoryFile | None = None

    @contextlib.contextmanager
    def create(self, path: Path, tree: dict, standard: str = tags.STANDARD) -> Iterator[MemoryWriter]:
        """Write an exposure in memory, as `rampflow.files.asdf_writer.create_asdf` writes one to a file.

        Parameters
        ----------
        path : pathlib.Path
            Name of the file that the exposure would be in.
        tree : dict
            The tree, with all arrays.
        standard : str
            Version of the ASDF standard to declare in a file.

        Yields
        ------
        MemoryWriter
            The exposure, for the arrays that are still to be written.
        """
        writer = MemoryWriter(tree)
        yield writer
        self.file = MemoryFile(path, writer.finish(), standard)
