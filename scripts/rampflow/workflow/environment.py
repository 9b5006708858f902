"""The environment of the jobs that run the scripts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rampflow import __version__, version
from rampflow.folders import SCRIPTS


def script_environment(context: str | None) -> dict[str, str]:
    """Return the environment variables of the jobs. No result depends on them.

    With PATH, ``python`` is the interpreter that runs Snakemake, unless a software deployment puts another one before it.
    RAMPFLOW_SCRIPTS is the folder of the scripts, RAMPFLOW_CONTEXT the CRDS context, and RAMPFLOW_VERSION the version of this
    software, so that no job asks git for it.

    Parameters
    ----------
    context : str or None
        Name of the CRDS context; None where CRDS has not been asked.

    Returns
    -------
    dict of str to str
        Value of each variable.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        "PATH": path,
        "RAMPFLOW_SCRIPTS": str(SCRIPTS),
        "RAMPFLOW_CONTEXT": context or "",
        version.VARIABLE: __version__,
        # glibc returns freed memory to the system, which clears it before the step gets it again. Up to these sizes (bytes, of
        # one array and of all), freed memory stays with the step.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    }
