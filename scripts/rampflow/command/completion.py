"""Completion of the command in a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rampflow.command.parser import Subcommand


def write_completion(command: Subcommand, words: list[str]) -> int:
    """Write the completion for a shell.

    Parameters
    ----------
    command : Subcommand
        The subcommand.
    words : list of str
        Its arguments.

    Returns
    -------
    int
        Exit status.
    """
    shell = command.parser().parse_args(words).shell
    import shtab

    from rampflow.command.parser import command_parser

    print(shtab.complete(command_parser(with_options=True), shell=shell))
    return 0
