"""The declaration of a step: its references and parameters.

The command line, the schema of the configuration and the list of all parameters are generated from it. The other properties
of a step are in the table of steps, `rampflow.chain`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rampflow.chain import STEPS
from rampflow.files.links import original
from rampflow.files.tags import DATA_MODELS, DEFAULT_DATA_MODEL

if TYPE_CHECKING:
    import numpy as np

NOT_APPLICABLE = "N/A"  #: CRDS's value for a reference that an exposure does not need


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a step.

    Attributes
    ----------
    name : str
        Name of the option, and of the key in the configuration.
    type : type
        One of bool, int, float and str. `None` is accepted too if it is the default.
    default : object
        Default value.
    meaning : str
        Description for ``--help`` and the list of all parameters: one line, a noun phrase.
    unit : str
        Unit of the value.
    minimum, maximum : float or None
        Smallest and largest value accepted.
    choices : tuple
        Accepted values; empty if all values of the type are accepted.
    in_romancal : bool
        Whether romancal's step has this parameter, with the same name and default.
    """

    name: str
    type: type
    default: object
    meaning: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple = ()
    in_romancal: bool = True

    def schema(self) -> dict:
        """Make the JSON schema of a value.

        Returns
        -------
        dict
            The schema, with the default and a description.
        """
        kind = {bool: "boolean", int: "integer", float: "number", str: "string"}[self.type]
        text = self.meaning + (f" [{self.unit}]" if self.unit else "")
        result: dict[str, Any] = {"description": text, "type": [kind, "null"] if self.default is None else kind}
        result["default"] = self.default
        if self.minimum is not None:
            result["minimum"] = self.minimum
        if self.maximum is not None:
            result["maximum"] = self.maximum
        if self.choices:
            result["enum"] = list(self.choices)
        return result

    def parse(self, text: str) -> Any:
        """Read a value from the command line.

        Parameters
        ----------
        text : str
            The argument.

        Returns
        -------
        object
            The value.

        Raises
        ------
        argparse.ArgumentTypeError
            The text is not of the parameter's type, or out of range.
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
        if self.maximum is not None and value > self.maximum:
            raise argparse.ArgumentTypeError(f"takes no value above {self.maximum:g}, not {text!r}")
        if self.choices and value not in self.choices:
            raise argparse.ArgumentTypeError(f"takes one of {', '.join(self.choices)}, not {text!r}")
        return value


def format_value(value: object) -> str:
    """Write a parameter's value as on the command line and in the configuration.

    Parameters
    ----------
    value : object
        The value.

    Returns
    -------
    str
        Its text.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def add_parameters(parser: argparse.ArgumentParser, parameters: tuple[Parameter, ...]) -> None:
    """Add an option for each parameter, with its meaning, unit and default.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The command line to add to.
    parameters : tuple of Parameter
        The parameters.
    """
    for p in parameters:
        unit = f" [{p.unit}]" if p.unit else ""
        if p.type is bool:
            accepted = "{true,false}"
        elif p.choices:
            accepted = "{" + ",".join(p.choices) + "}"
        else:
            accepted = p.type.__name__.upper()
        text = f"{p.meaning}{unit} (default: {format_value(p.default)})".replace("%", "%%")
        parser.add_argument(f"--{p.name}", type=p.parse, default=p.default, metavar=accepted, help=text)


def add_parameter_sources(parser: argparse.ArgumentParser) -> None:
    """Add the option that records which parameters are from CRDS or from the configuration's ``overrides``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The command line to add to.
    """
    parser.add_argument(
        "--parameters_from",
        metavar="SOURCE:NAMES",
        action="append",
        default=[],
        help="source that set the parameters NAMES (with commas), to be recorded: a reference of CRDS, or overrides",
    )


@dataclasses.dataclass(frozen=True)
class Range:
    """Plausible values of a number or an array of a reference.

    The limits are far wider than the values of sound references, so that a value beyond them is a fault.

    Attributes
    ----------
    minimum, maximum : float
        Limits of each value. A pixel beyond them is treated as one without a reference value.
    unit : str
        Unit of the values.
    source : str
        Source of the limits: a measurement, or a reason.
    median : tuple of float, optional
        Limits of the median of an array; by default those of each value. A reference with a median beyond them is refused.
    plane : int, optional
        The plane of a 3-D array to which the limits apply.
    quantity : str
        Name of the quantity that the step derives from the values and checks with `Job.refuse_implausible`. Empty if the limits
        are those of the values themselves, which are checked when the reference is opened.
    """

    minimum: float
    maximum: float
    unit: str = ""
    source: str = ""
    median: tuple[float, float] | None = None
    plane: int | None = None
    quantity: str = ""

    def contains(self, values: np.ndarray) -> np.ndarray:
        """Tell which values are plausible.

        Parameters
        ----------
        values : numpy.ndarray
            Values, in the unit of the range.

        Returns
        -------
        numpy.ndarray of bool
            Whether each value is within the limits; False for NaN.
        """
        return (values >= self.minimum) & (values <= self.maximum)

    def count_unusual(self, values: np.ndarray) -> int:
        """Count the values that are plausible only for single bad pixels: within the limits, but beyond those of the median.

        Parameters
        ----------
        values : numpy.ndarray
            Values, in the unit of the range.

        Returns
        -------
        int
            Their number.
        """
        import numpy as np  # here, since the workflow imports the declarations and needs no numpy

        low, high = self.median_limits
        return int(np.count_nonzero(self.contains(values) & ((values < low) | (values > high))))

    def narrowed(self) -> Range:
        """Make a range that holds each value to the limits of the median.

        Returns
        -------
        Range
            The narrower range.
        """
        low, high = self.median_limits
        return dataclasses.replace(self, minimum=low, maximum=high)

    @property
    def median_limits(self) -> tuple[float, float]:
        """Smallest and largest plausible median.

        Returns
        -------
        (float, float)
            The limits, in the unit of the range.
        """
        return self.median or (self.minimum, self.maximum)


