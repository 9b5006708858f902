"""Parameters of the steps from CRDS: references of the types ``pars-…``, which romancal's framework stpipe reads as well.

There is a type for each step, such as ``pars-rampfitstep``, and ``pars-exposurepipeline`` for the pipeline, which may have
values for each of its steps. As in stpipe, a value of the pipeline's reference replaces that of the step's. A value in the
configuration replaces both.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rampflow.chain import STEPS
from rampflow.errors import RampflowError, counted
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.declaration import Parameter, Step
from rampflow.step.provenance import OVERRIDES
from rampflow.workflow import selections
from rampflow.workflow.configuration import FILE_PARAMETERS, parameters_of

PIPELINE = "pars-exposurepipeline"
#: Environment variable of stpipe that switches these references off, and the values for which stpipe does so.
SWITCH = "STPIPE_DISABLE_CRDS_STEPPARS"
SWITCHED_OFF = ("true", "True", "t", "yes", "y")
#: Texts and numbers that stpipe takes for a boolean, in lower case.
BOOLEANS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
#: Parameters of stpipe and of romancal's steps that name files or the number of processes. They change no value of a product.
WITHOUT_EFFECT = frozenset(
    {
        *("output_file", "output_dir", "output_ext", "output_use_model", "output_use_index", "save_results", "suffix"),
        *("search_output_file", "input_dir", "update_version", "on_disk", "name", "class", "config_file", "logcfg"),
        *("maximum_cores", "catalog_format", "catalog_path", "update_source_catalog_coordinates"),
    }
)


@dataclasses.dataclass(frozen=True)
class StepParameters:
    """What the references of an exposure set.

    Attributes
    ----------
    values : dict
        For each step, its parameters by name: value, and path of the reference that it is from (a pair). ``skip`` is among
        them.
    ignored : tuple of str
        A line for each parameter that has no effect here, with its value and the reference.
    """

    values: dict[str, dict[str, Sequence]]
    ignored: tuple[str, ...]


def are_enabled(config: Mapping) -> bool:
    """Test whether the parameters of CRDS are used.

    Parameters
    ----------
    config : mapping
        The section ``references`` of the configuration.

    Returns
    -------
    bool
        False if the configuration or stpipe's environment variable switches them off.
    """
    return bool(config.get("step_parameters")) and os.environ.get(SWITCH, "") not in SWITCHED_OFF


def parameter_reference_type(romancal_name: str) -> str:
    """Name the type of the reference with the parameters of a step.

    Parameters
    ----------
    romancal_name : str
        Name of the step in romancal.

    Returns
    -------
    str
        ``pars-`` and the name of the step's class in romancal, in lower case.
    """
    return f"pars-{romancal_name.replace('_', '')}step"


def parameter_reference_types(steps: Iterable[str]) -> list[str]:
    """List the types of the references with the parameters of some steps.

    Parameters
    ----------
    steps : iterable of str
        Names of the steps.

    Returns
    -------
    list of str
        The type of each step that romancal has, and that of the pipeline.
    """
    return [*(parameter_reference_type(name) for step in steps if (name := STEPS[step].romancal_name)), PIPELINE]


def read_reference(path: Path) -> dict[str, dict]:
    """Read a reference in the format of stpipe's ``StepConfig``, or in its older one.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    dict
        Parameters of each step by romancal's name of it; those of the file's own class have the name "".

    Raises
    ------
    RampflowError
        The file is damaged, or has another format.
    """
    with AsdfFile(path) as file:
        tree = file.tree
    nested, own = tree.get("steps") or [], tree.get("parameters")
    # stpipe's older format, which it still reads, has the steps among the parameters of the pipeline.
    if not nested and isinstance(own, dict) and isinstance(own.get("steps"), dict):
        nested = [{"name": name, "parameters": values} for name, values in own["steps"].items()]
        tree = {"parameters": {key: value for key, value in own.items() if key != "steps"}}
    sections = {"": tree, **{str(step.get("name")): step for step in nested if isinstance(step, dict)}}
    if not isinstance(nested, list) or len(sections) != len(nested) + 1:
        raise RampflowError(f"{path}: steps is no list of steps with different names; {_remedy()}")
    result = {}
    for name, section in sections.items():
        if not isinstance(values := section.get("parameters"), dict):
            field = f"parameters of the step {name!r}" if name else "parameters"
            raise RampflowError(f"{path}: {field} are missing or no mapping; {_remedy()}")
        result[name] = dict(values)
    return result


def _remedy(key: str = "") -> str:
    given = f"set {key} in the configuration, or " if key else ""
    return f"{given}leave CRDS's parameters out with references: {{step_parameters: false}}"


def merge_references(
    paths: Mapping[str, str], contents: Mapping[str, dict], config: Mapping, steps: Mapping[str, Step]
) -> StepParameters:
    """Combine the references of an exposure.

    Parameters
    ----------
    paths : mapping
        Path of each reference by its type.
    contents : mapping
        What `read_reference` found in each, by its path.
    config : mapping
        The validated configuration, whose own values are not looked up in the references.
    steps : mapping
        Declaration of each step that the exposure may go through.

    Returns
    -------
    StepParameters
        Values by step.

    Raises
    ------
    RampflowError
        A value that is used is not one that its parameter takes; the message names the file.
    """
    values: dict[str, dict[str, Sequence]] = {}
    ignored = []
    for name, step in steps.items():
        found: dict[str, tuple[Any, str]] = {}
        if romancal_name := STEPS[name].romancal_name:
            for reftype, section in ((parameter_reference_type(romancal_name), ""), (PIPELINE, romancal_name)):
                if path := paths.get(reftype):
                    found |= {key: (value, path) for key, value in contents[path].get(section, {}).items()}
        taken, unknown = _select(step, found, config)
        if taken:
            values[name] = taken
        ignored += unknown
    if path := paths.get(PIPELINE):
        known = {"", *(step.romancal_name for step in STEPS.values())}
        own = {"": contents[path].get("", {})} | {name: found for name, found in contents[path].items() if name not in known}
        for name, found in own.items():
            ignored += [
                f"{path}: {name or 'pipeline'}.{key} is {value!r}"
                for key, value in found.items()
                if not _is_without_effect(key, value, config)
            ]
    return StepParameters(values, tuple(ignored))


def _select(step: Step, found: dict[str, tuple[Any, str]], config: Mapping) -> tuple[dict, list[str]]:
    """Split what references set for a step into the values of its parameters, and lines on what it does not have."""
    declared = {p.name: p for p in parameters_of(step) if p.name not in FILE_PARAMETERS.get(step.name, ())}
    declared["skip"] = Parameter("skip", bool, False, "leave the step out")
    taken, ignored = {}, []
    for key, (value, path) in found.items():
        if key not in declared:
            if not _is_without_effect(key, value, config):
                ignored.append(f"{path}: {step.name}.{key} is {value!r}")
        elif not _is_unset(value) and key not in config["given"].get(step.name, ()):
            where = f"steps.{step.name}.{key}"
            try:
                taken[key] = converted(declared[key], value), path
            except ValueError as error:
                raise RampflowError(f"{path}: {where} is {value!r}; it takes {error}; {_remedy(where)}") from None
            if key == "skip" and taken[key][0] and not STEPS[step.name].optional:
                raise RampflowError(f"{path}: {where} is true, but {step.name} can't be left out; {_remedy()}")
    return taken, ignored


def _is_unset(value: Any) -> bool:
    """Tell whether a value is one for which stpipe has the default. It may be an array, which can't be compared with others."""
    return value is None or (isinstance(value, str) and value == "None")


