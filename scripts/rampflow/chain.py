"""The table of steps, and which of them an exposure goes through.

The statuses in the products, the names of intermediate files, the keys of the configuration, the inputs of the rules, the rows
of the report and the tables in the documents all follow from this table. CONTRIBUTING.md describes how to add a step.
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
        Name of its status in ``meta.cal_step``.
    suffix : str
        Suffix of the intermediate file that it writes, as in romancal.
    takes : str
        Data model of its input: ``wfi_science_raw``, ``ramp`` or ``wfi_image``.
    exposure_types : tuple of str
        Values of ``meta.exposure.type`` that it applies to.
    detectors : tuple of int
        Numbers of the detectors that it applies to; empty for all.
    rewrites : bool
        Whether it writes a new exposure file. If not, it only reads the exposure, and the next step reads the same file.
    optional : bool
        Whether the configuration may leave it out. A step that changes the data model can't be left out.
    romancal : str or None
        Name in romancal's pipeline, if it differs; None if romancal has no such step.
    """

    name: str
    status: str
    suffix: str
    takes: str
    exposure_types: tuple[str, ...] = EXPOSURE_TYPES
    detectors: tuple[int, ...] = ()
    rewrites: bool = True
    optional: bool = True
    romancal: str | None = ""

    @property
    def romancal_name(self) -> str | None:
        """Name in romancal's pipeline.

        Returns
        -------
        str or None
            The name; None if romancal has no such step.
        """
        return self.name if self.romancal == "" else self.romancal

    def applies_to(self, exposure_type: str, detector_number: int) -> bool:
        """Tell whether an exposure goes through the step.

        Parameters
        ----------
        exposure_type : str
            ``meta.exposure.type``.
        detector_number : int
            Number of its detector, 1 to 18.

        Returns
        -------
        bool
            Whether the step applies to this type and detector.
        """
        return exposure_type in self.exposure_types and (not self.detectors or detector_number in self.detectors)


#: All steps by name, in the order in which an exposure goes through them.
STEPS = {
    step.name: step
    for step in (
        ChainStep("dq_init", "dq_init", "dqinit", "wfi_science_raw", optional=False),
        ChainStep("saturation", "saturation", "saturation", "ramp"),
        ChainStep("refpix", "refpix", "refpix", "ramp"),
        ChainStep("dark_decay", "dark_decay", "dark_decay", "ramp"),
        ChainStep("wfi18_transient", "wfi18_transient", "wfi18_transient", "ramp", detectors=(detector.TRANSIENT_DETECTOR,)),
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

#: Entries of ``meta.cal_step`` (RAD's l2_cal_step) for these steps, and for the pipelines that follow.
STATUSES = tuple(step.status for step in STEPS.values())
LATER_STATUSES = ("flux", "outlier_detection", "skymatch")


def statuses_after(name: str) -> tuple[str, ...]:
    """List the statuses of the steps that follow a step.

    Parameters
    ----------
    name : str
        Name of the step.

    Returns
    -------
    tuple of str
        Their names in ``meta.cal_step``, in the order of the chain.
    """
    return STATUSES[list(STEPS).index(name) + 1 :]


def chain_of(exposure_type: str, detector_name: str, skipped: frozenset[str] = frozenset()) -> list[str]:
    """List the steps that an exposure goes through.

    Parameters
    ----------
    exposure_type : str
        ``meta.exposure.type``.
    detector_name : str
        ``meta.instrument.detector``.
    skipped : frozenset of str
        Steps that the configuration leaves out.

    Returns
    -------
    list of str
        Names of the steps, in order.

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
    """Select the steps of a chain that write a new exposure file.

    Parameters
    ----------
    names : sequence of str
        Names of the steps.

    Returns
    -------
    list of str
        Names of those that do, in the same order.
    """
    return [name for name in names if STEPS[name].rewrites]
