"""The command lines of scripts that are commands of the installed package, too: ``view.py`` and ``rampflow view``."""

from __future__ import annotations

import argparse
import os
from typing import Any

VARIABLE = "RAMPFLOW_PROGRAM"  #: environment variable with the command that starts a script, such as ``rampflow view``


def script_parser(script: str, description: str, **settings: Any) -> argparse.ArgumentParser:
    """Make the parser of a script. Its help names the command by which the script was started.

    Parameters
    ----------
    script : str
        Name of the script, such as ``view.py``.
    description : str
        Description, with examples that begin with ``python scripts/view.py``.
    **settings : Any
        Other arguments of `argparse.ArgumentParser`.

    Returns
    -------
    argparse.ArgumentParser
        The parser.
    """
    # Taken out, as it is not the name of what this program starts.
    program = os.environ.pop(VARIABLE, None)
    if program:
        description = description.replace(f"python scripts/{script}", program)
    settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    return argparse.ArgumentParser(prog=program or script, description=description, **settings)