@dataclasses.dataclass(frozen=True)
class Reference:
    """One reference file that a step reads.

    Attributes
    ----------
    type : str
        Name of the type in CRDS, and of the command-line option.
    meaning : str
        Description for ``--help``, one line.
    needed : bool
        Whether the step fails without it. If not, N/A is accepted.
    skip_without : bool
        Whether the step is skipped without it. If not, the step decides what to do.
    plausible : dict
        `Range` of each array and number that is checked, by its dotted name in the file. ``{detector}`` and
        ``{optical_element}`` in a name are replaced by those of the exposure.
    made_for : tuple of str
        Metadata that must be the same in the reference and the exposure: ``detector``, ``optical_element``,
        ``exposure_type``. These are the keywords by which CRDS selects references of this type, without ``detector`` if one
        file serves all detectors.
    optional : bool
        Whether CRDS may lack it, and the option may be missing on the command line. Both mean N/A.
    crds_type : str
        Type in CRDS, if several references of a step have the same type there; by default, `type`.
    selected_by : dict
        Keywords by which CRDS selects it, besides the instrument, with their values; by default, those of the exposure.
    """

    type: str
    meaning: str
    needed: bool = False
    skip_without: bool = False
    plausible: dict[str, Range] = dataclasses.field(default_factory=dict)
    made_for: tuple[str, ...] = ("detector",)
    optional: bool = False
    crds_type: str = ""
    selected_by: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Step:
    """The declaration of a step.

    Attributes
    ----------
    name : str
        Name in the table of steps, `rampflow.chain.STEPS`.
    summary : str
        What the step does, for ``--help``.
    references : tuple of Reference
        Reference files that it reads.
    parameters : tuple of Parameter
        Its parameters.
    outputs : tuple of (str, str)
        Name and meaning of each file that it writes.
    """

    name: str
    summary: str
    references: tuple[Reference, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    outputs: tuple[tuple[str, str], ...] = (("output", "the exposure after this step (.asdf)"),)

    @property
    def status(self) -> str:
        """Name of its status in ``meta.cal_step``.

        Returns
        -------
        str
            The name.
        """
        return STEPS[self.name].status

    @property
    def suffix(self) -> str:
        """Suffix of the intermediate file that it writes.

        Returns
        -------
        str
            The suffix.
        """
        return STEPS[self.name].suffix

    @property
    def takes(self) -> str:
        """Data model of its input.

        Returns
        -------
        str
            Name of the data model.
        """
        return STEPS[self.name].takes

    def reference(self, reftype: str) -> Reference:
        """Look up the declaration of a reference.

        Parameters
        ----------
        reftype : str
            Type of the reference.

        Returns
        -------
        Reference
            Its declaration.
        """
        return next(reference for reference in self.references if reference.type == reftype)

    def parser(self) -> argparse.ArgumentParser:
        """Make the parser of the command line.

        Returns
        -------
        argparse.ArgumentParser
            The parser.
        """
        parser = argparse.ArgumentParser(
            prog=f"{self.name}.py", description=self.summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("input", metavar="INPUT", type=original, help="the exposure as the previous step wrote it (.asdf)")
        for name, meaning in self.outputs:
            parser.add_argument(name, metavar=name.upper(), type=Path, help=meaning)
        for reference in self.references:
            parser.add_argument(
                f"--{reference.type}",
                metavar="FILE",
                required=not reference.optional,
                default=NOT_APPLICABLE,
                help=reference.meaning + ("" if reference.needed else f"; {NOT_APPLICABLE} for none"),
            )
        add_parameters(parser, self.parameters)
        add_parameter_sources(parser)
        if self.references:
            parser.add_argument(
                "--allow_mismatch",
                action="store_true",
                help="use references made for another detector or optical element, with a warning (default: refuse them)",
            )
            parser.add_argument(
                "--chosen_by_crds",
                metavar="TYPES",
                default="",
                help="reference types, with commas, whose files CRDS selected for the optical element of this exposure",
            )
        if self.takes == "wfi_science_raw":  # the others write the data model of their input
            parser.add_argument(
                "--data_model",
                choices=tuple(DATA_MODELS),
                default=DEFAULT_DATA_MODEL,
                help=f"version of the data model to write (default: {DEFAULT_DATA_MODEL})",
            )
        parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores to use (default: 1)")
        parser.add_argument("--crds_context", metavar="NAME", help="CRDS context that chose the references, to be recorded")
        return parser


def reference_types(steps: Iterable[Step]) -> list[str]:
    """List the types of the references that steps read.

    Parameters
    ----------
    steps : iterable of Step
        The steps.

    Returns
    -------
    list of str
        Each type once, in the order of the steps.
    """
    return list(dict.fromkeys(reference.type for step in steps for reference in step.references))
