"""A configuration file to begin with: every key is there as a comment, with its default."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rampflow.errors import RampflowError
from rampflow.folders import HOME, WORKFLOW

if TYPE_CHECKING:
    from rampflow.command.parser import Subcommand

SCHEMA = WORKFLOW / "schemas" / "config.schema.json"
MARKS = ("# begin steps", "# end steps")  #: for the program that writes the parameters into config.yaml
HEAD = """\
# Configuration of rampflow. Each key is a comment with its default. To set one, remove the # at its beginning, and that of the
# sections that it is in. What you leave as a comment has its default, or the value of CRDS.
#
#     rampflow run --configfile {name}
#
# Editors complete and check the keys by this line:
# yaml-language-server: $schema={schema}
"""


def commented_configuration(defaults: str, name: str) -> str:
    """Turn the file of defaults into one without effect.

    Parameters
    ----------
    defaults : str
        Text of ``config/config.yaml``.
    name : str
        Name of the file, for the example in it.

    Returns
    -------
    str
        The text: a key that can be set has a ``#`` before its line. The results folder alone is set.
    """
    _, _, body = defaults.partition("\n\n")  # its own head says how it is made
    written = [line for line in body.splitlines() if line.strip() not in MARKS]
    lines = [line if not line.strip() or line.lstrip().startswith("#") else f"#{line}" for line in written]
    # Snakemake refuses a file without any key.
    lines = [line.removeprefix("#") if line.startswith("#results:") else line for line in lines]
    return HEAD.format(name=name, schema=SCHEMA) + "\n" + "\n".join(lines) + "\n"


def write_configuration(command: Subcommand, words: list[str]) -> int:
    """Write a configuration file.

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

    Raises
    ------
    RampflowError
        The file exists, or can't be written.
    """
    file = command.parser().parse_args(words).file
    text = commented_configuration((HOME / "config" / "config.yaml").read_text(), file or "my.yaml")
    if file is None:
        sys.stdout.write(text)
        return 0
    try:
        with Path(file).open("x") as output:
            output.write(text)
    except FileExistsError:
        raise RampflowError(f"{file} exists; give another name, or remove it first") from None
    except OSError as error:
        raise RampflowError(f"{file}: can't be written ({error.strerror})") from None
    return 0
