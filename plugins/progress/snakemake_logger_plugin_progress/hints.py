"""Hints on mistakes in the command line and in configuration files, for which Snakemake's own errors name no remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml  # which Snakemake needs

_CONFIGFILE = ("--configfile", "--configfiles")
_CONFIG = ("--config", "-C")
#: A key at the beginning of a line or of a mapping, and a value without a space between them. URLs and times are none.
_GLUED = re.compile(r"(?:^|[{,])\s*(?:- )?([A-Za-z_]\w*):(?!//)([^\s\d'\"][^\s,}]*|\d[^\s:,}]*(?=[\s,}]|$))")


def words_after(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """List the words of a command line that belong to an option.

    Parameters
    ----------
    arguments : sequence of str
        The command line.
    options : sequence of str
        Names of the option.

    Returns
    -------
    list of str
        The words up to the next option.
    """
    found, inside = [], False
    for word in arguments:
        name, equals, value = word.partition("=")
        if name in options:
            inside = True
            found += [value] if equals else []
        elif word.startswith("-"):
            inside = False
        elif inside:
            found.append(word)
    return found


def find_hints(arguments: Sequence[str]) -> list[str]:
    """Find mistakes in a command line and in the configuration files that it names.

    Parameters
    ----------
    arguments : sequence of str
        The command line, without the program.

    Returns
    -------
    list of str
        A line for each mistake.
    """
    return [*_hints_on_files(words_after(arguments, _CONFIGFILE)), *_hints_on_keys(words_after(arguments, _CONFIG))]


def _hints_on_files(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        path = Path(name)
        if not path.exists() and path.suffix not in (".yaml", ".yml", ".json"):
            yield (
                f"--configfile takes all words up to the next option, so that {name!r} is read as a configuration file; write "
                f"targets first: snakemake {name} --configfile {names[0]}"
            )
        elif path.suffix != ".json" and path.is_file():
            text = path.read_text(errors="replace")
            yield from (f"{name}{hint}" for hint in [*_hints_on_spaces(text)] or _hints_on_syntax(text))


def _hints_on_spaces(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _GLUED.search(line.partition(" #")[0]):
            yield f", line {number}: a space is missing after the colon; write {found[1]}: {found[2]}"


def _hints_on_syntax(text: str) -> Iterator[str]:
    """Why a text is not a mapping in YAML: Snakemake names neither file nor line."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        number = mark.line if mark else 0
        line = [*text.splitlines(), ""][number]
        if "\t" in line[: len(line) - len(line.lstrip())]:
            remedy = "it begins with a tab; write spaces"
        else:
            remedy = "compare its indentation with the lines above: the line of the section of a key must not be a comment"
        yield f", line {number + 1}: {line.strip()!r} is not YAML ({error.problem}); {remedy}"
    except yaml.YAMLError as error:
        yield f": is not YAML ({str(error).splitlines()[0]})"
    else:
        if node is None:
            yield ": has no key; remove the # before one, or leave the option --configfile out"
        elif not isinstance(node, yaml.MappingNode):
            yield f", line {node.start_mark.line + 1}: begins with a list or a value; write KEY: VALUE"


def _hints_on_keys(words: Sequence[str]) -> Iterator[str]:
    values = iter(words)
    for word in values:
        if "=" in word:
            continue
        key, colon, value = word.partition(":")
        if colon and not value:  # "KEY: VALUE" in two words
            value = next(values, "VALUE")
            yield f"--config takes KEY=VALUE; write {key}={value} in place of '{word} {value}'"
        elif colon:
            yield f"--config takes KEY=VALUE; write {key}={value.strip()} in place of {word!r}"
        else:
            yield (
                f"--config takes all words up to the next option, so that {word!r} is read as KEY=VALUE; write targets first: "
                f"snakemake {word} --config ..."
            )
