"""What a step is, how it is told what to do, and how it reads and writes one exposure.

A step script declares a `Step` (its name, references and parameters, once) and has a function that takes a `Job`. The
command line, the workflow's configuration schema and the parameter reference all follow from the declaration.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import gc
import logging
import math
import os
import reprlib
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from wfi import SOFTWARE_NAME, __version__
from wfi.asdf_io import AsdfFile, EmptyArray, StoredArray, create_asdf, tagged
from wfi.detector import BORDER, check_shape, detector_number
from wfi.errors import RampflowError

SCRIPTS = Path(__file__).resolve().parent.parent

NOT_APPLICABLE = "N/A"  #: CRDS's word for a reference that an exposure does without

PROGRESS_INTERVAL = 10  #: seconds between the lines of a log that say how far a step is

LOG_KEY = b"rampflow.cal_logs"  #: in the metadata of an intermediate catalog: the log of its step, for the image's ``cal_logs``

ROMAN_TAGS = "asdf://stsci.edu/datamodels/roman/tags/"
RAMP_TAG = ROMAN_TAGS + "ramp-2.1.0"
IMAGE_TAG = ROMAN_TAGS + "wfi_image-2.1.0"

#: Parts of the metadata that steps read or add to: mappings, where they are there.
SECTIONS = (
    *("cal_step", "exposure", "guide_star", "instrument", "observation", "pointing", "ref_file", "velocity_aberration"),
    *("visit", "wcsinfo"),
)

#: The entries of ``meta.cal_step`` (RAD's l2_cal_step-2.0.0) that are this pipeline's steps, and those of the next ones.
STATUSES = (
    "dq_init",
    "saturation",
    "refpix",
    "dark_decay",
    "wfi18_transient",
    "linearity",
    "ramp_fit",
    "dark",
    "assign_wcs",
    "photom",
    "flat_field",
    "source_catalog",
    "tweakreg",
)
LATER_STATUSES = ("flux", "outlier_detection", "skymatch")


# --------------------------------------------------------------------------------------------------------- declarations
@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a step: its name and default are romancal's.

    Attributes
    ----------
    name : str
    type : type
        bool, int, float or str; `None` is accepted where it is the default.
    default : object
    meaning : str
        One line, for ``--help`` and the parameter reference.
    unit : str
    minimum : float or None
        Smallest value accepted.
    choices : tuple
        The values accepted, where they are few.
    """

    name: str
    type: type
    default: object
    meaning: str
    unit: str = ""
    minimum: float | None = None
    choices: tuple = ()

    def schema(self) -> dict:
        """JSON schema of a value."""
        kind = {bool: "boolean", int: "integer", float: "number", str: "string"}[self.type]
        result = {"type": [kind, "null"] if self.default is None else kind, "default": self.default}
        if self.minimum is not None:
            result["minimum"] = self.minimum
        if self.choices:
            result["enum"] = list(self.choices)
        return result

    def parse(self, text: str):
        """Value of a command-line argument.

        Raises
        ------
        argparse.ArgumentTypeError
            Not of the type, or out of range.
        """
        if self.default is None and text == "null":
            return None
        try:
            value = {"true": True, "false": False}[text.lower()] if self.type is bool else self.type(text)
        except (KeyError, ValueError):
            takes = "true or false" if self.type is bool else f"a value of type {self.type.__name__}"
            raise argparse.ArgumentTypeError(f"takes {takes}, not {text!r}") from None
        if self.type is float and not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"takes a finite number, not {text!r}")
        if self.minimum is not None and value < self.minimum:
            raise argparse.ArgumentTypeError(f"takes no value below {self.minimum:g}, not {text!r}")
        if self.choices and value not in self.choices:
            raise argparse.ArgumentTypeError(f"takes one of {', '.join(self.choices)}, not {text!r}")
        return value


