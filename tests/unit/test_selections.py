"""Settings by selection: which exposures a selection matches, what they get, and what is refused."""

import json
import shutil

import declarations
import pytest
from inventories import built, refused, write_exposure
from parameter_references import add_parameters

from rampflow.errors import RampflowError
from rampflow.workflow import selections
from rampflow.workflow.configuration import validated

METADATA = {
    "roman.meta.observation.visit_id": "0000101001001001001",
    "roman.meta.observation.visit": "1",
    "roman.meta.observation.program": "00001",
    "roman.meta.observation.pass": "2",
    "roman.meta.instrument.detector": "WFI06",
    "roman.meta.instrument.optical_element": "F129",
    "roman.meta.exposure.type": "WFI_IMAGE",
    "roman.meta.exposure.ma_table_name": "IM_107_8",
    "roman.meta.exposure.ma_table_number": "1001",
}
FACTS = selections.selectable_values("r0000101001001001001_0001_wfi06_f129", "north", METADATA)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"detector": "WFI06", "optical_element": "F129"}, True),
        ({"detector": "WFI06", "optical_element": "F158"}, False),
        ({"detector": ["WFI05", "WFI06"]}, True),
        ({"detector": "WFI0?"}, True),
        ({"detector": "wfi06"}, False),
        ({"exposure": "*_0001_wfi06_*"}, True),
        ({"exposure": "r0000101001001001001_0001_wfi06_f129"}, True),
        ({"exposure": "r0000101001001001001"}, False),
        ({"association": "north"}, True),
        ({"visit": "r0000101001001001001"}, True),
        ({"visit": "0000101001001001001"}, True),
        ({"visit": 1}, True),
        ({"visit": 2}, False),
        ({"program": 1}, True),
        ({"program": "00001", "pass": [1, 2]}, True),
        ({"pass": 20}, False),
        ({"exposure_type": "WFI_*"}, True),
        ({"ma_table": 1001}, True),
        ({"ma_table": "IM_107_*"}, True),
        ({"segment": 1}, False),
    ],
)
def test_all_keys_of_a_selection_must_match(selection, expected):
    assert selections.matches(selections.normalized(selection), FACTS) is expected


def overrides(*entries):
    return validated({"overrides": list(entries)}, declarations.steps())["overrides"]


def test_a_later_entry_wins_for_each_value():
    found = selections.settings_for(
        overrides(
            {"select": {"detector": "WFI06"}, "references": {"flat": "a", "dark": "b"}, "steps": {"refpix": {"skip": True}}},
            {"select": {"detector": "WFI07"}, "references": {"flat": "other"}},
            {"select": {"pass": 2}, "references": {"flat": "c"}, "steps": {"ramp_fitting": {"edge_size": 1}}},
            {"select": {"pass": 2}, "steps": {"ramp_fitting": {"edge_size": 2, "sat_expand": 1}}},
        ),
        FACTS,
    )
    assert found.references == {"flat": ("c", "overrides[2]"), "dark": ("b", "overrides[0]")}
    assert found.parameters == {
        "refpix": {"skip": (True, "overrides[0]")},
        "ramp_fitting": {"edge_size": (2, "overrides[3]"), "sat_expand": (1, "overrides[3]")},
    }


def test_a_selection_without_exposures_is_named_with_the_values_that_exist():
    other = selections.selectable_values("r2_0001_wfi07_f129", "north", METADATA | {"roman.meta.instrument.detector": "WFI07"})
    (line,) = selections.unmatched({"overrides[0].select": {"detector": ["WFI08"]}}, [FACTS, other])
    assert line == "configuration: overrides[0].select (detector WFI08) matches no exposure; detector is WFI06, WFI07"
    (line,) = selections.unmatched({"exclude[1]": {"detector": ["WFI06"], "pass": ["2"], "exposure": ["r2*"]}}, [FACTS, other])
    assert line.endswith(f"exposure is {FACTS['exposure'][0]} of those with detector WFI06, pass 2")
    assert selections.unmatched({"a": {"detector": ["WFI08"]}}, []) == [], "there is no exposure to compare with"
    # One that is left out is matched too, also where its header can't be read.
    unread = selections.selectable_names("r3", "north")
    assert selections.unmatched({"a": {"detector": ["WFI08"], "exposure": ["r3"]}}, [FACTS], [unread]) == []
    assert len(selections.unmatched({"a": {"detector": ["WFI08"], "exposure": ["r4"]}}, [FACTS], [unread])) == 1


