"""Write what the documents show of the table of steps and of the declarations.

Each document is a file that is edited by hand, with generated parts. Such a part lies between a line ``begin NAME`` and a line
``end NAME``, which are comments of the file. workflow/files.txt and the schema of the configuration for editors are generated
as a whole.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import declarations
import yaml

from rampflow.chain import EXPOSURE_TYPES, STEPS, image_chain
from rampflow.errors import RampflowError
from rampflow.folders import HOME, SCRIPTS, WORKFLOW
from rampflow.quality.numbers import as_markdown
from rampflow.step.declaration import Parameter, Range, Step
from rampflow.workflow import configuration


def replace_parts(path: Path, parts: Mapping[str, str]) -> str:
    """Put generated parts into a document.

    Parameters
    ----------
    path : pathlib.Path
        The document.
    parts : mapping of str to str
        Text of each part by its name.

    Returns
    -------
    str
        Content of the document with these parts.

    Raises
    ------
    RampflowError
        The document has no such part, or several.
    """
    text = path.read_text()
    for name, part in parts.items():
        begins = [found.end() for found in re.finditer(rf"^.*\bbegin {name}\b.*\n", text, re.MULTILINE)]
        ends = [found.start() for found in re.finditer(rf"^.*\bend {name}\b.*$", text, re.MULTILINE)]
        if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
            raise RampflowError(f"{path}: it must have one line 'begin {name}', and one line 'end {name}' after it")
        text = text[: begins[0]] + part + text[ends[0] :]
    return text


PICTURE = """\
```mermaid
flowchart TB
  raw(["raw exposures (_uncal.asdf)"]) --> ramp
  subgraph ramp ["each exposure: its ramp"]
    direction LR
    {ramp}
  end
  subgraph image ["each exposure: its image"]
    direction LR
    {image}
  end
  subgraph visit ["all exposures of a visit"]
    direction LR
    astrometric_catalog --> tweakreg
  end
  subgraph products ["each exposure: its products"]
    finalize
  end
  ramp --> image --> visit --> products
```
"""


def picture_of_steps() -> str:
    """Draw the steps in their order.

    Returns
    -------
    str
        A Mermaid diagram in Markdown.
    """
    of_exposure = [step for step in STEPS.values() if step.name != "tweakreg"]
    ramp = " --> ".join(step.name for step in of_exposure if step.takes != "wfi_image")
    image = " --> ".join(step.name for step in of_exposure if step.takes == "wfi_image")
    return PICTURE.format(ramp=ramp, image=image)


def table_of_exposure_types() -> str:
    """Tabulate which exposure types go through which step.

    Returns
    -------
    str
        A table in Markdown. Types with the same steps share a column, and consecutive steps of the same types a row.
    """
    columns: dict[tuple[str, ...], list[str]] = {}
    for kind in EXPOSURE_TYPES:
        columns.setdefault(tuple(name for name, step in STEPS.items() if kind in step.exposure_types), []).append(kind)
    lines = [f"| step | {' | '.join(map(', '.join, columns.values()))} |", "|---" * (len(columns) + 1) + "|"]
    for kinds, steps in itertools.groupby(STEPS.values(), lambda step: step.exposure_types):
        names = [step.name + "".join(f" (WFI{number:02} alone)" for number in step.detectors) for step in steps]
        cells = ["yes" if set(column) <= set(kinds) else "no" for column in columns.values()]
        lines.append(f"| {' | '.join([', '.join(names), *cells])} |")
    return "\n".join(lines) + "\n"


def names_of_files() -> str:
    """List the files of the steps that have romancal's names.

    Returns
    -------
    str
        A paragraph in Markdown.
    """
    first, *others = (STEPS[name].suffix for name in image_chain(list(STEPS)) if STEPS[name].romancal_name)
    names = [f"`STEM_{first}.asdf`", *(f"`_{suffix}`" for suffix in others)]
    return textwrap.fill(f"The files of the steps are {', '.join(names)}.", 128, break_long_words=False) + "\n"


def romancal_parameter(step: Step, parameter: Parameter) -> str:
    """Name a parameter as romancal's pipeline does.

    Parameters
    ----------
    step : Step
        Declaration of the step.
    parameter : Parameter
        A parameter of this step.

    Returns
    -------
    str
        Its name in Markdown, with that of the step in romancal; "rampflow only" where romancal does not have it.
    """
    name = STEPS[step.name].romancal_name
    return f"`{name}.{parameter.name}`" if name and parameter.in_romancal else "rampflow only"


def as_yaml(value: object) -> str:
    """Write a value as the configuration file does.

    Parameters
    ----------
    value : object
        The value.

    Returns
    -------
    str
        Its YAML, in one line.
    """
    return yaml.safe_dump(value).splitlines()[0]


def accepted_values(parameter: Parameter) -> str:
    """Describe the values that a parameter accepts.

    Parameters
    ----------
    parameter : Parameter
        The parameter.

    Returns
    -------
    str
        Its choices or its type, and its limits, in Markdown.
    """
    text = " or ".join(f"`{c}`" for c in parameter.choices) or parameter.type.__name__
    text += f" ≥ {parameter.minimum:g}" if parameter.minimum is not None else ""
    return text + (f", ≤ {parameter.maximum:g}" if parameter.maximum is not None else "")


def limits_text(low: float, high: float) -> str:
    """Write two limits in words.

    Parameters
    ----------
    low, high : float
        The limits.

    Returns
    -------
    str
        The text, ``0.5 to 20`` for example.
    """
    return f"{low:g} to {high:g}"


def limited_quantity(field: str, limits: Range) -> str:
    """Name the quantity that a range limits.

    Parameters
    ----------
    field : str
        Field of the reference that the range belongs to.
    limits : Range
        The range.

    Returns
    -------
    str
        The field with its plane, or the quantity that is derived from it, in Markdown.
    """
    field = f"`{field}`" if limits.plane is None else f"`{field}[{limits.plane}]`"
    return f"{limits.quantity} ({field})" if limits.quantity else field


def config_section(step: Step) -> str:
    """Write the section of a step in config.yaml: comments, as what is given there would replace the parameters of CRDS.

    Parameters
    ----------
    step : Step
        Declaration of the step.

    Returns
    -------
    str
        Its parameters with their defaults, in YAML whose lines have a ``#`` before them, and with comments.
    """
    lines = [f"  # {step.summary.splitlines()[0]}", f"#  {step.name}:"]
    if STEPS[step.name].optional:
        lines.append("#    skip: false")
    for p in configuration.parameters_of(step):
        unit = f" [{p.unit}]" if p.unit else ""
        lines.extend(textwrap.wrap(p.meaning + unit, 120, initial_indent="    # ", subsequent_indent="    # "))
        lines.append(f"#    {p.name}: {as_yaml(p.default)}")
    # YAML reads a section without a key as null, which a mapping of keys is not.
    return "\n".join(lines if len(lines) > 2 else [lines[0], lines[1] + " {}"]) + "\n"


def readme_section(step: Step) -> str:
    """Write the section of a step in README.md.

    Parameters
    ----------
    step : Step
        Declaration of the step.

    Returns
    -------
    str
        Its references, plausible values and parameters, in Markdown.
    """
    lines = [f"\n### {step.name}\n", step.summary + "\n"]
    if step.references:
        lines += ["| reference | contents |", "|---|---|", *(f"| `{r.type}` | {r.meaning} |" for r in step.references), ""]
    if any(reference.plausible for reference in step.references):
        lines += [
            "Plausible values:\n",
            "| reference | field | values | median of a frame | unit | source |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| `{reference.type}` | {limited_quantity(field, limits)} | {limits_text(limits.minimum, limits.maximum)} "
            f"| {limits_text(*limits.median) if limits.median else ''} | {limits.unit} | {limits.source} |"
            for reference in step.references
            for field, limits in reference.plausible.items()
        ]
        lines.append("")
    if parameters := configuration.parameters_of(step):
        lines += ["| parameter | accepts | default | unit | meaning | romancal |", "|---|---|---|---|---|---|"]
        for p in parameters:
            cells = f"`{p.name}`", accepted_values(p), f"`{as_yaml(p.default)}`", p.unit, p.meaning, romancal_parameter(step, p)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def files_of_jobs() -> list[Path]:
    """List the files besides the rules that a run needs, for a workflow that takes the rules from a hosted repository.

    Returns
    -------
    list of pathlib.Path
        The files, sorted.
    """
    found = [
        *(path for path in SCRIPTS.rglob("*.py") if path.parent.name != "simulator"),
        *SCRIPTS.rglob("*.txt"),
        *(WORKFLOW / "schemas").iterdir(),
        *(WORKFLOW / "report").iterdir(),
    ]
    return sorted(path for path in found if path.is_file())


def documents() -> dict[Path, str]:
    """Generate all documents.

    Returns
    -------
    dict of pathlib.Path to str
        Content of each document by its path.
    """
    steps = declarations.steps().values()
    parts = {
        "README.md": {"picture of steps": picture_of_steps(), "table of exposure types": table_of_exposure_types()},
        "config/config.yaml": {"steps": "\n".join(config_section(step) for step in steps)},
        "config/README.md": {"steps": "".join(readme_section(step) for step in steps) + "\n"},
        "docs/from-romancal.md": {"names of files": names_of_files()},
        "docs/reference/numbers.md": {"numbers": as_markdown() + "\n"},
    }
    schema = configuration.configuration_schema(declarations.steps())
    return {HOME / name: replace_parts(HOME / name, part) for name, part in parts.items()} | {
        WORKFLOW / "schemas" / "config.schema.json": json.dumps(schema, indent=1) + "\n",
        WORKFLOW / "files.txt": "".join(f"{path.relative_to(HOME).as_posix()}\n" for path in files_of_jobs()),
    }


def main() -> int:
    """Write the documents."""
    for path, text in documents().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
