"""The table of steps: chains of romancal's steps spelled out, statuses of the data model, and the documents that show it."""

import re
from importlib import resources

import declarations
import pytest
import yaml
from repository import ROOT

from rampflow.chain import EXPOSURE_TYPES, LATER_STATUSES, STATUSES, STEPS, chain_of, image_chain, statuses_after
from rampflow.errors import RampflowError

ON_THE_RAMP = "dq_init saturation refpix dark_decay linearity ramp_fitting".split()
ON_THE_IMAGE = "dark_current assign_wcs photom".split()
IMAGING_ALONE = ["source_catalog", "tweakreg"]
#: Statuses of the steps that romancal has, too. A step of rampflow alone may be added to the table without a change here.
ROMANCAL_STATUSES = [step.status for step in STEPS.values() if step.romancal_name]


def in_romancal(names):
    """Those of the steps that romancal has."""
    return [name for name in names if STEPS[name].romancal_name]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("WFI_IMAGE", ["flatfield", *IMAGING_ALONE]),
        ("WFI_LOLO", ["flatfield", *IMAGING_ALONE]),
        ("WFI_WFSC", ["flatfield"]),
        ("WFI_SPECTRAL", []),
        ("WFI_FLAT", []),
        ("WFI_IM_DARK", []),
        ("WFI_SP_DARK", []),
    ],
)
def test_the_chain_of_each_exposure_type(kind, more):
    assert in_romancal(chain_of(kind, "WFI01")) == [*ON_THE_RAMP, *ON_THE_IMAGE, *more]
    with_transient = [*ON_THE_RAMP[:4], "wfi18_transient", *ON_THE_RAMP[4:]]
    assert in_romancal(chain_of(kind, "WFI18")) == [*with_transient, *ON_THE_IMAGE, *more]
    assert in_romancal(chain_of(kind, "WFI01", frozenset({"refpix", "photom"}))) == [
        name for name in (*ON_THE_RAMP, *ON_THE_IMAGE, *more) if name not in ("refpix", "photom")
    ]


@pytest.mark.parametrize(("kind", "detector"), [("WFI_GUIDE", "WFI01"), ("WFI_IMAGE", "WFI19"), ("WFI_IMAGE", "")])
def test_unknown_exposure_types_and_detectors_are_refused(kind, detector):
    with pytest.raises(RampflowError):
        chain_of(kind, detector)


def test_source_catalog_and_tweakreg_write_no_exposure():
    assert in_romancal(image_chain(list(STEPS))) == [name for name in in_romancal(STEPS) if name not in IMAGING_ALONE]


def test_statuses_are_those_of_the_data_model():
    folder = resources.files("rad") / "resources" / "schemas" / "meta"
    schema = yaml.safe_load((folder / "l2_cal_step-2.0.0.yaml").read_text())
    properties = {name for part in schema.get("allOf", [schema]) for name in part.get("properties", {})}
    assert {*ROMANCAL_STATUSES, *LATER_STATUSES} == properties
    assert set(STATUSES).isdisjoint(LATER_STATUSES)


def test_the_statuses_after_a_step_are_those_of_the_steps_that_follow():
    assert [status for status in statuses_after("flatfield") if status in ROMANCAL_STATUSES] == ["source_catalog", "tweakreg"]
    assert set(ROMANCAL_STATUSES) - set(statuses_after("saturation")) == {"dq_init", "saturation"}


def test_names_statuses_and_suffixes_are_unique():
    for values in ([step.status for step in STEPS.values()], [step.suffix for step in STEPS.values()]):
        assert len(set(values)) == len(STEPS)


def test_each_row_has_its_script_and_its_rule():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    for name, step in STEPS.items():
        assert declarations.steps()[name].name == name and declarations.steps()[name].status == step.status
        assert f"\nrule {name}:\n" in rules


def test_the_readme_table_matches_the_table_of_steps():
    text = (ROOT / "README.md").read_text()
    header, _, *rows = text[text.index("| step | WFI_IMAGE") :].split("\n<!--")[0].splitlines()
    columns = [cell.strip().split(", ") for cell in header.strip("|").split("|")[1:]]
    assert sorted(kind for column in columns for kind in column) == sorted(EXPOSURE_TYPES)
    listed = {}
    for row in rows:
        names, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        kinds = {kind for cell, column in zip(cells, columns, strict=True) if cell == "yes" for kind in column}
        listed |= dict.fromkeys(names.split(", "), kinds)
    assert list(listed.items()) == [
        (step.name + "".join(f" (WFI{number:02} alone)" for number in step.detectors), set(step.exposure_types))
        for step in STEPS.values()
    ]


def test_the_readme_picture_has_every_step_in_order():
    picture = (ROOT / "README.md").read_text().split("```mermaid")[1].split("```")[0]
    assert [name for name in re.findall(r"\b[a-z]\w+\b", picture) if name in STEPS] == list(STEPS)


def test_the_migration_page_lists_the_suffixes():
    first, *others = (STEPS[name].suffix for name in in_romancal(image_chain(list(STEPS))))
    expected = ", ".join([f"`STEM_{first}.asdf`", *(f"`_{suffix}`" for suffix in others)])
    assert expected in " ".join((ROOT / "docs" / "from-romancal.md").read_text().split())