def _is_without_effect(key: str, value: Any, config: Mapping) -> bool:
    """Tell whether a parameter that rampflow lacks is one that changes no value of a product, or is not set."""
    if key == "abs_refcat" and isinstance(value, str):  # romancal's name of the astrometric catalog
        return value.strip().upper() in ("", str(config["astrometric_catalog"]).upper())
    return key in WITHOUT_EFFECT or _is_unset(value) or (isinstance(value, str | list | dict) and not value)


def converted(parameter: Parameter, value: Any) -> Any:
    """Convert a value of a reference to the type of its parameter, as stpipe does: it takes text as well as numbers.

    Parameters
    ----------
    parameter : Parameter
        Declaration of the parameter.
    value : object
        The value.

    Returns
    -------
    object
        The value in the parameter's type.

    Raises
    ------
    ValueError
        The parameter does not take the value; the message says what it takes.
    """
    kinds: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
    takes = f"one of {', '.join(map(str, parameter.choices))}" if parameter.choices else kinds[parameter.type]
    takes += f" not below {parameter.minimum:g}" if parameter.minimum is not None else ""
    between = " and" if parameter.minimum is not None else ""
    takes += f"{between} not above {parameter.maximum:g}" if parameter.maximum is not None else ""
    if parameter.type is bool and isinstance(value, int | float) and value in (0, 1):
        value = bool(value)
    elif isinstance(value, str) and parameter.type is not str:
        try:
            value = BOOLEANS[value.lower()] if parameter.type is bool else parameter.type(value)
        except (KeyError, ValueError):
            raise ValueError(takes) from None
    if isinstance(value, bool) is not (parameter.type is bool):
        raise ValueError(takes)
    result: Any = float(value) if parameter.type is float and isinstance(value, int) else value
    is_valid = (
        issubclass(type(result), parameter.type)
        and (parameter.type is not float or math.isfinite(result))
        and (parameter.minimum is None or result >= parameter.minimum)
        and (parameter.maximum is None or result <= parameter.maximum)
        and (not parameter.choices or result in parameter.choices)
    )
    if not is_valid:
        raise ValueError(takes)
    return result