def test_an_association_has_one_set_of_parameters_of_its_alignment():
    options = {"abs_sigma": 3.0, "minobj": 15}
    own = {"abs_sigma": (2.5, "overrides[1]")}
    assert selections.disagreement({"a": own, "b": own}, options, "north") is None
    assert selections.disagreement({"a": {"abs_sigma": (3.0, "overrides[1]")}, "b": {}}, options, "north") is None
    assert selections.disagreement({"a": {"abs_sigma": (2.5, "/crds/p.asdf")}, "b": {}}, options, "north") is None
    said = selections.disagreement({"a": own, "b": {}}, options, "north")
    assert "overrides[1].steps.tweakreg.abs_sigma" in said and "2.5 for a and 3.0 for b" in said
    assert "{association: north}" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"overrides": [{"select": {"detectr": 1}, "steps": {}}]}, "'overrides[0].select.detectr'; did you mean 'detector'?"),
        (
            {"overrides": [{"select": {"pass": 1}, "steps": {"photm": {}}}]},
            "'overrides[0].steps.photm'; did you mean 'photom'?",
        ),
        (
            {"overrides": [{"select": {"pass": 1}, "steps": {"ramp_fitting": {"edge": 1}}}]},
            "'overrides[0].steps.ramp_fitting.edge'; did you mean 'edge_size'?",
        ),
        ({"overrides": [{"select": {"pass": 1}, "references": {"flatt": "x"}}]}, "did you mean 'flat'?"),
        ({"overrides": [{"select": {"pass": 1}, "steps": {"dq_init": {"skip": True}}}]}, "'overrides[0].steps.dq_init.skip'"),
        ({"overrides": [{"steps": {"photom": {}}, "references": {}}]}, "overrides[0] lacks the key 'select'"),
        ({"overrides": [{"select": {"pass": 1}}]}, "with select and at least one of references, steps"),
        (
            {"overrides": [{"select": {}, "steps": {}}]},
            "overrides[0].select is {}; it takes a mapping of keys with at least one of",
        ),
        (
            {"overrides": [{"select": {"pass": 1.5}, "steps": {}}]},
            "overrides[0].select.pass is 1.5; it takes a text or a whole",
        ),
        (
            {"overrides": [{"select": {"pass": 1}, "steps": {"ramp_fitting": {"rejection_threshold": float("nan")}}}]},
            "overrides[0].steps.ramp_fitting.rejection_threshold is nan",
        ),
        ({"exclude": ["a", {"detectr": 1}]}, "unknown key 'exclude[1].detectr'; did you mean 'detector'?"),
        ({"exclude": {"detectr": 1}}, "unknown key 'exclude.detectr'; did you mean 'detector'?"),
    ],
)
def test_what_no_selection_takes_is_refused(given, message):
    with pytest.raises(RampflowError) as error:
        validated(given, declarations.steps())
    assert message in str(error.value)


def test_selections_of_the_command_line_are_parsed():
    text = "[{select: {pass: 1}, steps: {photom: , ramp_fitting: {edge_size: '3'}}}]"
    config = validated({"overrides": text, "exclude": ["a*", {"detector": ["WFI01", 2]}]}, declarations.steps())
    expected = {"select": {"pass": ["1"]}, "references": {}, "steps": {"photom": {}, "ramp_fitting": {"edge_size": 3}}}
    assert config["overrides"] == [expected] and config["exclude"] == ["a*", {"detector": ["WFI01", "2"]}]
    assert validated({"exclude": {"pass": 1}}, declarations.steps())["exclude"] == [{"pass": ["1"]}]


