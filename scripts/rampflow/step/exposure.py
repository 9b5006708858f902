"""One exposure, in a file or in memory, with errors that name the file and the field."""

from __future__ import annotations

import math
import reprlib
from typing import Any

from rampflow.detector import BORDER, BORDER_COLUMNS, check_shape, detector_number
from rampflow.errors import RampflowError, counted
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.in_memory import MemoryArray, MemoryFile
from rampflow.files.stored_array import StoredArray
from rampflow.files.tags import ROMAN_PREFIX

ExposureArray = StoredArray | MemoryArray  #: an array of an exposure, in its file or in memory
#: Sections of the metadata that steps read or add to. Each of them is a mapping if it is present.
SECTIONS = (
    "cal_step",
    "exposure",
    "guide_star",
    "instrument",
    "observation",
    "pointing",
    "ref_file",
    "velocity_aberration",
    "visit",
    "wcsinfo",
)

#: Largest size of a flag in bytes, where it is not four: the flags of resultants have one byte.
_FLAG_BYTES = {"groupdq": 1, "resultantdq": 1}
_KINDS = {"u": "an unsigned integer", "i": "a signed integer", "f": "a real number", "b": "a boolean"}


LARGEST_READ = 100_000  #: number of a read; an exposure of the instrument has less than a thousand


