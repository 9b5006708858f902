"""The command ``rampflow``: a thin layer over Snakemake and the scripts, for the installed package.

It writes the command line of `snakemake` or of a script, and becomes that process.
"""

from __future__ import annotations

import sys

from rampflow.command.parser import COMMANDS, command_parser, find
from rampflow.errors import RampflowError


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of this process.

    Returns
    -------
    int
        Exit status.
    """
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        try:
            return find(words[0]).run(words[1:])
        except RampflowError as error:
            print(f"rampflow {words[0]}: {error}", file=sys.stderr)
            return 1
    arguments = command_parser().parse_args(words)  # it ends with the help, the version or an error
    if arguments.version:
        from rampflow import __version__

        print(f"rampflow {__version__}")
        return 0
    command_parser().print_help()
    return 2