def differing_alignments(members: Mapping[str, Mapping[str, Mapping]], association: str) -> str | None:
    """Describe how the parameters of tweakreg differ between the exposures of an association, which is aligned with one set.

    Parameters
    ----------
    members : mapping
        For each exposure that is aligned, in the order of the association, its `StepParameters.values`.
    association : str
        Name of the association.

    Returns
    -------
    str or None
        A line that names the parameters and exposures; `None` where they agree.
    """
    given = {stem: {k: v for k, (v, _) in values.get("tweakreg", {}).items()} for stem, values in members.items()}
    if not given:
        return None
    first = next(iter(given))
    others = [stem for stem in given if given[stem] != given[first]]
    if not others:
        return None
    names = sorted({k for stem in others for k in {*given[stem], *given[first]} if given[stem].get(k) != given[first].get(k)})
    more = f" and {counted(len(others) - 1, 'other')}" if len(others) > 1 else ""
    parameters = ", ".join(f"tweakreg.{name}" for name in names)
    return (
        f"{association}: CRDS has other values of {parameters} for {others[0]}{more} than for {first}; the association is "
        f"aligned with those of {first}, its first exposure, as in romancal"
    )


def source_options(values: Mapping[str, Sequence]) -> list[str]:
    """Write the options of a script that record where its parameters are from.

    Parameters
    ----------
    values : mapping
        Value and source of each parameter, by its name: path of a reference of CRDS, or entry of ``overrides``.

    Returns
    -------
    list of str
        The arguments: for each source ``--parameters_from`` with its name, a colon and the parameters. The entry of
        ``overrides`` is not named: it changes when another entry is added, and nothing must run again for that.
    """
    names: dict[str, list[str]] = {}
    for key, (_, path) in sorted(values.items()):
        names.setdefault(OVERRIDES if selections.is_label(path) else Path(path).name, []).append(key)
    return [word for file in sorted(names) for word in ("--parameters_from", f"{file}:{','.join(names[file])}")]