def spell(value) -> str:
    """A parameter's value as it is written on the command line and in the configuration."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def add_parameters(parser: argparse.ArgumentParser, parameters: tuple[Parameter, ...]) -> None:
    """Add an option for each parameter, with its meaning, unit and default."""
    for p in parameters:
        unit = f" [{p.unit}]" if p.unit else ""
        takes = "{true,false}" if p.type is bool else "{" + ",".join(p.choices) + "}" if p.choices else p.type.__name__.upper()
        text = f"{p.meaning}{unit} (default: {spell(p.default)})".replace("%", "%%")
        parser.add_argument(f"--{p.name}", type=p.parse, default=p.default, metavar=takes, help=text)


@dataclasses.dataclass(frozen=True)
class Reference:
    """One reference file that a step reads.

    Attributes
    ----------
    type : str
        CRDS's name of the type, also the name of the command-line option.
    meaning : str
    needed : bool
        Without it the step fails; otherwise N/A is accepted, and the step decides what that means.
    """

    type: str
    meaning: str
    needed: bool = False


@dataclasses.dataclass(frozen=True)
class Step:
    """The declaration of a step.

    Attributes
    ----------
    name : str
        Name of the script, of the rule and of the key in the configuration.
    status : str
        Name in ``meta.cal_step``.
    suffix : str
        Suffix of the intermediate file (romancal's).
    takes : str
        The data model that it works on: ``wfi_science_raw``, ``ramp`` or ``wfi_image``.
    summary : str
        What it turns into what, for ``--help``.
    references : tuple of Reference
    parameters : tuple of Parameter
    outputs : tuple of (str, str)
        Name and meaning of each file that it writes.
    """

    name: str
    status: str
    suffix: str
    takes: str
    summary: str
    references: tuple[Reference, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    outputs: tuple[tuple[str, str], ...] = (("output", "the exposure after this step (.asdf)"),)

    def parser(self) -> argparse.ArgumentParser:
        """The command line."""
        parser = argparse.ArgumentParser(
            prog=f"{self.name}.py", description=self.summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("input", metavar="INPUT", type=Path, help="the exposure as the step before left it (.asdf)")
        for name, meaning in self.outputs:
            parser.add_argument(name, metavar=name.upper(), type=Path, help=meaning)
        for reference in self.references:
            parser.add_argument(
                f"--{reference.type}",
                metavar="FILE",
                required=True,
                help=reference.meaning + ("" if reference.needed else f"; {NOT_APPLICABLE} for none"),
            )
        add_parameters(parser, self.parameters)
        parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores to use (default: 1)")
        parser.add_argument("--crds_context", metavar="NAME", help="CRDS context that chose the references, to be recorded")
        return parser

    def main(self, function, argv: list[str] | None = None, *, when_skipped=None) -> int:
        """Run the step as a program: `function(job)` does the work.

        An exposure whose status for this step is SKIPPED already (a fully saturated one: saturation marks all that would
        follow) goes to `when_skipped`, by default `Job.pass_on`.

        Returns
        -------
        int
            Exit status: 0, or 1 after an error message.
        """
        arguments = vars(self.parser().parse_args(argv))
        if arguments["threads"] < 1:
            self.parser().error("argument --threads: takes a positive number")
        with reported_errors(self.name, arguments["input"]) as outcome, AsdfFile(arguments["input"]) as file:
            job = Job(self, file, arguments)
            if job.exposure.meta["cal_step"].get(self.status) == "SKIPPED":
                job.log.info("The exposure is marked as one that this step has nothing to do for")
                (when_skipped or Job.pass_on)(job)
            else:
                function(job)
        return outcome.status


# ----------------------------------------------------------------------------------------------------------------- logs
log = logging.getLogger(SOFTWARE_NAME)


class _MemoryHandler(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record):
        self.lines.append(self.format(record))


_memory = _MemoryHandler()


def configure_logging() -> None:
    """Send the log to standard error, and keep it for ``meta.cal_logs``, in romancal's form with times in UTC."""
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ :: %(name)s :: %(levelname)s :: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    log.handlers.clear()
    _memory.lines.clear()
    for handler in (logging.StreamHandler(sys.stderr), _memory):
        handler.setFormatter(formatter)
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers = log.handlers


def recorded_log() -> list[str]:
    """The lines logged so far by this program."""
    return list(_memory.lines)


def step_logger(name: str) -> logging.Logger:
    """The logger of a step or a module."""
    return log.getChild(name)


@contextlib.contextmanager
def reported_errors(program: str, about: Path | None = None):
    """Turn an error into one line on standard error and an exit status of 1; `about` is the file that the program works on."""
    configure_logging()
    # What imports and YAML trees make stays: to look through it for garbage again and again takes a twentieth of the time.
    gc.set_threshold(100_000)
    outcome = SimpleNamespace(status=0)
    try:
        yield outcome
    except RampflowError as error:
        log.error("%s: %s", program, error)
        outcome.status = 1
    except MemoryError:
        log.error("%s: not enough memory; give the job more, or use fewer --threads", program)
        outcome.status = 1
    except Exception as error:  # a fault that no check foresaw: one line too, with the places in our code that it came through
        places = [
            f"{Path(frame.filename).name}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).is_relative_to(SCRIPTS)
        ]
        log.error(
            "%s: %s can't be processed: %s: %s (at %s). It or one of its references is damaged: get it again; if it is sound, "
            "report this line",
            program,
            about or "an input",
            type(error).__name__,
            " ".join(str(error).split())[:300],
            ", ".join(places),
        )
        outcome.status = 1
    # The interpreter's last search for garbage, through all that was imported, would take half a second.
    gc.freeze()


# ------------------------------------------------------------------------------------------------------------- exposures
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
        return getattr(self.roman, "tag", "").removeprefix(ROMAN_TAGS)

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
    log : `logging.Logger`
    """

    def __init__(self, step: Step, file: AsdfFile, arguments: dict):
        self.step, self.exposure, self.log = step, Exposure(file), step_logger(step.name)
        self.outputs, self.threads = tuple(arguments[name] for name, _ in step.outputs), arguments["threads"]
        self.output = self.outputs[0]
        self.parameters = SimpleNamespace(**{p.name: arguments[p.name] for p in step.parameters})
        self.references = {r.type: self._reference_path(r, arguments[r.type]) for r in step.references}
        self._crds_context = arguments["crds_context"]
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
        path = Path(given)
        if not path.is_file():
            raise RampflowError(f"{path}: this {reference.type} reference does not exist")
        return path

    @contextlib.contextmanager
    def open_reference(self, reftype: str):
        """Open a reference file; its log line says which.

        Raises
        ------
        RampflowError
            It says that it is of another type.
        """
        path = self.references[reftype]
        self.log.info("Using %s reference file: %s", reftype.upper(), path)
        with AsdfFile(path) as file:
            reference = Exposure(file)
            if reference.meta.get("reftype", reftype.upper()) != reftype.upper():
                raise RampflowError(
                    f"{path}: is a {reference.get('meta.reftype', str)} reference; give one of {reftype.upper()}"
                )
            yield reference

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
        """Entries for ``meta.ref_file``: the references by type, and the CRDS context that chose them, if it is known."""
        used = {t: NOT_APPLICABLE if path is None else reference_name(path) for t, path in self.references.items()}
        if self._crds_context:
            used["crds"] = {"context": self._crds_context, "version": crds_version()}
        return used

    def _record(self, meta: dict, status: str) -> None:
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


def stamp(meta: dict, filename: str) -> None:
    """Record the file's name, the time and the software in `meta`."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    meta["filename"] = filename
    meta["file_date"] = tagged({"base_format": "datetime", "value": now}, "tag:stsci.edu:asdf/time/time-1.4.0")
    meta["calibration_software_name"] = SOFTWARE_NAME
    meta["calibration_software_version"] = __version__


def reference_name(path: Path) -> str:
    """Name to record for a reference: ``crds://…`` for a file of a CRDS cache, the path as it was given for another."""
    parts = path.parts
    in_cache = any(parts[i : i + 2] == ("references", "roman") for i in range(len(parts) - 1))
    return f"crds://{path.name}" if in_cache else os.fspath(path)


def crds_version() -> str:
    """Version of the `crds` package, for ``meta.ref_file.crds``; empty where it is not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version("crds")
    except importlib.metadata.PackageNotFoundError:
        return ""
