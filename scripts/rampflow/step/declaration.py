"""The declaration of a step: its references and its parameters, once; the table of steps has the rest.

The command line, the workflow's configuration schema and the parameter reference all follow from it.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

from rampflow.chain import STEPS
from rampflow.files.links import original

NOT_APPLICABLE = "N/A"  #: CRDS's word for a reference that an exposure does without


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
class Range:
    """Plausible values of an array or a number of a reference: far wider than any sound one, so that only faults lie outside.

    Attributes
    ----------
    minimum, maximum : float
        Of each value. A pixel beyond them counts as one that the reference doesn't know.
    unit : str
    source : str
        Where the limits come from.
    median : tuple of float, optional
        Of the median of an array, where its sound pixels are less spread than its bad ones; by default those of each value.
        A reference whose median is beyond is refused.
    plane : int, optional
        The plane of a 3-D array that this is about.
    quantity : str
        What the step derives from the values and checks itself, with `Job.refuse_implausible`; empty for the values themselves,
        which are checked when the reference is opened.
    """

    minimum: float
    maximum: float
    unit: str = ""
    source: str = ""
    median: tuple[float, float] | None = None
    plane: int | None = None
    quantity: str = ""

    def contains(self, values):
        """Whether each value is plausible (bool, shape of `values`); NaN is not."""
        return (values >= self.minimum) & (values <= self.maximum)

    def count_unusual(self, values) -> int:
        """Number of values that are plausible for single bad pixels alone: not beyond the limits, but beyond the median's."""
        import numpy as np  # not for the declarations alone, which the workflow reads

        low, high = self.median_limits
        return int(np.count_nonzero(self.contains(values) & ((values < low) | (values > high))))

    def narrowed(self) -> Range:
        """The same with the limits of the median for each value."""
        low, high = self.median_limits
        return dataclasses.replace(self, minimum=low, maximum=high)

    @property
    def median_limits(self) -> tuple[float, float]:
        """Smallest and largest plausible median."""
        return self.median or (self.minimum, self.maximum)


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
    plausible : dict
        `Range` of each array and number that is checked, by its dotted name in the file; ``{detector}`` and
        ``{optical_element}`` in a name stand for the exposure's.
    made_for : tuple of str
        What must be the same in its metadata and the exposure's: ``detector``, ``optical_element``, ``exposure_type``. The
        keywords by which CRDS selects the type; not ``detector`` where one file serves all of them.
    """

    type: str
    meaning: str
    needed: bool = False
    plausible: dict[str, Range] = dataclasses.field(default_factory=dict)
    made_for: tuple[str, ...] = ("detector",)


@dataclasses.dataclass(frozen=True)
class Step:
    """The declaration of a step.

    Attributes
    ----------
    name : str
        As in the table of steps, `rampflow.chain.STEPS`.
    summary : str
        What it turns into what, for ``--help``.
    references : tuple of Reference
    parameters : tuple of Parameter
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
        """Name in ``meta.cal_step``."""
        return STEPS[self.name].status

    @property
    def suffix(self) -> str:
        """Suffix of the file that it writes between the steps."""
        return STEPS[self.name].suffix

    @property
    def takes(self) -> str:
        """The data model that it works on."""
        return STEPS[self.name].takes

    def reference(self, reftype: str) -> Reference:
        """The declaration of one of its references."""
        return next(reference for reference in self.references if reference.type == reftype)

    def parser(self) -> argparse.ArgumentParser:
        """The command line."""
        parser = argparse.ArgumentParser(
            prog=f"{self.name}.py", description=self.summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("input", metavar="INPUT", type=original, help="the exposure as the step before left it (.asdf)")
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
                help="reference types, with commas, whose file CRDS's rules selected for this exposure's optical element",
            )
        parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores to use (default: 1)")
        parser.add_argument("--crds_context", metavar="NAME", help="CRDS context that chose the references, to be recorded")
        return parser


def reference_types(steps: Iterable[Step]) -> list[str]:
    """Types of the references that some steps read, in order."""
    return list(dict.fromkeys(reference.type for step in steps for reference in step.references))
