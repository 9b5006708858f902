"""The table of steps, and which of them an exposure goes through.

All that goes by steps takes them from here: statuses in the products, names of the files between the steps, keys of the
configuration, inputs of the rules, rows of the report, tables in the documents. A step is a row here, a script, a rule and its
test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rampflow import detector
from rampflow.errors import RampflowError

IMAGING = ("WFI_IMAGE", "WFI_LOLO")
WAVEFRONT = ("WFI_WFSC",)
OTHERS = ("WFI_SPECTRAL", "WFI_FLAT", "WFI_IM_DARK", "WFI_SP_DARK")
EXPOSURE_TYPES = (*IMAGING, *WAVEFRONT, *OTHERS)


@dataclasses.dataclass(frozen=True)
class ChainStep:
    """A row of the table of steps.

    Attributes
    ----------
    name : str
        Name of the script, of the rule and of the key in the configuration.
    status : str
        Name in ``meta.cal_step``.
    suffix : str
        Suffix of the file that it writes between the steps (romancal's).
    takes : str
        The data model that it works on: ``wfi_science_raw``, ``ramp`` or ``wfi_image``.
    exposure_types : tuple of str
        Values of ``meta.exposure.type`` that it applies to.
    detectors : tuple of int
        Numbers of the detectors that it applies to; empty for all.
    rewrites : bool
        It writes the exposure anew. Otherwise it only looks at the exposure, and the next step takes what it took itself.
    optional : bool
        The configuration may leave it out. The others change the form of the exposure: without them there is no product.
    romancal : str
        Name in romancal's pipeline, where it is another.
    """

    name: str
    status: str
    suffix: str
    takes: str
    exposure_types: tuple[str, ...] = EXPOSURE_TYPES
    detectors: tuple[int, ...] = ()
    rewrites: bool = True
    optional: bool = True
    romancal: str = ""

    def applies_to(self, exposure_type: str, detector_number: int) -> bool:
        """Whether an exposure of this type and detector goes through the step."""
        return exposure_type in self.exposure_types and (not self.detectors or detector_number in self.detectors)


#: All steps by name, in the order in which an exposure goes through them.
STEPS = {
    step.name: step
    for step in (
        ChainStep("dq_init", "dq_init", "dqinit", "wfi_science_raw", optional=False),
        ChainStep("saturation", "saturation", "saturation", "ramp"),
        ChainStep("refpix", "refpix", "refpix", "ramp"),
        ChainStep("dark_decay", "dark_decay", "dark_decay", "ramp"),
        ChainStep("wfi18_transient", "wfi18_transient", "wfi18_transient", "ramp", detectors=(18,)),
        ChainStep("linearity", "linearity", "linearity", "ramp"),
        ChainStep("ramp_fitting", "ramp_fit", "rampfit", "ramp", optional=False, romancal="rampfit"),
        ChainStep("dark_current", "dark", "darkcurrent", "wfi_image"),
        ChainStep("assign_wcs", "assign_wcs", "assignwcs", "wfi_image"),
        ChainStep("photom", "photom", "photom", "wfi_image"),
        ChainStep("flatfield", "flat_field", "flat", "wfi_image", (*IMAGING, *WAVEFRONT)),
        ChainStep("source_catalog", "source_catalog", "cat", "wfi_image", IMAGING, rewrites=False),
        ChainStep("tweakreg", "tweakreg", "tweakreg", "wfi_image", IMAGING, rewrites=False),
    )
}

#: Entries of ``meta.cal_step`` (RAD's l2_cal_step) that are these steps', and those of the pipelines that follow.
STATUSES = tuple(step.status for step in STEPS.values())
LATER_STATUSES = ("flux", "outlier_detection", "skymatch")


def statuses_after(name: str) -> tuple[str, ...]:
    """Statuses of all steps that follow a step."""
    return STATUSES[list(STEPS).index(name) + 1 :]


def chain_of(exposure_type: str, detector_name: str, skipped: frozenset[str] = frozenset()) -> list[str]:
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
    return [name for name, step in STEPS.items() if step.applies_to(exposure_type, number) and name not in skipped]


def image_chain(names: Sequence[str]) -> list[str]:
    """Those steps of a chain that write the exposure anew."""
    return [name for name in names if STEPS[name].rewrites]
