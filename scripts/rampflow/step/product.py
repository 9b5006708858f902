"""The output of a step while it is written."""

from __future__ import annotations

from typing import Any

import numpy as np

from rampflow.files.asdf_writer import AsdfWriter
from rampflow.files.in_memory import MemoryWriter
from rampflow.step.exposure import Exposure


class Product:
    """The output of a step while it is written.

    A step writes each array that it named in `rampflow.step.job.Job.create`, and can't write any other.

    Parameters
    ----------
    writer : AsdfWriter or MemoryWriter
        The file, or the exposure in memory.
    source : rampflow.step.exposure.Exposure
        The exposure as the previous step left it.
    roman : dict
        The tree of the exposure after the step.
    named : set of str
        Arrays that the step may write.

    Attributes
    ----------
    roman : dict
        The tree of the exposure.
    meta : dict
        Its metadata, which may change until the file is finished.
    status : str
        Status of the step, for ``meta.cal_step``.
    """

    def __init__(self, writer: AsdfWriter | MemoryWriter, source: Exposure, roman: dict, named: set[str]):
        self._writer, self._source = writer, source
        self._named = named
        self.roman = roman
        self.meta = roman["meta"]
        self.status = "COMPLETE"

    def _array(self, name: str) -> Any:
        if name not in self._named:
            raise ValueError(f"the step writes {name}, which it did not name in Job.create")
        return self.roman[name]

    def write(self, name: str, values: np.ndarray) -> None:
        """Write a whole array.

        Parameters
        ----------
        name : str
            Name of the array.
        values : numpy.ndarray
            Its values.
        """
        self._writer.write(self._array(name), values)

    def write_rows(self, name: str, start: int, values: np.ndarray) -> None:
        """Write rows of every plane of an array.

        Parameters
        ----------
        name : str
            Name of the array.
        start : int
            Number of the first row.
        values : numpy.ndarray
            The rows, of shape (…, row, column).
        """
        self._writer.write_rows(self._array(name), start, values)

    def write_plane(self, name: str, index: int, values: np.ndarray) -> None:
        """Write one plane (one resultant) of an array.

        Parameters
        ----------
        name : str
            Name of the array.
        index : int
            Number of the plane.
        values : numpy.ndarray
            The plane, of shape (row, column).
        """
        self._writer.write_plane(self._array(name), index, values)

    def plane_to_change(self, name: str, index: int, room: np.ndarray) -> np.ndarray:
        """Read one plane of an array that the step updates, to change it and give it to `write_plane`.

        Parameters
        ----------
        name : str
            Name of the array.
        index : int
            Number of the plane.
        room : numpy.ndarray
            Array of the plane's shape and dtype, into which a plane that lies in a file is read.

        Returns
        -------
        numpy.ndarray
            The plane, of shape (row, column): `room`, or the plane itself if it is in memory.
        """
        place = self._writer.plane_in_place(self._array(name), index)
        return self._source.array(name).read_plane(index, out=room) if place is None else place

    def append(self, name: str, values: np.ndarray) -> None:
        """Add an array whose shape was not known when the output was created.

        Parameters
        ----------
        name : str
            Name of the array.
        values : numpy.ndarray
            Its values.
        """
        self._writer.append(values)
        self.roman[name] = values
