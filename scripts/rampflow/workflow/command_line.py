"""The command line of Snakemake: its targets and its options ``--config`` and ``--configfile``."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from rampflow.errors import RampflowError

#: Options of Snakemake with one value, and with values up to the next option, that could pass for targets.
_WITH_VALUE = ("-c", "--cores", "-j", "--jobs", "-d", "--directory", "-s", "--snakefile", "--profile", "--workflow-profile")
_WITH_VALUES = ("-C", "--config", "--configfile", "--configfiles", "-R", "--forcerun", "-U", "--until", "-O", "--omit-from")
_SHORT_DRY_RUN = re.compile("-[Fkpqn]*n[Fkpqn]*")  #: among other options of one letter that take no value


def is_dry_run(arguments: Sequence[str]) -> bool:
    """Test whether a command line only shows what Snakemake would do, or removes its lock.

    Parameters
    ----------
    arguments : sequence of str
        The command line, without the program.

    Returns
    -------
    bool
        Whether it has ``--dry-run``, in any spelling, as in ``-np``, or ``--unlock``.
    """
    return any(word in ("--dry-run", "--dryrun", "--unlock") or _SHORT_DRY_RUN.fullmatch(word) for word in arguments)


def possible_targets(arguments: Sequence[str]) -> list[str]:
    """List the words of a command line that may be targets.

    Parameters
    ----------
    arguments : sequence of str
        The command line, without the program.

    Returns
    -------
    list of str
        All words but options and the values of those that often have one, as in ``--cores all`` and ``--directory report``.
    """
    found = []
    before, is_value = "", False
    for word in arguments:
        if word.startswith("-"):
            is_value = word in _WITH_VALUES or word.partition("=")[0] in ("--config", "--configfile", "--configfiles")
        elif not is_value and before not in _WITH_VALUE:
            found.append(word)
        before = word
    return found


def given_configurations(arguments: Sequence[str]) -> list[list[str]]:
    """List the words of each ``--config``.

    Parameters
    ----------
    arguments : sequence of str
        The command line.

    Returns
    -------
    list of list of str
        ``KEY=VALUE`` words of each option, in order.
    """
    found: list[list[str]] = []
    inside = False
    for word in arguments:
        if word in ("--config", "-C") or word.startswith("--config="):
            found.append([word.partition("=")[2]] * word.startswith("--config="))
            inside = True
        elif word.startswith("-"):
            inside = False
        elif inside:
            found[-1].append(word)
    return found


def refuse_repeated_keys(arguments: Sequence[str]) -> None:
    """Refuse a configuration file that has a key twice in one section: YAML takes the last, without a word.

    Parameters
    ----------
    arguments : sequence of str
        The command line. Files that can't be found or read are left to Snakemake.

    Raises
    ------
    RampflowError
        A key is there twice. The message has the file and both lines.
    """
    for path in _configuration_files(arguments):
        try:
            tree = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if tree is not None and (found := next(_repeated_keys(tree), None)):
            name, first, second = found
            raise RampflowError(
                f"{path.name}: the key {name!r} is in line {first} and again in line {second} of one section, and only the "
                "last would count; write one section with the contents of both"
            )


def _configuration_files(arguments: Sequence[str]) -> Iterator[Path]:
    """Files of ``--configfile``. Their names are relative to the folder in which Snakemake was started."""
    inside = False
    for word in arguments:
        option, equals, value = word.partition("=")
        if word.startswith("-"):
            inside = option in ("--configfile", "--configfiles")
            word = value if equals else ""
        if inside and word:
            # With --directory, Snakemake has changed the working folder, and the shell's variable has the first one.
            places = (Path(os.environ.get("PWD", ""), word), Path(word))
            yield from [path for path in places if path.is_file()][:1]


def _repeated_keys(node: yaml.Node, seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, int, int]]:
    """Keys that a section has twice, each with its lines."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):  # an alias of a section that it is in
        return
    seen |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            yield from _repeated_keys(entry, seen)
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in lines:
                yield key.value, lines[key.value], line
            lines[key.value] = line
        yield from _repeated_keys(value, seen)


def refuse_lost_keys(arguments: Sequence[str]) -> None:
    """Refuse a command line with a second ``--config``, which makes Snakemake forget keys of the first.

    Parameters
    ----------
    arguments : sequence of str
        The command line.

    Raises
    ------
    RampflowError
        An earlier option has a key that the last one doesn't have.
    """
    *earlier, last = given_configurations(arguments) or [[]]
    values = {word.partition("=")[0]: word for words in (*earlier, last) for word in words}
    kept = {word.partition("=")[0] for word in last}
    if lost := [key for key in values if key not in kept]:
        together = " ".join(shlex.quote(word) for word in values.values())
        raise RampflowError(
            f"--config is given {len(earlier) + 1} times, and the last one replaces the others: {', '.join(lost)} would be "
            f"ignored; write one: --config {together}"
        )