class Exposure:
    """The ``roman`` tree of an exposure, with errors that name the file and the field.

    Parameters
    ----------
    file : AsdfFile or MemoryFile
        The file, open, or what it would hold.

    Attributes
    ----------
    file : AsdfFile or MemoryFile
        The file.
    path : pathlib.Path
        Its name.
    tree : dict
        The whole tree of the file.
    roman : dict
        Arrays (`StoredArray` or `numpy.ndarray`) and ``meta``.

    Raises
    ------
    RampflowError
        The file holds no Roman data model, or a part of its metadata has the wrong type.
    """

    def __init__(self, file: AsdfFile | MemoryFile):
        self.file: Any = file
        self.path = file.path
        self.tree = file.tree
        self.roman: Any = file.tree.get("roman")
        if not isinstance(self.roman, dict) or not isinstance(self.roman.get("meta"), dict):
            raise RampflowError(f"{self.path}: has no 'roman' tree with 'meta'; it is not a Roman data model")
        for name, kind in (*((name, dict) for name in SECTIONS), ("cal_logs", list)):
            if name in self.meta:
                self.get(f"meta.{name}", kind)

    @property
    def meta(self) -> dict:
        """Metadata of the exposure.

        Returns
        -------
        dict
            The section ``meta``, which may be changed.
        """
        return self.roman["meta"]

    @property
    def tag(self) -> str:
        """Name of the data model and its version.

        Returns
        -------
        str
            The name, ``ramp-2.1.0`` for example; empty if the tree has no tag.
        """
        return getattr(self.roman, "tag", "").removeprefix(ROMAN_PREFIX)

    def expect_model(self, model: str, program: str) -> None:
        """Refuse an exposure of another data model.

        Parameters
        ----------
        model : str
            Name of the data model without version, ``ramp`` for example.
        program : str
            Name of the program, for the message.

        Raises
        ------
        RampflowError
            The exposure is of another data model.
        """
        name = self.tag.rpartition("-")[0]
        if name != model:
            raise RampflowError(
                f"{self.path}: expected the data model {model!r}, found {name or 'none'!r}; "
                f"give {program} the output of the previous step"
            )

    def get(self, field: str, kind: type | tuple = object) -> Any:
        """Read a field.

        Parameters
        ----------
        field : str
            Dotted name of the field, ``meta.exposure.frame_time`` for example.
        kind : type or tuple of type
            Type of its value.

        Returns
        -------
        object
            The value.

        Raises
        ------
        RampflowError
            The field is missing, or its value is not of `kind`.
        """
        node = self.roman
        for name in field.split("."):
            if not isinstance(node, dict) or name not in node:
                raise RampflowError(f"{self.path}: {field} is missing; the file is incomplete, make it again")
            node = node[name]
        if not isinstance(node, kind) or (isinstance(node, bool) and kind in (int, float, (int, float))):
            expected = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            raise RampflowError(f"{self.path}: {field} is {reprlib.repr(node)}; it must be of type {expected}")
        return node

    def number(self, field: str) -> float:
        """Read a field that holds a finite number.

        Parameters
        ----------
        field : str
            Dotted name of the field.

        Returns
        -------
        float
            The number.

        Raises
        ------
        RampflowError
            The field is missing, or holds no number or one that is not finite.
        """
        value = self.get(field, (int, float))
        if not abs(value) < math.inf:
            raise RampflowError(f"{self.path}: {field} is {value}; it must be a finite number")
        return value

    def array(
        self, name: str, ndim: int | None = None, *, shape: tuple[int, ...] | None = None, kinds: str | None = None
    ) -> ExposureArray:
        """Look up an array, without reading its values.

        Parameters
        ----------
        name : str
            Name of the array in ``roman``.
        ndim : int, optional
            Number of its axes.
        shape : tuple of int, optional
            Its shape.
        kinds : str, optional
            Accepted kinds of values, as in `numpy.dtype.kind`. By default unsigned integers for flags (names with ``dq``), and
            real numbers for all others.

        Returns
        -------
        StoredArray or MemoryArray
            The array.

        Raises
        ------
        RampflowError
            The array is missing, or has another number of axes, another shape, values of another kind, or flags of more bytes.
        """
        array = self.get(name)
        if not hasattr(array, "dtype"):
            raise RampflowError(f"{self.path}: {name} is not an array")
        if not isinstance(array, StoredArray):  # in memory, or inline in the tree
            array = MemoryArray(array)
        accepted = kinds or ("u" if "dq" in name else "fiu")
        if array.dtype.kind not in accepted:
            expected = " or ".join(_KINDS.get(kind, kind) for kind in accepted)
            raise RampflowError(f"{self.path}: {name} has dtype {array.dtype.name}; expected {expected}")
        if "dq" in name and array.dtype.itemsize > (size := _FLAG_BYTES.get(name, 4)):
            raise RampflowError(f"{self.path}: {name} has dtype {array.dtype.name}; expected uint{8 * size}")
        if ndim is not None and array.ndim != ndim:
            raise RampflowError(f"{self.path}: {name} has {array.ndim} axes; expected {ndim}")
        if shape is not None and array.shape != tuple(shape):
            raise RampflowError(
                f"{self.path}: {name} has the shape {array.shape}; expected {tuple(shape)}, to fit the exposure"
            )
        return array

    def check_arrays(self) -> None:
        """Refuse a ramp or an image whose arrays don't fit each other: compiled loops would read beyond them.

        Raises
        ------
        RampflowError
            An array is missing, or its shape or type doesn't fit the data.
        """
        data = self.array("data")
        if data.ndim == 3:
            check_shape(self.path, data.shape)
            self.array("groupdq", shape=data.shape)
            self.array("pixeldq", shape=data.shape[1:])
            for name in self.border_columns:
                self.array(name, shape=(*data.shape[:2], BORDER))
        else:
            for name in ("dq", "err", "var_poisson", "chisq", "dumo"):
                self.array(name, shape=data.shape)

    @property
    def border_columns(self) -> dict[str, slice]:
        """Border arrays that are copies of columns of the ramp's data.

        From refpix on, the arrays of the left and right reference pixels hold the same values as ``data``; in romancal they are
        views of it. A step that changes ``data`` must write them too.

        Returns
        -------
        dict of str to slice
            Columns of ``data`` by the name of the array; empty before refpix.
        """
        return BORDER_COLUMNS if self.meta.get("cal_step", {}).get("refpix") == "COMPLETE" else {}

    @property
    def read_pattern(self) -> list[list[int]]:
        """Read numbers of each resultant, from ``meta.exposure.read_pattern``.

        Returns
        -------
        list of list of int
            The reads of each resultant, counted from 1.

        Raises
        ------
        RampflowError
            The pattern is missing or malformed, its reads do not increase, or the data has another number of resultants.
        """
        pattern = self.get("meta.exposure.read_pattern", list)
        reads = [list(r) if isinstance(r, list) else [] for r in pattern]
        if not reads or any(not r or any(type(n) is not int or not 1 <= n <= LARGEST_READ for n in r) for r in reads):
            raise RampflowError(
                f"{self.path}: meta.exposure.read_pattern must list the reads of each resultant, as [[1], [2, 3]]"
            )
        flat = [n for r in reads for n in r]
        if any(b <= a for a, b in zip(flat, flat[1:], strict=False)):
            raise RampflowError(f"{self.path}: the reads of meta.exposure.read_pattern must increase")
        resultants = self.array("data").shape[0]
        if len(reads) != resultants:
            raise RampflowError(
                f"{self.path}: meta.exposure.read_pattern lists {counted(len(reads), 'resultant')} and data has {resultants}; "
                "the file is inconsistent, make it again"
            )
        return reads

    @property
    def detector(self) -> int:
        """Number of the detector, from ``meta.instrument.detector``.

        Returns
        -------
        int
            From 1 to 18.

        Raises
        ------
        RampflowError
            The field is missing, or names no detector.
        """
        try:
            return detector_number(self.get("meta.instrument.detector"))
        except RampflowError as error:
            raise RampflowError(f"{self.path}: {error}") from None

    @property
    def frame_time(self) -> float:
        """Time per read, from ``meta.exposure.frame_time``.

        Returns
        -------
        float
            Seconds.

        Raises
        ------
        RampflowError
            The field is missing, or not a positive number.
        """
        value = self.get("meta.exposure.frame_time", (int, float))
        if not 0 < value < math.inf:
            raise RampflowError(f"{self.path}: meta.exposure.frame_time is {value}; it must be a positive number of seconds")
        return float(value)
