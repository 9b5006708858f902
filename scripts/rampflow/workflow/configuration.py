"""The configuration: checked against the schema and the declarations of the steps before anything runs."""

from __future__ import annotations

import difflib
import math
import os
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from rampflow.astrometry.parameters import SEARCH_PARAMETERS, SOURCE
from rampflow.chain import STEPS
from rampflow.errors import RampflowError
from rampflow.files.tags import DATA_MODELS, DEFAULT_DATA_MODEL
from rampflow.folders import WORKFLOW
from rampflow.quality.limits import read_limits
from rampflow.quality.numbers import LIMITED
from rampflow.remote.addresses import is_remote
from rampflow.step.declaration import Parameter, Step, format_value, reference_types
from rampflow.workflow import selections
from rampflow.workflow.exposure_names import SPECIAL, is_plain

SCHEMA = WORKFLOW / "schemas" / "config.schema.yaml"
#: Steps whose files are kept without a word of the configuration, by `job_per`. A job of all steps of an exposure begins with
#: the raw exposure, and would not read them.
KEPT_BY_DEFAULT = {"step": ["ramp_fitting"], "exposure": []}
_FEW = 3  #: places of a key that a message lists


def configuration_schema(steps: dict[str, Step]) -> dict:
    """Make the JSON schema of the configuration: the file, with the parameters and references that the steps declare.

    Parameters
    ----------
    steps : dict
        Declaration of each step, by its name.

    Returns
    -------
    dict
        The schema.
    """
    result = yaml.safe_load(SCHEMA.read_text())
    types = reference_types(steps.values())
    result["properties"]["data_model"]["enum"] = list(DATA_MODELS)
    of_steps = {name: step_schema(step) for name, step in steps.items()}
    meanings = {reference.type: reference.meaning for step in steps.values() for reference in step.references}
    of_references = {t: {"description": meanings[t], "type": "string"} for t in types}
    result["properties"]["steps"]["properties"] = of_steps
    result["properties"]["references"]["properties"]["override"]["properties"] = of_references
    select = result["properties"]["overrides"]["items"]["properties"]
    select["steps"]["properties"], select["references"]["properties"] = of_steps, of_references
    texts = {"type": ["string", "integer"]}
    select["select"]["properties"] = {
        key: {
            "description": f"Values of {key}: one, or a list; *, ? and [...] as in file names.",
            "anyOf": [texts, {"type": "array", "items": texts}],
        }
        for key in selections.KEYS
    }
    excluded = result["properties"]["exclude"]["anyOf"]
    excluded.insert(1, select["select"])
    excluded[2]["items"]["anyOf"].append(select["select"])
    result["properties"]["keep_intermediates"]["anyOf"][1]["items"]["enum"] = list(steps)
    # Only described: `read_limits` checks them, and suggests a name.
    result["properties"]["qa"]["properties"]["limits"]["properties"] = {
        name: {"description": number.meaning + f" [{number.unit}]" * bool(number.unit)} for name, number in LIMITED.items()
    }
    return result


def parameters_of(step: Step) -> tuple[Parameter, ...]:
    """List the parameters in a step's section.

    The section of tweakreg includes those of the search for its astrometric catalog.

    Parameters
    ----------
    step : Step
        Declaration of the step.

    Returns
    -------
    tuple of Parameter
        Declarations of the parameters.
    """
    return step.parameters + (SEARCH_PARAMETERS if step.name == "tweakreg" else ())


def step_schema(step: Step) -> dict:
    """Make the JSON schema of a step's section.

    Parameters
    ----------
    step : Step
        Declaration of the step.

    Returns
    -------
    dict
        The schema.
    """
    properties = {p.name: p.schema() for p in parameters_of(step)}
    if STEPS[step.name].optional:
        properties["skip"] = {"description": "leave the step out", "type": "boolean", "default": False}
    description = step.summary.splitlines()[0]
    return {"description": description, "type": "object", "additionalProperties": False, "properties": properties}


