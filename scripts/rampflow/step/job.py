"""One run of a step: it opens the exposure and its references, and writes the result."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rampflow import SOFTWARE_NAME, __version__
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import EmptyArray, create_asdf
from rampflow.files.data_models import describe_newer_reference
from rampflow.files.in_memory import MemoryFile
from rampflow.files.links import original
from rampflow.files.tags import DEFAULT_DATA_MODEL
from rampflow.files.verified import remembering_intact_blocks
from rampflow.files.yaml_tree import tagged
from rampflow.step.declaration import NOT_APPLICABLE, Range, Reference, Step
from rampflow.step.exposure import Exposure
from rampflow.step.logs import recorded_log, step_logger
from rampflow.step.product import Product
from rampflow.step.provenance import crds_version, describe_parameter_sources, parameter_sources, reference_name, stamp
from rampflow.step.reference_checks import (
    MANY_BAD,
    MANY_UNUSUAL,
    check_made_for,
    check_plausible,
    metadata_value,
    refuse_implausible,
)

PROGRESS_INTERVAL = 10  #: seconds between two lines of the log with the progress of a step


class Job:
    """One run of a step: the exposure, its references and parameters, and the output.

    Parameters
    ----------
    step : Step
        Declaration of the step.
    file : AsdfFile or MemoryFile
        The exposure's file, open, or the exposure in memory.
    arguments : dict
        Values of the command line, by name.
    create : callable
        Writes an exposure: `create_asdf` to a file, or `rampflow.files.in_memory.InMemory.create` in memory.

    Attributes
    ----------
    step : Step
        Declaration of the step.
    exposure : Exposure
        The exposure as the previous step left it.
    parameters : types.SimpleNamespace
        Values of the step's parameters.
    references : dict
        Path of the reference file of each type, `None` for N/A.
    threads : int
        Cores to use.
    outputs : tuple of pathlib.Path
        Files to write.
    output : pathlib.Path
        The first of them: the exposure after this step.
    allow_mismatch : bool
        Whether to use references made for another detector or optical element.
    data_model : str
        Version of the data model that dq_init writes. The other steps write that of their input.
    log : logging.Logger
        The step's log.

    Raises
    ------
    RampflowError
        A reference is missing, an output is the same file as the input, or the exposure is not of the data model that the step
        takes.
    """

    def __init__(
        self,
        step: Step,
        file: AsdfFile | MemoryFile,
        arguments: dict,
        create: Callable[..., contextlib.AbstractContextManager] = create_asdf,
    ):
        self.step = step
        self._create = create
        self.exposure = Exposure(file)
        self.log = step_logger(step.name)
        self.threads = arguments["threads"]
        self.outputs = tuple(arguments[name] for name, _ in step.outputs)
        self.output = self.outputs[0]
        self.parameters = SimpleNamespace(**{p.name: arguments[p.name] for p in step.parameters})
        self.references = {r.type: self._reference_path(r, arguments[r.type]) for r in step.references}
        self._crds_context = arguments["crds_context"]
        self._references_read: set[str] = set()
        self._limits: dict[tuple[str, str], Range] = {}
        self.allow_mismatch = arguments.get("allow_mismatch", False)
        self.data_model = arguments.get("data_model", DEFAULT_DATA_MODEL)
        self._chosen_by_crds = arguments.get("chosen_by_crds", "").split(",")
        for path in self.outputs:
            if path.resolve() == file.path.resolve():
                raise RampflowError(f"{path}: is both the input and the output; give another name for the output")
        if step.takes != "wfi_science_raw":  # dq_init accepts several data models, and checks them itself
            self.exposure.expect_model(step.takes, step.name)
            self.exposure.check_arrays()
        self.exposure.meta.setdefault("cal_step", {})
        self.log.info("%s %s, step %s: %s -> %s", SOFTWARE_NAME, __version__, step.name, file.path.name, self.output.name)
        if step.parameters:
            self.log.info("Parameters: %s", ", ".join(f"{k}={v}" for k, v in vars(self.parameters).items()))
        self._parameters_from = arguments.get("parameters_from", [])
        for line in describe_parameter_sources(self._parameters_from):
            self.log.info(line)

    @staticmethod
    def _reference_path(reference: Reference, given: str) -> Path | None:
        if given == NOT_APPLICABLE:
            if reference.needed:
                raise RampflowError(f"--{reference.type} is {given}, but the step needs this reference: give a file")
            return None
        path = original(given)
        if not path.is_file():
            raise RampflowError(f"{path}: this {reference.type} reference does not exist")
        return path

    @contextlib.contextmanager
    def open_reference(self, reftype: str) -> Iterator[Exposure]:
        """Open a reference file, and record it in the log and in ``meta.ref_file``.

        Parameters
        ----------
        reftype : str
            Type of the reference.

        Yields
        ------
        Exposure
            The reference.

        Raises
        ------
        RampflowError
            The reference is of another type, or made for another detector or optical element, or its values are implausible.
        """
        path = self.reference_file(reftype)
        declaration = self.step.reference(reftype)
        self.log.info("Using %s reference file: %s", reftype.upper(), path)
        with AsdfFile(path) as file, remembering_intact_blocks(file):
            reference = Exposure(file)
            if reference.meta.get("reftype", reftype.upper()) != reftype.upper():
                raise RampflowError(
                    f"{path}: is a {reference.get('meta.reftype', str)} reference; give one of {reftype.upper()}"
                )
            newer = describe_newer_reference(reference.tag)
            if newer and reftype not in self._references_read:  # once, however often the step opens it
                self.log.warning("%s: %s", path.name, newer)
            check_made_for(
                reference,
                self.exposure,
                declaration,
                self.log,
                allow_mismatch=self.allow_mismatch,
                chosen_by_crds=reftype in self._chosen_by_crds,
            )
            names = ("detector", "optical_element")
            instrument = {name: str(metadata_value(self.exposure.meta, f"instrument.{name}")) for name in names}
            check_plausible(reference, declaration, instrument)
            self._references_read.add(reftype)
            yield reference

    def use_reference(self, reftype: str) -> Path:
        """Record a reference that is not an ASDF file in the log and in ``meta.ref_file``, without opening it.

        Parameters
        ----------
        reftype : str
            Type of the reference.

        Returns
        -------
        pathlib.Path
            The file.
        """
        path = self.reference_file(reftype)
        self.log.info("Using %s reference file: %s", reftype.upper(), path)
        self._references_read.add(reftype)
        return path

    def reference_file(self, reftype: str) -> Path:
        """Return the path of a reference that the step reads.

        Parameters
        ----------
        reftype : str
            Type of the reference.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        ValueError
            The reference is N/A, so that the step can't read it.
        """
        path = self.references[reftype]
        if path is None:
            raise ValueError(f"the step {self.step.name} opens the reference {reftype}, which is N/A")
        return path

    def refuse_implausible(self, reftype: str, field: str, value: float) -> None:
        """Refuse a reference if a quantity that the step derived from it is implausible.

        Parameters
        ----------
        reftype, field : str
            A field with a `Range.quantity` in the declaration of this reference.
        value : float
            Value of the quantity, in the unit of the range.

        Raises
        ------
        RampflowError
            The value is beyond the limits, or NaN.
        """
        limits = self.step.reference(reftype).plausible[field]
        quantity = f"{limits.quantity} ({field})"
        path = self.reference_file(reftype)
        refuse_implausible(path, quantity, value, (limits.minimum, limits.maximum), limits.unit, reftype)

    def plausible(self, reftype: str, field: str) -> Range:
        """Look up the limits of the pixels of a reference.

        Parameters
        ----------
        reftype, field : str
            A field with a `Range` in the declaration of this reference.

        Returns
        -------
        Range
            The limits as declared, or as narrowed by `narrow_limits`.
        """
        return self._limits.get((reftype, field)) or self.step.reference(reftype).plausible[field]

    def narrow_limits(self, reftype: str, field: str, unusual: int, total: int) -> bool:
        """Apply the limits of the median to each pixel of a field, if too many of the pixels are beyond them.

        Parameters
        ----------
        reftype, field : str
            A field with a `Range` in the declaration of this reference.
        unusual : int
            Sum of `Range.count_unusual` over its pixels.
        total : int
            Number of its pixels.

        Returns
        -------
        bool
            Whether the limits have changed. If so, the step must process its rows again.
        """
        if unusual <= MANY_UNUSUAL * total or (reftype, field) in self._limits:
            return False
        limits = self.plausible(reftype, field).narrowed()
        self._limits[reftype, field] = limits
        self.log.warning(
            "%s: %.3g %% of %s lie beyond %g to %g%s, too many for single bad pixels: they count as bad pixels; check the "
            "reference",
            self.reference_file(reftype).name,
            100 * unusual / total,
            field,
            limits.minimum,
            limits.maximum,
            f" {limits.unit}" if limits.unit else "",
        )
        return True

    def log_bad_pixels(self, reftype: str, field: str, number: int, total: int, consequence: str) -> None:
        """Log how many pixels of a reference are not finite or implausible, as a warning if they are more than `MANY_BAD`.

        Parameters
        ----------
        reftype, field : str
            The field of the reference.
        number, total : int
            Number of these pixels, and of all.
        consequence : str
            How the step treats them.
        """
        if not number:
            return
        limits = self.plausible(reftype, field)
        self.log.log(
            logging.WARNING if number > MANY_BAD * total else logging.INFO,
            "%d of %d pixels of the %s reference are not finite or beyond %g to %g%s: %s",
            number,
            total,
            reftype,
            limits.minimum,
            limits.maximum,
            f" {limits.unit}" if limits.unit else "",
            consequence,
        )

    def map_rows(self, function: Callable[[int, int], Any], rows: int, block: int = 32) -> list:
        """Call a function for each block of rows, several blocks at a time.

        The progress is logged every `PROGRESS_INTERVAL` seconds.

        Parameters
        ----------
        function : callable
            Takes the first row of a block, and the one after its last.
        rows : int
            Number of all rows.
        block : int
            Number of rows of a block.

        Returns
        -------
        list
            What the function returned for each block, in order.
        """
        starts = range(0, rows, block)
        stops = [min(start + block, rows) for start in starts]
        results = []
        logged = time.monotonic()
        with ThreadPoolExecutor(self.threads) as pool:
            for stop, result in zip(stops, pool.map(function, starts, stops), strict=True):
                results.append(result)
                if time.monotonic() - logged >= PROGRESS_INTERVAL:
                    self.log.info("Rows done: %d of %d", stop, rows)
                    logged = time.monotonic()
        return results

    def map_rows_with_reference(
        self,
        reftype: str,
        field: str,
        function: Callable[[int, int], tuple[int, int]],
        shape: tuple[int, int],
        consequence: str,
    ) -> None:
        """Call a function for each block of rows with a reference, and log how many pixels of the reference are bad.

        If too many pixels are unusual (`narrow_limits`), all rows are processed again, with the narrower limits.

        Parameters
        ----------
        reftype, field : str
            The field of the reference that the function reads.
        function : callable
            Takes the first row of a block, and the one after its last. It reads the limits with `plausible`, and returns the
            number of bad pixels of the reference and the sum of `Range.count_unusual`.
        shape : tuple of int
            Rows and columns.
        consequence : str
            How the step treats bad pixels, for the log.
        """
        rows, columns = shape
        bad, unusual = np.sum(self.map_rows(function, rows), axis=0)
        if self.narrow_limits(reftype, field, unusual, rows * columns):
            bad, _ = np.sum(self.map_rows(function, rows), axis=0)
        self.log_bad_pixels(reftype, field, bad, rows * columns, consequence)

    @contextlib.contextmanager
    def create(
        self,
        *,
        rewrite: tuple[str, ...] = (),
        update: tuple[str, ...] = (),
        change: tuple[str, ...] = (),
        arrays: dict | None = None,
        roman: dict | None = None,
    ) -> Iterator[Product]:
        """Write the output: a copy of the input, except for the arrays that are named here.

        Parameters
        ----------
        rewrite : tuple of str
            Arrays of the input that are replaced by others of the same shape and dtype. The step writes all their values with
            the methods of `Product`.
        update : tuple of str
            As `rewrite`, for arrays that the step processes in one pass: it never reads a row or plane after writing it. In
            memory, the new values then overwrite the old ones.
        change : tuple of str
            Arrays of which the step overwrites a part, which it does not read again; the rest is copied from the input. In
            memory, nothing is copied.
        arrays : dict, optional
            New arrays by name, or arrays with a new shape or dtype: a `numpy.ndarray`, or an `EmptyArray` whose values the step
            writes.
        roman : dict, optional
            Tree that replaces that of the input.

        Yields
        ------
        Product
            The output, with the methods that write its arrays, its metadata and its status.

        Raises
        ------
        RampflowError
            The output can't be written.
        """
        source: Any = self.exposure.roman if roman is None else roman
        new = tagged(source, source.tag)
        for name in (*rewrite, *update):
            old, node = self.exposure.array(name), self.exposure.get(name)
            in_memory = node if name in update and isinstance(self.exposure.file, MemoryFile) else None
            new[name] = EmptyArray(old.shape, old.dtype.newbyteorder("="), replaces=in_memory)
        new.update(arrays or {})
        tree = dict(self.exposure.tree, roman=new)
        with self._create(self.output, tree, self.exposure.file.standard) as writer:
            product = Product(writer, self.exposure, new, {*rewrite, *update, *change, *(arrays or {})})
            yield product
            self._record(new["meta"], product.status)

    def pass_on(self) -> None:
        """Write a copy of an exposure that saturation marked SKIPPED; only its name and log are new."""
        with self.create() as product:
            product.status = self.exposure.meta["cal_step"].get(self.step.status, "SKIPPED")

    def skip(self, reason: str) -> None:
        """Write the input with the step's status SKIPPED.

        Parameters
        ----------
        reason : str
            Reason, for the log.
        """
        self.log.warning("%s; the step is skipped", reason)
        with self.create() as product:
            product.status = "SKIPPED"

    def references_used(self) -> dict:
        """List the references that were read.

        Returns
        -------
        dict
            Entries for ``meta.ref_file``: the name of each reference by its type, N/A for those that were not read (without
            optional ones), those that have set parameters, and the CRDS context.
        """
        used: dict[str, Any] = {
            reftype: reference_name(path) if path and reftype in self._references_read else NOT_APPLICABLE
            for reftype, path in self.references.items()
            if reftype in self._references_read or not self.step.reference(reftype).optional
        }
        used |= parameter_sources(self._parameters_from)
        if self._crds_context:
            used["crds"] = {"context": self._crds_context, "version": crds_version()}
        return used

    def _record(self, meta: dict, status: str) -> None:
        if status == "SKIPPED":  # the references that were read had no effect
            self._references_read.clear()
        meta["cal_step"][self.step.status] = status
        meta.setdefault("ref_file", {}).update(self.references_used())
        stamp(meta, self.output.name)
        self.log.info("Step %s: %s", self.step.name, status)
        meta["cal_logs"] = [*meta.get("cal_logs", []), *recorded_log()]
