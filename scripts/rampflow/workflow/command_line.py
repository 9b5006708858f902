"""The command line of Snakemake: its targets and its option ``--config``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rampflow.errors import RampflowError

#: Options of Snakemake with one value, and with values up to the next option, that could pass for targets.
_WITH_VALUE = ("-c", "--cores", "-j", "--jobs", "-d", "--directory", "-s", "--snakefile", "--profile", "--workflow-profile")
_WITH_VALUES = ("-C", "--config", "--configfile", "--configfiles", "-R", "--forcerun", "-U", "--until", "-O", "--omit-from")


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