def validated(config: dict, steps: dict[str, Step], given: dict | None = None) -> dict:
    """Check the configuration and add all defaults.

    Parameters
    ----------
    config : dict
        What the files and the command line gave.
    steps : dict
        Declaration of each step, by its name.
    given : dict, optional
        The same without the file of defaults. Its parameters of the steps have precedence over those of CRDS. By default,
        all of `config` do.

    Returns
    -------
    dict
        The settings: every key of the configuration, with the default where it is not given. Its key ``given`` has the names
        of the parameters of each step that `given` has. If ``results`` is an address on S3, the key ``upload`` has it, and
        ``results`` is the folder on this machine; otherwise ``upload`` is None.

    Raises
    ------
    RampflowError
        A key is unknown, or a value has the wrong type or is out of range. The message lists every such key with what it takes.
    """
    import jsonschema

    config = _interpret(config, configuration_schema(steps))
    schema = configuration_schema(steps)
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(config), key=lambda e: [str(p) for p in e.absolute_path])
    if errors:
        raise RampflowError("\n".join(f"configuration: {line}" for error in errors for line in _explain(error, schema)))
    results, upload = _places_of_results(config.get("results", "results"))
    if results.startswith("-") or not is_plain(results):
        raise RampflowError(
            f"configuration: results is {results!r}; it takes a folder without {SPECIAL}, control characters and '-' at its "
            "beginning"
        )
    options = {}
    for step in steps.values():
        for place, own in sections(config, step.name):
            for name, value in own.items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise RampflowError(f"configuration: {place}.{name} is {value}; it takes a finite number")
        own = config.get("steps", {}).get(step.name, {})
        options[step.name] = {"skip": False, **{p.name: p.default for p in parameters_of(step)}, **own}
    if config.get("require_alignment") and (options["tweakreg"]["skip"] or options["source_catalog"]["skip"]):
        raise RampflowError(
            "configuration: require_alignment is true, and steps.tweakreg.skip or steps.source_catalog.skip leaves the "
            "alignment out; change one of them"
        )
    excluded = config.get("exclude", [])
    job_per, kept = config.get("job_per", "step"), config.get("keep_intermediates")
    reference_defaults: dict = {"crds_context": None, "override": {}, "allow_mismatch": False, "step_parameters": True}
    return {
        "input": config.get("input", []),
        "exclude": [
            entry if isinstance(entry, str) else selections.normalized(entry)
            for entry in (excluded if isinstance(excluded, list) else [excluded])
        ],
        "incoming": config.get("incoming", False),
        "results": results,
        "upload": upload,
        "keep_intermediates": KEPT_BY_DEFAULT[job_per] if kept is None else kept,
        "references": {**reference_defaults, **config.get("references", {})},
        "astrometric_catalog": config.get("astrometric_catalog", SOURCE.default),
        "data_model": config.get("data_model", DEFAULT_DATA_MODEL),
        "require_alignment": config.get("require_alignment", False),
        "scratch": config.get("scratch"),
        "job_per": job_per,
        "qa": {"limits": read_limits(config.get("qa", {}).get("limits", {}))},
        "steps": options,
        "overrides": [
            {
                "select": selections.normalized(entry["select"]),
                "references": entry.get("references", {}),
                "steps": entry.get("steps", {}),
            }
            for entry in config.get("overrides", [])
        ],
        "given": _names_given(config if given is None else _interpret(given, configuration_schema(steps))),
    }


def _places_of_results(given: str) -> tuple[str, str | None]:
    """Return the folder of the products on this machine, and the folder on S3 that they are brought to, if there is one."""
    if not is_remote(given):
        return str(Path(os.path.expanduser(given))), None
    scheme, bucket, path, *_ = urlsplit(given)
    folders = [name for name in path.split("/") if name]
    if scheme != "s3" or not bucket or {".", ".."} & set(folders):
        raise RampflowError(f"configuration: results is {given!r}; it takes a folder, or an address as s3://BUCKET/FOLDER/")
    return "/".join(["s3", bucket, *folders]), "/".join([f"s3://{bucket}", *folders, ""])


def _names_given(config: dict) -> dict[str, list[str]]:
    """List the parameters of each step that a configuration has."""
    return {step: sorted(values) for step, values in config.get("steps", {}).items() if values}


def sections(config: dict, step: str) -> list[tuple[str, dict]]:
    """List the sections of a configuration that have parameters of a step.

    Parameters
    ----------
    config : dict
        The configuration.
    step : str
        Name of the step.

    Returns
    -------
    list of tuple of str and dict
        Place in the configuration, as ``steps.photom`` and ``overrides[1].steps.photom``, and the parameters there.
    """
    places = [("steps", config.get("steps", {}))]
    places += [(f"{selections.label(n)}.steps", entry.get("steps", {})) for n, entry in enumerate(config.get("overrides", []))]
    return [(f"{place}.{step}", found[step]) for place, found in places if step in found]


#: Parameters of steps that name a file.
FILE_PARAMETERS = {"source_catalog": ("forced_segmentation",)}


def existing_files(options: dict, folder: Path, place: str = "steps.source_catalog") -> dict:
    """Check the files that the parameters of a step name.

    Parameters
    ----------
    options : dict
        Parameters of the step.
    folder : pathlib.Path
        Where relative paths are taken from.
    place : str
        Their place in the configuration, which ends in the name of the step.

    Returns
    -------
    dict
        Parameters that name a file, with its path; without those that are not given.

    Raises
    ------
    RampflowError
        A file does not exist, or its path has characters that Snakemake or asdf would misread.
    """
    names = FILE_PARAMETERS[place.rpartition(".")[2]]
    found = {name: os.path.expanduser(options[name]) for name in names if options.get(name)}
    for name, path in found.items():
        if not (folder / path).is_file():
            raise RampflowError(f"configuration: {place}.{name}: {path} does not exist in {folder}")
        if not is_plain(path):
            raise RampflowError(f"configuration: {place}.{name}: a path can't have any of {SPECIAL}: {path!r}")
    return found