# ------------------------------------------------------------------------------------------------------- in the inventory
@pytest.fixture
def raws(tmp_path):
    """Three raw exposures of one association: two of WFI01 and one of WFI18."""
    (tmp_path / "raw").mkdir()
    for name, detector in (("a", "WFI01"), ("b", "WFI01"), ("c", "WFI18")):
        write_exposure(tmp_path / "raw", name, detector=detector)
    members = [{"expname": f"raw/{name}_uncal.asdf", "exptype": "science"} for name in "abc"]
    (tmp_path / "asn.json").write_text(json.dumps({"products": [{"name": "visit", "members": members}]}))
    return tmp_path


def test_references_and_chains_are_those_of_the_selected_exposures(raws, cache):
    (raws / "mine.asdf").write_text("")
    (raws / "other.asdf").write_text("")
    config = {
        "input": "asn.json",
        "references": {"override": {"flat": "other.asdf"}},
        "steps": {"dark_decay": {"skip": True}},
        "overrides": [
            {"select": {"exposure": "a"}, "references": {"flat": "mine.asdf"}, "steps": {"dark_decay": {"skip": False}}},
            {"select": {"detector": "WFI18"}, "steps": {"refpix": {"skip": True}, "tweakreg": {"skip": True}}},
        ],
    }
    found = built(raws, cache, config)
    chains = {stem: entry[4] for stem, entry in found["exposures"].items()}
    flats = {stem: entry[-1]["flat"] for stem, entry in found["exposures"].items()}
    assert flats == {"a": str(raws / "mine.asdf"), "b": str(raws / "other.asdf"), "c": str(raws / "other.asdf")}
    assert [stem for stem in chains if "dark_decay" in chains[stem]] == ["a"]
    assert [stem for stem in chains if "refpix" in chains[stem]] == [s for s in chains if "tweakreg" in chains[s]] == ["a", "b"]
    assert found["parameters"]["c"]["refpix"] == {"skip": [True, "overrides[1]"]}
    assert found["selected"] == [
        "overrides[0] (exposure a): references.flat, steps.dark_decay.skip for 1 exposure",
        "overrides[1] (detector WFI18): steps.refpix.skip, steps.tweakreg.skip for 1 exposure",
    ]


def test_an_override_has_precedence_over_parameters_of_crds(raws, cache, tmp_path):
    operational = shutil.copytree(cache, tmp_path / "crds")
    add_parameters(operational, "0005", pars_rampfitstep=("", {"edge_size": 4, "sat_expand": 1}))
    config = {
        "input": "raw",
        "references": {"crds_context": "roman_0005.pmap"},
        "overrides": [{"select": {"exposure": "b"}, "steps": {"ramp_fitting": {"edge_size": 2}}}],
    }
    values = {s: found["ramp_fitting"] for s, found in built(raws, operational, config)["parameters"].items()}
    assert values["a"]["edge_size"][0] == 4 and values["b"]["edge_size"] == [2, "overrides[0]"]
    assert values["a"]["sat_expand"] == values["b"]["sat_expand"]


def test_wrong_selections_are_refused_before_any_job(raws, cache):
    def override(select, **settings):
        return {"input": "asn.json", "overrides": [{"select": select, **settings}]}

    said = refused(raws, cache, override({"detector": "WFI02"}, steps={"refpix": {"skip": True}}))
    assert "overrides[0].select (detector WFI02) matches no exposure; detector is WFI01, WFI18" in said
    said = refused(raws, cache, override({"detector": "WFI01"}, references={"flat": "none.asdf"}))
    assert said.startswith("overrides[0].references.flat: ") and "none.asdf does not exist" in said
    wfi01 = next((cache / "references/roman/wfi").glob("*_flat_wfi01_0001.asdf"))
    said = refused(raws, cache, override({"detector": "WFI*"}, references={"flat": str(wfi01)}))
    assert said.startswith("overrides[0].references.flat: ") and "the exposure WFI18 (c_uncal.asdf)" in said
    assert built(raws, cache, override({"detector": "WFI01"}, references={"flat": str(wfi01)}))["exposures"]
    said = refused(raws, cache, override({"exposure": "b"}, steps={"tweakreg": {"abs_sigma": 2.5}}))
    assert "overrides[0].steps.tweakreg.abs_sigma: visit is aligned as a whole" in said
    agreed = built(raws, cache, override({"association": "visit"}, steps={"tweakreg": {"abs_sigma": 2.5}}))
    assert {found["tweakreg"]["abs_sigma"][0] for found in agreed["parameters"].values()} == {2.5}
    required = override({"exposure": "b"}, steps={"tweakreg": {"skip": True}}) | {"require_alignment": True}
    assert "overrides[0]: steps.tweakreg.skip is true for b" in refused(raws, cache, required)


