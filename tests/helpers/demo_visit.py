"""Names of the exposures of the demonstration's visit."""

from rampflow.chain import IMAGING, chain_of

TYPES = {
    "0001_wfi01_f158": "WFI_IMAGE",
    "0002_wfi01_f158": "WFI_IMAGE",
    "0003_wfi18_f158": "WFI_IMAGE",
    "0004_wfi18_f158": "WFI_LOLO",
    "0005_wfi01_f129": "WFI_WFSC",
    "0006_wfi01_grism": "WFI_SPECTRAL",
    "0007_wfi01_f158": "WFI_FLAT",
    "0008_wfi18_dark": "WFI_IM_DARK",
    "0009_wfi01_dark": "WFI_SP_DARK",
    "0010_wfi01_f158": "WFI_IMAGE",
}
ASSOCIATION = "r0000101001001001001"
SATURATED = "0010_wfi01_f158"
STEMS = [f"r0000101001001001001_{name}" for name in TYPES]
CHAIN = [*chain_of("WFI_IMAGE", "WFI01"), "finalize"]
CATALOGED = [stem for stem, kind in zip(STEMS, TYPES.values(), strict=True) if kind in IMAGING]
ALIGNED = [stem for stem in CATALOGED if not stem.endswith(SATURATED)]
FIRST = STEMS[0]