def _interpret(value, schema: dict):
    """Read strings as YAML where the schema takes another type, and empty sections as mappings.

    Snakemake gives values of the command line as strings: ``--config keep_intermediates=true``.
    """
    kinds = {
        k
        for s in (schema, *schema.get("anyOf", ()))
        for k in ([s["type"]] if isinstance(s.get("type"), str) else s.get("type", []))
    }
    if value is None and kinds == {"object"}:
        return {}
    if isinstance(value, float) and kinds == {"string"} and str(value) in schema.get("enum", ()):  # a version: 1.2
        return str(value)
    if isinstance(value, str) and kinds and "string" not in kinds:
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            return value
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return {key: _interpret(v, known.get(key, {})) for key, v in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [_interpret(v, schema["items"]) for v in value]
    return value


def _place(*path: object) -> str:
    """Write the place of a value in the configuration, as ``overrides[1].select``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _unknown_key(error):
    """The error about an unknown key among the alternatives of a value; the error itself if there is none."""
    for cause in error.context or ():
        found = _unknown_key(cause)
        if found.validator == "additionalProperties":
            return found
    return error


def _places_of(name: str, schema: dict, place: str = "") -> list[str]:
    """List the places of a key in all sections of the configuration, as ``steps.photom``."""
    found = []
    for key, own in schema.get("properties", {}).items():
        path = f"{place}.{key}".lstrip(".")
        found += [path] * (key == name) + _places_of(name, own, path)
    return found


def _explain(error, schema: dict) -> list[str]:
    """Write what is wrong with a value, and what its key takes."""
    error = _unknown_key(error)
    key = _place(*error.absolute_path) or "the configuration"
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        lines = []
        for name in sorted(set(error.instance) - set(known), key=str):
            full = _place(*error.absolute_path, str(name))
            near = difflib.get_close_matches(str(name), known, 1)
            hint = _missing_space(name) or (f"did you mean {near[0]!r}? " if near else "")
            places = _places_of(str(name), schema)
            if not hint and 0 < len(places) <= _FEW:  # it is in the wrong section, as when the line of its own is a comment
                hint = f"did you mean {' or '.join(map(repr, places))}? "
            lines.append(f"unknown key {full!r}; {hint}{key} takes {', '.join(known) or 'nothing'}")
        return lines
    if error.validator == "required":
        missing = [name for name in error.schema["required"] if name not in error.instance]
        return [f"{key} lacks the key {missing[0]!r}; it takes {_takes(error.schema)}"]
    return [f"{key} is {error.instance!r}; {_missing_space(error.instance)}it takes {_takes(error.schema)}"]


def _missing_space(text: object) -> str:
    """Hint on a key and a value that YAML reads as one text."""
    key, colon, value = text.partition(":") if isinstance(text, str) else ("", "", "")
    return f"a space is missing after the colon: write '{key}: {value}'; " if colon and key.isidentifier() and value else ""


def _takes(schema: dict) -> str:
    if "anyOf" in schema:
        return " or ".join(_takes(alternative) for alternative in schema["anyOf"])
    kinds = schema.get("type", "anything")
    names = {"boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "a text", "null": "null",
             "array": "a list", "object": "a mapping of keys"}  # fmt: skip
    text = " or ".join(names.get(k, k) for k in ([kinds] if isinstance(kinds, str) else kinds))
    if "enum" in schema:
        text = "one of " + ", ".join(str(value) for value in schema["enum"])
    if "minimum" in schema:
        text += f" not below {schema['minimum']:g}"
    if "maximum" in schema:
        text += f"{' and' * ('minimum' in schema)} not above {schema['maximum']:g}"
    if "minProperties" in schema:
        needed = f"{schema['required'][0]} and at least one" if schema.get("required") else "at least one"
        others = [name for name in schema["properties"] if name not in schema.get("required", ())]
        text += f" with {needed} of {', '.join(others)}"
    if schema.get("items"):
        text += f" of {_takes(schema['items'])}"
    return text


def command_line(parameters: tuple[Parameter, ...], options: dict) -> str:
    """Write parameters as arguments of a script.

    Parameters
    ----------
    parameters : tuple of Parameter
        Declarations.
    options : dict
        Values, by name.

    Returns
    -------
    str
        The arguments, quoted for a shell.
    """
    return " ".join(f"--{p.name} {shlex.quote(format_value(options[p.name]))}" for p in parameters)
