"""Where the scripts are, and the environment of the jobs that run them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rampflow import __version__, version

SCRIPTS = Path(__file__).resolve().parent.parent.parent


def job_environment(context: str | None) -> dict[str, str]:
    """What the shell of a job needs to know and no result depends on.

    ``python`` is then the interpreter that runs Snakemake (unless a software deployment puts another one before it), and
    RAMPFLOW_SCRIPTS and RAMPFLOW_CONTEXT name the folder of the scripts and the CRDS context. RAMPFLOW_VERSION is the
    version of this software, so that no job asks git for it.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        "PATH": path,
        "RAMPFLOW_SCRIPTS": str(SCRIPTS),
        "RAMPFLOW_CONTEXT": context or "",
        version.VARIABLE: __version__,
        # glibc would give what a step frees back to the system, which clears it before the step gets it again: up to these
        # bytes, of one array and of all, stay with the step.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    }
