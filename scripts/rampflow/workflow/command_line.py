"""The option ``--config`` of Snakemake on the command line of a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rampflow.errors import RampflowError


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
