"""One exposure in a file, with errors that name the file and the field."""

from __future__ import annotations

import math
import reprlib

from rampflow.detector import BORDER, check_shape, detector_number
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.stored_array import StoredArray
from rampflow.files.tags import ROMAN_PREFIX

#: Parts of the metadata that steps read or add to: mappings, where they are there.
SECTIONS = (
    *("cal_step", "exposure", "guide_star", "instrument", "observation", "pointing", "ref_file", "velocity_aberration"),
    *("visit", "wcsinfo"),
)


class Exposure:
    """The ``roman`` tree of an exposure in a file, with errors that name the file and the field.

    Attributes
    ----------
    path : `pathlib.Path`
    tree : dict
        The whole tree of the file.
    roman : dict
        Arrays (`StoredArray`) and ``meta``.
    """

    def __init__(self, file: AsdfFile):
        self.file, self.path, self.tree = file, file.path, file.tree
        self.roman = file.tree.get("roman")
        if not isinstance(self.roman, dict) or not isinstance(self.roman.get("meta"), dict):
            raise RampflowError(f"{self.path}: has no 'roman' tree with 'meta'; it is not a Roman data model")
        for name, kind in (*((name, dict) for name in SECTIONS), ("cal_logs", list)):
            if name in self.meta:
                self.get(f"meta.{name}", kind)

    @property
    def meta(self) -> dict:
        """The metadata."""
        return self.roman["meta"]

    @property
    def tag(self) -> str:
        """Name of the data model and its version, as ``ramp-2.1.0``; empty when the tree has no tag."""
        return getattr(self.roman, "tag", "").removeprefix(ROMAN_PREFIX)

    def expect_model(self, model: str, program: str) -> None:
        """Refuse an exposure that is not of a data model, as ``ramp``.

        Raises
        ------
        RampflowError
            It is of another one.
        """
        name = self.tag.rpartition("-")[0]
        if name != model:
            raise RampflowError(
                f"{self.path}: holds the data model {name or 'of no name'!r}, and {program} works on {model!r}; "
                "give it the file that the step before wrote"
            )

    def get(self, field: str, kind: type | tuple = object):
        """Value of a dotted field as ``meta.exposure.frame_time``.

        Raises
        ------
        RampflowError
            It is missing or not of `kind`.
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
        """A finite number.

        Raises
        ------
        RampflowError
            It is missing, no number, or not finite.
        """
        value = self.get(field, (int, float))
        if not abs(value) < math.inf:
            raise RampflowError(f"{self.path}: {field} is {value}; it must be a finite number")
        return value

    def array(
        self, name: str, ndim: int | None = None, *, shape: tuple[int, ...] | None = None, kinds: str | None = None
    ) -> StoredArray:
        """The stored array `name`.

        Its values are of one of the `kinds` (of `numpy.dtype.kind`): by default flags (dq) unsigned integers, others real
        numbers.

        Raises
        ------
        RampflowError
            It is missing, or has another number of axes, another shape, or values of another kind.
        """
        array = self.get(name)
        if not hasattr(array, "dtype"):
            raise RampflowError(f"{self.path}: {name} is not an array")
        if not isinstance(array, StoredArray):  # inline in the tree: the same face as one in a block
            array = InlineArray(array)
        if array.dtype.kind not in (kinds or ("u" if "dq" in name else "fiu")):
            raise RampflowError(f"{self.path}: {name} holds values of type {array.dtype.name}, which it can't be made of")
        if ndim is not None and array.ndim != ndim:
            raise RampflowError(f"{self.path}: {name} has {array.ndim} axes; it must have {ndim}")
        if shape is not None and array.shape != tuple(shape):
            raise RampflowError(
                f"{self.path}: {name} has the shape {array.shape}, and {tuple(shape)} is needed to fit the exposure"
            )
        return array

    def check_arrays(self) -> None:
        """Refuse a ramp or an image whose arrays don't fit each other: a kernel would read beyond them.

        Raises
        ------
        RampflowError
        """
        data = self.array("data")
        if data.ndim == 3:
            check_shape(self.path, data.shape)
            self.array("groupdq", shape=data.shape)
            self.array("pixeldq", shape=data.shape[1:])
            if self.meta.get("cal_step", {}).get("refpix") == "COMPLETE":  # what follows changes these too
                for side in ("left", "right"):
                    self.array(f"border_ref_pix_{side}", shape=(*data.shape[:2], BORDER))
        else:
            for name in ("dq", "err", "var_poisson", "chisq", "dumo"):
                self.array(name, shape=data.shape)

    @property
    def read_pattern(self) -> list[list[int]]:
        """``meta.exposure.read_pattern``: the 1-based reads of each resultant, checked against the data."""
        pattern = self.get("meta.exposure.read_pattern", list)
        reads = [list(r) if isinstance(r, list) else None for r in pattern]
        if not reads or any(not r or any(type(n) is not int or n < 1 for n in r) for r in reads):
            raise RampflowError(
                f"{self.path}: meta.exposure.read_pattern must list the reads of each resultant, as [[1], [2, 3]]"
            )
        flat = [n for r in reads for n in r]
        if any(b <= a for a, b in zip(flat, flat[1:], strict=False)):
            raise RampflowError(f"{self.path}: the reads of meta.exposure.read_pattern must increase")
        resultants = self.array("data").shape[0]
        if len(reads) != resultants:
            raise RampflowError(
                f"{self.path}: meta.exposure.read_pattern lists {len(reads)} resultants and data has {resultants}; "
                "the file is inconsistent, make it again"
            )
        return reads

    @property
    def detector(self) -> int:
        """Number of the detector, from ``meta.instrument.detector``."""
        try:
            return detector_number(self.get("meta.instrument.detector"))
        except RampflowError as error:
            raise RampflowError(f"{self.path}: {error}") from None

    @property
    def frame_time(self) -> float:
        """Seconds per read."""
        value = self.get("meta.exposure.frame_time", (int, float))
        if not 0 < value < math.inf:
            raise RampflowError(f"{self.path}: meta.exposure.frame_time is {value}; it must be a positive number of seconds")
        return float(value)


class InlineArray:
    """An array written in the tree itself, with the methods of `StoredArray`."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.ndim, self.nbytes = array, array.shape, array.dtype, array.ndim, array.nbytes

    def read(self):
        """As `StoredArray.read`."""
        return self._array.copy()

    def read_rows(self, start, stop):
        """As `StoredArray.read_rows`."""
        return self._array[..., max(start, 0) : stop, :].copy()

    def read_plane(self, index, out=None):
        """As `StoredArray.read_plane`."""
        if out is None:
            return self._array[index].copy()
        out[...] = self._array[index]
        return out
