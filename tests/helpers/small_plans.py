"""The plan of a run of four exposures in two associations, without files."""

from pathlib import Path

import declarations

from rampflow.chain import chain_of
from rampflow.workflow.configuration import validated
from rampflow.workflow.inventory import ExposureEntry, Inventory
from rampflow.workflow.plan import Plan

DECLARED = declarations.steps()
TYPES = {"a1": "WFI_IMAGE", "a2": "WFI_IMAGE", "a3": "WFI_SPECTRAL", "b1": "WFI_IMAGE"}


def entry(stem, **changes):
    """An exposure of the plan, with some entries changed."""
    chain = chain_of(TYPES[stem], "WFI01")
    types = {reference.type for step in chain for reference in DECLARED[step].references}
    references = {name: f"/crds/{name}.asdf" for name in types} | {"dark": "N/A"}
    known = {
        "path": f"/raw/{stem}_uncal.asdf",
        "association": stem[0],
        "exposure_type": TYPES[stem],
        "detector": "WFI01",
        "shape": (4, 256, 256),
        "chain": tuple(chain),
        "references": references,
        "tweakreg_catalog": None,
    }
    return ExposureEntry(stem, **known | changes)


def plan_of(scratch=None, **config):
    """The plan with a configuration; b1 is aligned with the catalog own.parquet of the working folder."""
    exposures = {stem: entry(stem) for stem in TYPES}
    exposures["b1"] = entry("b1", tweakreg_catalog="own.parquet")
    names = {p for e in exposures.values() for p in (e.path, *e.references.values())} - {"N/A"}
    links = {path: f"links/{Path(path).name}" for path in names}
    return Plan(validated(config, DECLARED), DECLARED, Inventory(exposures, "x.pmap", links), scratch)
