"""One run of a step: the exposure, its references and parameters, and the way to write the result."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from rampflow import SOFTWARE_NAME, __version__
from rampflow.detector import BORDER
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import EmptyArray, create_asdf
from rampflow.files.links import original
from rampflow.files.yaml_tree import tagged
from rampflow.step.declaration import NOT_APPLICABLE, Reference, Step
from rampflow.step.exposure import Exposure
from rampflow.step.logs import recorded_log, step_logger
from rampflow.step.provenance import crds_version, reference_name, stamp
from rampflow.step.reference_checks import MANY, check_made_for, check_plausible, metadata_value, refuse_implausible

PROGRESS_INTERVAL = 10  #: seconds between the lines of a log that say how far a step is


class Job:
    """One run of a step: the exposure, its references and parameters, and the way to write the result.

    Attributes
    ----------
    step : Step
    exposure : Exposure
    parameters : `types.SimpleNamespace`
    references : dict
        Reference type to path, `None` for N/A.
    threads : int
    outputs : tuple of `pathlib.Path`
    output : `pathlib.Path`
        The first of them.
    allow_mismatch : bool
        Whether references made for something else are used.
    log : `logging.Logger`
    """

    def __init__(self, step: Step, file: AsdfFile, arguments: dict):
        self.step, self.exposure, self.log = step, Exposure(file), step_logger(step.name)
        self.outputs, self.threads = tuple(arguments[name] for name, _ in step.outputs), arguments["threads"]
        self.output = self.outputs[0]
        self.parameters = SimpleNamespace(**{p.name: arguments[p.name] for p in step.parameters})
        self.references = {r.type: self._reference_path(r, arguments[r.type]) for r in step.references}
        self._crds_context, self._read = arguments["crds_context"], set()
        self.allow_mismatch = arguments.get("allow_mismatch", False)
        self._chosen_by_crds = arguments.get("chosen_by_crds", "").split(",")
        for path in self.outputs:
            if path.resolve() == file.path.resolve():
                raise RampflowError(f"{path}: is the input too; give another name for the output")
        if step.takes != "wfi_science_raw":  # dq_init takes several models, and says so itself
            self.exposure.expect_model(step.takes, step.name)
            self.exposure.check_arrays()
        self.exposure.meta.setdefault("cal_step", {})
        self.log.info("%s %s, step %s: %s -> %s", SOFTWARE_NAME, __version__, step.name, file.path.name, self.output.name)
        if step.parameters:
            self.log.info("Parameters: %s", ", ".join(f"{k}={v}" for k, v in vars(self.parameters).items()))

    @staticmethod
    def _reference_path(reference: Reference, given: str) -> Path | None:
        if given == NOT_APPLICABLE:
            if reference.needed:
                raise RampflowError(f"--{reference.type} is {given}, and the step can't do without it: give a file")
            return None
        path = original(given)
        if not path.is_file():
            raise RampflowError(f"{path}: this {reference.type} reference does not exist")
        return path

    @contextlib.contextmanager
    def open_reference(self, reftype: str):
        """Open a reference file; its log line says which, and ``meta.ref_file`` will name it.

        Raises
        ------
        RampflowError
            It says that it is of another type, or made for another detector or optical element, or its values are
            implausible.
        """
        path, declaration = self.references[reftype], self.step.reference(reftype)
        self.log.info("Using %s reference file: %s", reftype.upper(), path)
        with AsdfFile(path) as file:
            reference = Exposure(file)
            if reference.meta.get("reftype", reftype.upper()) != reftype.upper():
                raise RampflowError(
                    f"{path}: is a {reference.get('meta.reftype', str)} reference; give one of {reftype.upper()}"
                )
            chosen = {"allow_mismatch": self.allow_mismatch, "chosen_by_crds": reftype in self._chosen_by_crds}
            check_made_for(reference, self.exposure, declaration, self.log, **chosen)
            names = ("detector", "optical_element")
            check_plausible(
                reference, declaration, {n: str(metadata_value(self.exposure.meta, f"instrument.{n}")) for n in names}
            )
            self._read.add(reftype)
            yield reference

    def refuse_implausible(self, reftype: str, field: str, value: float) -> None:
        """Refuse a reference for what the step derived from the values of a field.

        Parameters
        ----------
        reftype, field : str
            A field with a `Range.quantity` in the declaration of this reference.
        value : float

        Raises
        ------
        RampflowError
            The value is beyond the limits; NaN is.
        """
        limits = self.step.reference(reftype).plausible[field]
        quantity = f"{limits.quantity} ({field})"
        refuse_implausible(self.references[reftype], quantity, value, (limits.minimum, limits.maximum), limits.unit, reftype)

    def log_bad_pixels(self, reftype: str, field: str, number: int, total: int, consequence: str) -> None:
        """Say how many pixels of a reference are not finite or implausible, and what becomes of them: a warning for many."""
        if not number:
            return
        limits = self.step.reference(reftype).plausible[field]
        say = self.log.warning if number > MANY * total else self.log.info
        say(
            "%d of %d pixels of the %s reference are not finite or beyond %g to %g%s: %s",
            number,
            total,
            reftype,
            limits.minimum,
            limits.maximum,
            f" {limits.unit}" if limits.unit else "",
            consequence,
        )

    def map_rows(self, function, rows: int, block: int = 16) -> list:
        """Call `function(start, stop)` for blocks of rows, `threads` at a time, and list what it returns in order.

        The log says how far it is every `PROGRESS_INTERVAL` seconds: nothing where the work takes less.
        """
        starts = range(0, rows, block)
        stops = [min(start + block, rows) for start in starts]
        results, told = [], time.monotonic()
        with ThreadPoolExecutor(self.threads) as pool:
            for stop, result in zip(stops, pool.map(function, starts, stops), strict=True):
                results.append(result)
                if time.monotonic() - told >= PROGRESS_INTERVAL:
                    self.log.info("Rows done: %d of %d", stop, rows)
                    told = time.monotonic()
        return results

    @contextlib.contextmanager
    def create(self, *, rewrite: tuple[str, ...] = (), arrays: dict | None = None, roman: dict | None = None):
        """Write the output: what is not named here is carried over from the input.

        Parameters
        ----------
        rewrite : tuple of str
            Arrays of the input that will be written anew, with their shape and dtype.
        arrays : dict
            Arrays by name that are new or change their form: `numpy.ndarray` or `EmptyArray`.
        roman : dict, optional
            A whole tree in place of the input's.

        Yields
        ------
        Product
        """
        roman = self.exposure.roman if roman is None else roman
        new = tagged(roman, roman.tag)
        for name in rewrite:
            source = self.exposure.array(name)
            new[name] = EmptyArray(source.shape, source.dtype.newbyteorder("="))
        new.update(arrays or {})
        tree = dict(self.exposure.tree, roman=new)
        with create_asdf(self.output, tree, self.exposure.file.standard) as writer:
            product = Product(writer, new)
            yield product
            self._record(new["meta"], product.status)

    def pass_on(self) -> None:
        """Write the input unchanged but for its name and log: the step has nothing to do for this exposure."""
        with self.create() as product:
            product.status = self.exposure.meta["cal_step"].get(self.step.status, "SKIPPED")

    def skip(self, reason: str) -> None:
        """Write the input with the step's status SKIPPED, and say why."""
        self.log.warning("%s; the step is skipped", reason)
        with self.create() as product:
            product.status = "SKIPPED"

    def references_used(self) -> dict:
        """Entries for ``meta.ref_file``: the references that were read by type, N/A for the others, and the CRDS context."""
        used = {t: reference_name(path) if t in self._read else NOT_APPLICABLE for t, path in self.references.items()}
        if self._crds_context:
            used["crds"] = {"context": self._crds_context, "version": crds_version()}
        return used

    def _record(self, meta: dict, status: str) -> None:
        if status == "SKIPPED":  # what was read of them doesn't fit, and changed nothing
            self._read.clear()
        meta["cal_step"][self.step.status] = status
        meta.setdefault("ref_file", {}).update(self.references_used())
        stamp(meta, self.output.name)
        self.log.info("Step %s: %s", self.step.name, status)
        meta["cal_logs"] = [*meta.get("cal_logs", []), *recorded_log()]


class Product:
    """The output of a step while it is written."""

    def __init__(self, writer, roman):
        self._writer, self.roman, self.meta, self.status = writer, roman, roman["meta"], "COMPLETE"

    def write(self, name, values):
        """Write the whole array `name`."""
        self._writer.write(self.roman[name], values)

    def write_rows(self, name, start, values):
        """Write rows from `start` on of every plane of the array `name`."""
        self._writer.write_rows(self.roman[name], start, values)

    def write_ramp_rows(self, start, rows):
        """Write rows of the ramp's data, and of the left and right border arrays where refpix made them the ramp's columns.

        (In romancal's pipeline refpix makes them views of the ramp; what follows changes both.)
        """
        self.write_rows("data", start, rows)
        if self.meta["cal_step"].get("refpix") == "COMPLETE":
            self.write_rows("border_ref_pix_left", start, rows[:, :, :BORDER])
            self.write_rows("border_ref_pix_right", start, rows[:, :, -BORDER:])

    def write_plane(self, name, index, values):
        """Write one plane of the array `name`."""
        self._writer.write_plane(self.roman[name], index, values)
