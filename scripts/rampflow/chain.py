"""Which steps an exposure goes through, in order: the one place that knows the table of steps."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rampflow import __version__, detector, version
from rampflow.errors import RampflowError
from rampflow.step.declaration import Step

SCRIPTS = Path(__file__).resolve().parent.parent

IMAGING = ("WFI_IMAGE", "WFI_LOLO")
WAVEFRONT = ("WFI_WFSC",)
OTHERS = ("WFI_SPECTRAL", "WFI_FLAT", "WFI_IM_DARK", "WFI_SP_DARK")
EXPOSURE_TYPES = (*IMAGING, *WAVEFRONT, *OTHERS)

#: Each step, and the exposure types that it applies to.
APPLIES_TO = {
    "dq_init": EXPOSURE_TYPES,
    "saturation": EXPOSURE_TYPES,
    "refpix": EXPOSURE_TYPES,
    "dark_decay": EXPOSURE_TYPES,
    "wfi18_transient": EXPOSURE_TYPES,  # of detector WFI18
    "linearity": EXPOSURE_TYPES,
    "ramp_fitting": EXPOSURE_TYPES,
    "dark_current": EXPOSURE_TYPES,
    "assign_wcs": EXPOSURE_TYPES,
    "photom": EXPOSURE_TYPES,
    "flatfield": (*IMAGING, *WAVEFRONT),
    "source_catalog": IMAGING,
    "tweakreg": IMAGING,
}

#: Steps that look at the image and leave it as it is: its chain of files ends before them.
CATALOG_STEPS = ("source_catalog", "tweakreg")

#: Steps that change the form of the exposure: without them there is no product.
INDISPENSABLE = ("dq_init", "ramp_fitting")


@functools.cache
def step(name: str) -> Step:
    """The declaration of a step, from its script."""
    return importlib.import_module(name).STEP


def steps() -> list[Step]:
    """The declarations of all steps, in order."""
    return [step(name) for name in APPLIES_TO]


def chain(exposure_type: str, detector_name: str, skipped: frozenset[str] = frozenset()) -> list[str]:
    """Names of the steps that an exposure goes through, in order.

    Parameters
    ----------
    exposure_type : str
        ``meta.exposure.type``.
    detector_name : str
        ``meta.instrument.detector``.
    skipped : frozenset of str
        Steps that the configuration leaves out.

    Raises
    ------
    RampflowError
        The type or the detector is not one of the instrument's.
    """
    if exposure_type not in EXPOSURE_TYPES:
        raise RampflowError(f"meta.exposure.type is {exposure_type!r}; it must be one of {', '.join(EXPOSURE_TYPES)}")
    number = detector.detector_number(detector_name)
    return [
        name
        for name, types in APPLIES_TO.items()
        if exposure_type in types and name not in skipped and (name != "wfi18_transient" or number == 18)
    ]


def image_chain(names: Sequence[str]) -> list[str]:
    """Those steps of a chain that write the exposure anew."""
    return [name for name in names if name not in CATALOG_STEPS]


def reference_types(names: Sequence[str]) -> list[str]:
    """Types of the references that some steps read, in order."""
    return list(dict.fromkeys(reference.type for name in names for reference in step(name).references))


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