def test_settings_that_nothing_uses_are_named(raws, cache):
    override = {"select": {"exposure": "a"}, "steps": {"wfi18_transient": {"check_fit": False}}}
    found = built(raws, cache, {"input": "asn.json", "overrides": [override]})
    assert (
        "overrides[0]: steps.wfi18_transient has no effect: no selected exposure goes through wfi18_transient"
        in found["notices"]
    )


def test_exposures_are_excluded_by_pattern_and_selection(raws, cache):
    def kept(*exclude, **others):
        return set(built(raws, cache, {"input": "asn.json", "exclude": list(exclude), **others})["exposures"])

    assert kept("[ab]") == {"c"} and kept({"detector": "WFI01"}) == {"c"} and kept("c", {"exposure": "b"}) == {"a"}
    found = built(raws, cache, {"input": "asn.json", "exclude": ["a", {"detector": "WFI18"}]})
    assert found["excluded"] == {"visit": ["a", "c"]}
    said = refused(raws, cache, {"input": "asn.json", "exclude": ["x*"]})
    assert "exclude: no input is an exposure of the name 'x*'" in said
    said = refused(raws, cache, {"input": "asn.json", "exclude": [{"detector": "WFI09"}]})
    assert "exclude[0] (detector WFI09) matches no exposure; detector is WFI01, WFI18" in said
    # An override for an exposure that is left out is no mistake, but one for a detector that isn't there is.
    override = {"select": {"detector": "WFI18"}, "steps": {"refpix": {"skip": True}}}
    assert kept("c", overrides=[override]) == {"a", "b"}
    said = refused(
        raws, cache, {"input": "asn.json", "exclude": ["c"], "overrides": [override | {"select": {"detector": "WFI9"}}]}
    )
    assert "overrides[0].select (detector WFI9) matches no exposure" in said


def test_entries_of_exclude_may_match_the_same_exposure(raws, cache):
    """Each entry is compared with all exposures of the input, not with those that the other entries leave."""
    for exclude in (["c", {"detector": "WFI18"}], [{"detector": "WFI18"}, "c"], [{"detector": "WFI18"}, {"exposure": "c"}]):
        found = built(raws, cache, {"input": "asn.json", "exclude": exclude})
        assert set(found["exposures"]) == {"a", "b"} and found["excluded"] == {"visit": ["c"]}, exclude
    for other in ("c", {"detector": "WFI18"}):
        config = {"input": "asn.json", "exclude": [other, {"detector": "WFI18", "optical_element": "F000"}]}
        said = refused(raws, cache, config).strip()
        assert "exclude[1] (detector WFI18, optical_element F000) matches no exposure; optical_element is F" in said
        assert said.endswith("of those with detector WFI18")


def test_a_damaged_exposure_can_be_excluded_by_a_pattern_and_the_hint_keeps_selections(raws, cache):
    (raws / "raw/b_uncal.asdf").write_text("nothing")
    said = refused(raws, cache, {"input": "asn.json", "exclude": [{"detector": "WFI18"}]})
    assert said.strip().endswith("to go on without: --config 'exclude=[{detector: [WFI18]},b]'")
    assert set(built(raws, cache, {"input": "asn.json", "exclude": ["b*"]})["exposures"]) == {"a", "c"}
