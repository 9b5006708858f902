"""The inventory of a run and its references from CRDS, with a small cache of simulated references and no server.

CRDS keeps its configuration until the process ends, so each query of CRDS runs in its own process.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import declarations
import numpy as np
import pytest
from inventories import DATA, SERVERLESS, SIZE, built, refused, write_exposure
from simulator import simulate_references
from small_files import SCRIPTS, set_entries, statuses, write_image, write_ramp, write_raw

from rampflow.chain import chain_of
from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.step.declaration import reference_types
from rampflow.workflow import configuration, inventory
from rampflow.workflow.headers import read_header

pytestmark = pytest.mark.slow


@pytest.fixture
def visit(tmp_path):
    """A folder whose `raw` has exposures of several types."""
    (tmp_path / "raw").mkdir()
    write_exposure(tmp_path / "raw", "a")
    write_exposure(tmp_path / "raw", "b", detector="WFI18")
    write_exposure(tmp_path / "raw", "c", kind="WFI_SPECTRAL", element="GRISM")
    return tmp_path


# ----------------------------------------------------------------------------------------------------------------- build
def test_each_exposure_has_its_chain_and_references(visit, cache):
    found = built(visit, cache)
    assert found["context"] == "roman_0002.pmap" and not found["missing"]
    exposures = {"a": ("WFI_IMAGE", "WFI01"), "b": ("WFI_IMAGE", "WFI18"), "c": ("WFI_SPECTRAL", "WFI01")}
    assert set(found["exposures"]) == set(exposures)
    for stem, (association, kind, detector, shape, chain, references) in found["exposures"].items():
        assert association == stem and shape == [4, SIZE, SIZE]
        assert (kind, detector) == exposures[stem]
        assert chain == chain_of(kind, detector)
        assert set(references) == set(reference_types(declarations.steps()[name] for name in chain))
        for reftype, path in references.items():
            assert Path(path).is_file() and Path(path).is_relative_to(cache / "references/roman")
            if reftype.startswith("dustmap"):
                assert Path(path).name == f"roman_wfi_{reftype}_0001.fits"
                continue
            serial = "0002" if (reftype, detector) == ("flat", "WFI01") else "0001"
            name = "" if reftype == "darkdecaysignal" else f"_{detector.lower()}"
            name += "_f158" if reftype == "epsf" else ""
            assert Path(path).name == f"roman_wfi_{reftype}{name}_{serial}.asdf"


def test_the_context_is_that_of_the_configuration_or_the_environment(visit, cache):
    def flat_of(found):
        return Path(found["exposures"]["a"][-1]["flat"]).name

    asked = built(visit, cache, {"input": "raw", "references": {"crds_context": "roman_0001.pmap"}})
    assert asked["context"] == "roman_0001.pmap" and flat_of(asked).endswith("_0001.asdf")
    environment = built(visit, cache, CRDS_CONTEXT="roman_0001.pmap")
    assert environment["context"] == "roman_0001.pmap" and flat_of(environment).endswith("_0001.asdf")
    # A store that another context has filled says nothing about this one.
    assert flat_of(built(visit, cache)).endswith("_0002.asdf")


def test_an_unknown_context_is_named_with_what_to_set(visit, cache):
    said = refused(visit, cache, {"input": "raw", "references": {"crds_context": "roman_0099.pmap"}})
    assert "roman_0099.pmap" in said and "CRDS_PATH" in said


def test_a_cache_that_is_not_there_is_named(visit, tmp_path):
    said = refused(visit, tmp_path / "nowhere")
    assert "nowhere" in said and "CRDS_PATH" in said


def test_a_failure_of_crds_is_told_when_a_log_handler_has_no_stream(tmp_path):
    code = (
        "import logging\n"
        "from rampflow.errors import RampflowError\n"
        "from rampflow.workflow import references\n"
        "logging.getLogger('CRDS').addHandler(logging.NullHandler())\n"
        "try:\n    references.resolve_context('roman_0099.pmap')\n"
        "except RampflowError as error:\n    print(error)\n"
    )
    variables = {k: v for k, v in os.environ.items() if not k.startswith("CRDS_")}
    variables |= {"PYTHONPATH": str(SCRIPTS), "CRDS_PATH": str(tmp_path), "CRDS_SERVER_URL": SERVERLESS}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CRDS knows no context roman_0099.pmap (")


def test_skipped_steps_need_no_references(visit, cache):
    found = built(visit, cache, {"input": "raw", "steps": {"refpix": {"skip": True}, "flatfield": {"skip": True}}})
    for *_, chain, references in found["exposures"].values():
        assert not {"refpix", "flatfield"} & set(chain) and not {"refpix", "flat"} & set(references)


def test_associations_name_their_members(visit, cache):
    members = [{"expname": f"raw/{stem}_uncal.asdf", "exptype": "science"} for stem in "ba"]
    (visit / "asn.json").write_text(json.dumps({"products": [{"name": "visit", "members": members}]}))
    found = built(visit, cache, {"input": "asn.json"})
    assert [(stem, e[0]) for stem, e in found["exposures"].items()] == [("b", "visit"), ("a", "visit")]


# ---------------------------------------------------------------------------------------------------------------- again
def test_only_changed_files_are_opened_again(visit, cache):
    first = built(visit, cache)
    assert sorted(first.pop("opened")) == ["a_uncal.asdf", "b_uncal.asdf", "c_uncal.asdf"]
    again = built(visit, cache)
    assert again.pop("opened") == [] and again == first

    write_exposure(visit / "raw", "a", kind="WFI_WFSC", detector="WFI18")
    write_exposure(visit / "raw", "d")
    changed = built(visit, cache)
    assert sorted(changed["opened"]) == ["a_uncal.asdf", "d_uncal.asdf"]
    assert changed["exposures"]["a"][1:3] == ["WFI_WFSC", "WFI18"]
    assert changed["exposures"]["b"] == first["exposures"]["b"]

    (visit / "raw/a_uncal.asdf").unlink()
    assert set(built(visit, cache)["exposures"]) == {"b", "c", "d"}


def test_a_file_of_the_same_size_is_opened_again_when_it_is_newer(visit, cache):
    built(visit, cache)
    path = visit / "raw/a_uncal.asdf"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes().replace(b"detector: WFI01", b"detector: WFI18"))
    assert path.stat().st_size == size
    found = built(visit, cache)
    assert found["opened"] == ["a_uncal.asdf"] and found["exposures"]["a"][2] == "WFI18"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 0}'])
def test_an_unreadable_store_is_built_again(visit, cache, content):
    (visit / ".rampflow").mkdir()
    (visit / ".rampflow/inventory.json").write_text(content)
    assert len(built(visit, cache)["opened"]) == 3
    config = configuration.validated({"input": "raw"}, declarations.steps())
    assert inventory.read(inventory.name_exposures_file(config, visit / "nowhere" / "inventory.json")) is None


def test_jobs_load_what_the_main_process_built(visit, cache, monkeypatch):
    """Also when another run has started in the same folder since."""
    found = built(visit, cache)
    for name in [name for name in os.environ if name.startswith("CRDS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRDS_PATH", str(cache))
    monkeypatch.setenv("CRDS_SERVER_URL", SERVERLESS)
    assert len(built(visit, cache, {"input": "raw/a_uncal.asdf"})["exposures"]) == 1
    config = configuration.validated({"input": "raw"}, declarations.steps())
    loaded = inventory.read(inventory.name_exposures_file(config, visit / ".rampflow/inventory.json"))
    assert loaded.context == found["context"] and loaded.links == found["links"]
    for stem, (association, kind, detector, shape, chain, references) in found["exposures"].items():
        entry = loaded.exposures[stem]
        assert (entry.association, entry.exposure_type, entry.detector) == (association, kind, detector)
        assert entry.shape == tuple(shape) and entry.chain == tuple(chain) and entry.references == references


# -------------------------------------------------------------------------------------------------------- content and place
def links_of(found, *types):
    """The links of an exposure's raw file and of some of its references."""
    return [found["links"][found["exposures"]["a"][-1][t]] for t in types]


def test_links_identify_files_by_name_and_content(visit, cache):
    found = built(visit, cache)
    used = {path for *_, references in found["exposures"].values() for path in references.values()}
    assert set(found["links"]) == used | {str(visit / f"raw/{stem}_uncal.asdf") for stem in "abc"}
    for path, link in found["links"].items():
        assert not Path(link).is_absolute() and Path(link).name == Path(path).name
        assert (visit / link).readlink() == Path(path)
        assert links.original(visit / link) == Path(path)
    assert len(set(found["links"].values())) == len(found["links"])


def test_a_cache_that_was_copied_and_touched_is_read_and_its_files_are_the_same(visit, cache, tmp_path):
    """What is stored about one cache does not apply to another, which may have other files."""
    before = built(visit, cache)
    copy = tmp_path / "copy"
    shutil.copytree(cache, copy)
    for path in copy.rglob("*.asdf"):
        path.touch()
    after = built(visit, copy)
    for stem, (*_, references) in after["exposures"].items():
        for reftype, path in references.items():
            assert Path(path).is_relative_to(copy), (stem, reftype)
            assert after["links"][path] == before["links"][before["exposures"][stem][-1][reftype]]
            assert (visit / after["links"][path]).readlink() == Path(path)


def test_another_content_of_the_same_name_has_another_link(visit, cache, tmp_path):
    before = links_of(built(visit, cache), "flat", "dark")
    other = tmp_path / "other"
    types = tuple(reference_types(declarations.steps().values()))
    simulate_references.make_cache(other, ("WFI01", "WFI18"), SIZE, 3, new=types)
    simulate_references.make_cache(other, ("WFI01",), SIZE, 4, context="roman_0002.pmap", new=("flat",))
    after = links_of(built(visit, other), "flat", "dark")
    assert [Path(link).name for link in after] == [Path(link).name for link in before]
    assert all(new != old for new, old in zip(after, before, strict=True))
    assert links_of(built(visit, cache), "flat", "dark") == before, "and back"


def test_another_file_of_the_same_size_and_time_is_noticed(visit, cache):
    """As two references of one program that are copied with their times, one over the other."""
    mine = visit / "mine.asdf"
    flat = Path(built(visit, cache)["exposures"]["a"][-1]["flat"])
    content, times = flat.read_bytes(), (1.7e9, 1.7e9)
    found = []
    for byte in (content[-1], content[-1] ^ 1):
        (visit / "new.asdf").write_bytes(content[:-1] + bytes([byte]))
        os.utime(visit / "new.asdf", times)
        (visit / "new.asdf").replace(mine)
        found += links_of(
            built(visit, cache, {"input": "raw/a_uncal.asdf", "references": {"override": {"flat": str(mine)}}}), "flat"
        )
    assert found[0] != found[1]


def test_changed_rules_of_the_same_context_are_evaluated_again(visit, tmp_path):
    """A cache that was replaced in the same place."""
    types = tuple(reference_types(declarations.steps().values()))
    flats = []
    for context in ("roman_0001.pmap", "roman_0002.pmap"):
        place = tmp_path / "place"
        shutil.rmtree(place, ignore_errors=True)
        simulate_references.make_cache(place, ("WFI01", "WFI18"), SIZE, 1, context=context, new=types)
        for path in (place / "mappings").rglob("*.pmap"):
            path.rename(path.with_name("roman_0001.pmap"))
        found = built(visit, place, CRDS_CONTEXT="roman_0001.pmap")
        flats.append(Path(found["exposures"]["a"][-1]["flat"]).name)
    assert flats == ["roman_wfi_flat_wfi01_0001.asdf", "roman_wfi_flat_wfi01_0002.asdf"]


def test_raw_files_are_identified_by_name_and_content(visit, cache):
    """Folder, spelling of the path and time do not matter."""
    first = built(visit, cache, {"input": "raw/a_uncal.asdf"})["links"][str(visit / "raw/a_uncal.asdf")]
    (visit / "elsewhere").mkdir()
    moved = visit / "elsewhere/a_uncal.asdf"
    shutil.copyfile(visit / "raw/a_uncal.asdf", moved)
    for given in (str(moved), "elsewhere/a_uncal.asdf", "elsewhere"):
        found = built(visit, cache, {"input": given})
        assert found["links"][found_path(found)] == first
    content = moved.read_bytes()
    moved.write_bytes(content.replace(b"detector: WFI01", b"detector: WFI18"))
    assert list(built(visit, cache, {"input": str(moved)})["links"].values()).count(first) == 0
    moved.write_bytes(content[:-1000] + bytes(1000))
    found = built(visit, cache, {"input": str(moved)})
    assert found["links"][found_path(found)] != first, "other pixels"


def found_path(found):
    return next(path for path in found["links"] if path.endswith("_uncal.asdf"))


def test_an_override_that_was_edited_in_place_has_another_link(visit, cache):
    """One value changed by a program that leaves the checksums as they are."""
    config = {"input": "raw/a_uncal.asdf", "references": {"override": {"flat": "mine.asdf"}}}
    flat = next((cache / "references/roman/wfi").glob("roman_wfi_flat_wfi01_0001*"))
    shutil.copyfile(flat, visit / "mine.asdf")
    before = links_of(built(visit, cache, config), "flat")
    (visit / "mine.asdf").touch()
    assert links_of(built(visit, cache, config), "flat") == before
    content = bytearray(flat.read_bytes())
    content[len(content) // 2] ^= 1
    (visit / "mine.asdf").write_bytes(content)
    assert links_of(built(visit, cache, config), "flat") != before


def test_without_symbolic_links_the_folder_is_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(RampflowError, match=r"a symbolic link can't be made \(Operation not permitted\); work in a folder"):
        links.make_link(tmp_path / "files/0/flat.asdf", tmp_path / "flat.asdf")


def test_a_reference_that_is_fetched_keeps_its_link(visit, cache, tmp_path, monkeypatch):
    """Its content is unknown before it is retrieved; products made with it meanwhile are not repeated."""
    poor = tmp_path / "poor"
    shutil.copytree(cache, poor, copy_function=os.link)
    gain = poor / "references/roman/wfi/roman_wfi_gain_wfi01_0001.asdf"
    gain.unlink()
    online = {"CRDS_SERVER_URL": "https://localhost:9", "CRDS_CONTEXT": "roman_0002.pmap"}

    def gain_link():
        return links_of(built(visit, poor, **online), "gain")[0]

    link = gain_link()
    assert not os.path.lexists(visit / link)
    shutil.copyfile(cache / gain.relative_to(poor), gain)  # what rule fetch_reference does
    monkeypatch.chdir(visit)
    links.record_fetched(Path(link), gain)
    assert gain_link() == link
    # Removed again, perhaps with the cache: what was stored about it is kept.
    gain.unlink()
    assert gain_link() == link and not (visit / link).exists()
    # The server may give another one now.
    gain.write_text("another")
    with pytest.raises(RampflowError, match="differs from the reference of this name .* run again"):
        links.record_fetched(Path(link), gain)
    assert gain_link() != link


# ------------------------------------------------------------------------------------------------------------ overriding
def test_an_override_is_for_every_exposure(visit, cache):
    (visit / "mine.asdf").write_text("")
    found = built(visit, cache, {"input": "raw", "references": {"override": {"saturation": "mine.asdf", "refpix": "N/A"}}})
    for *_, references in found["exposures"].values():
        assert references["saturation"] == str(visit / "mine.asdf") and references["refpix"] == "N/A"
        assert references["mask"].startswith(str(cache))


def test_an_override_made_for_other_exposures_is_refused_before_any_job(visit, cache):
    """One flat for all, and one exposure is of another detector; spectra read no flat."""
    mine, other = (
        next((cache / "references/roman/wfi").glob(f"*_{kind}_0001.asdf")) for kind in ("flat_wfi01", "epsf_wfi01_f129")
    )
    config = {"input": "raw", "references": {"override": {"flat": str(mine), "epsf": str(other)}}}
    flat, epsf = refused(visit, cache, config).strip().splitlines()
    assert "references.override.flat" in flat and "detector is WFI01" in flat and "the exposure WFI18 (b_uncal.asdf)" in flat
    assert "references.override.epsf" in epsf and "(a_uncal.asdf and 1 other)" in epsf
    assert "references.allow_mismatch" in flat
    config["references"]["allow_mismatch"] = True
    assert built(visit, cache, config)["exposures"]["b"][-1]["flat"] == str(mine)
    only = {"input": "raw", "exclude": ["b"], "references": {"override": {"flat": str(mine)}}}
    assert built(visit, cache, only)["exposures"]["a"][-1]["flat"] == str(mine)


def test_an_override_that_doesn_t_exist_is_named(visit, cache):
    said = refused(visit, cache, {"input": "raw", "references": {"override": {"flat": "none.asdf"}}})
    assert said.startswith("references.override.flat: ") and "none.asdf does not exist" in said


def test_a_needed_reference_can_t_be_n_a(visit, cache):
    said = refused(visit, cache, {"input": "raw", "references": {"override": {"gain": "N/A"}}})
    assert "no gain reference applies, and ramp_fitting can't do without" in said


def test_with_everything_overridden_crds_is_not_asked(visit, tmp_path):
    (visit / "mine.asdf").write_text("")
    override = {t: "mine.asdf" for t in reference_types(declarations.steps().values())}
    found = built(visit, tmp_path / "nowhere", {"input": "raw", "references": {"override": override}})
    assert found["context"] is None
    assert {path for *_, references in found["exposures"].values() for path in references.values()} == {
        str(visit / "mine.asdf")
    }


# -------------------------------------------------------------------------------------------------------------- what is wrong
def test_all_bad_files_are_listed(visit, cache):
    (visit / "raw/a_uncal.asdf").write_text("nothing")
    content = (visit / "raw/b_uncal.asdf").read_bytes()
    (visit / "raw/b_uncal.asdf").write_bytes(content[: len(content) // 2])
    write_image(visit / "raw/e_uncal.asdf", DATA[0, 4:-4, 4:-4])
    write_exposure(visit / "raw", "f", kind="WFI_SELFIE")
    write_exposure(visit / "raw", "g", detector="WFI42")
    *lines, remedy = refused(visit, cache).strip().splitlines()
    expected = {
        "a": "is not an ASDF file",
        "b": "truncated",
        "e": "expected the data model 'wfi_science_raw', 'fps' or 'tvac', found 'wfi_image-2.1.0'",
        "f": "'WFI_SELFIE'",
        "g": "'WFI42'",
    }
    assert len(lines) == len(expected)
    for line, (stem, message) in zip(lines, expected.items(), strict=True):
        assert f"{stem}_uncal.asdf: " in line and message in line
    assert not (visit / ".rampflow").exists()
    # The remedy as it stands is what the configuration takes.
    assert remedy == "to go on without: --config 'exclude=[a,b,e,f,g]'"
    found = built(visit, cache, {"input": "raw", "exclude": ["a", "b", "e", "f", "g"]})
    assert set(found["exposures"]) == {"c"} and set(found["opened"]) == {"c_uncal.asdf"}


def change_raw(path, changes):
    with AsdfFile(path) as file:
        set_entries(file.tree["roman"], changes)
        with create_asdf(path.with_name("changed"), file.tree) as writer:
            for array in file.tree["roman"].values():
                if hasattr(array, "read"):
                    writer.write(array, array.read())
    path.with_name("changed").rename(path)


def write_input_ramp(path, *complete):
    meta = {"instrument.detector": "WFI01", "instrument.optical_element": "F158", "cal_step": statuses(*complete)}
    return write_ramp(path, DATA, meta)


def test_a_ramp_goes_through_the_same_steps_as_its_raw_file(visit, cache):
    write_input_ramp(visit / "raw/d_dqinit.asdf", "dq_init", "saturation")
    found = built(visit, cache, {"input": ["raw", "raw/d_dqinit.asdf"]})["exposures"]
    assert found["d"][0] == "d" and found["d"][1:] == found["a"][1:]


@pytest.mark.parametrize(("name", "dtype", "expected"), [("groupdq", "u4", "uint8"), ("pixeldq", "u8", "uint32")])
def test_a_ramp_with_wider_flags_is_refused(tmp_path, name, dtype, expected):
    """Its flags beyond these bits would be lost, and its ramp would not be valid."""
    path = write_input_ramp(tmp_path / "d_dqinit.asdf", "dq_init")
    with AsdfFile(path) as file:
        roman = file.tree["roman"]
        roman[name] = roman[name].read().astype(dtype)
        with create_asdf(tmp_path / "e_dqinit.asdf", file.tree):
            pass
    refusals = read_header(tmp_path / "e_dqinit.asdf")["refusals"]
    assert f"e_dqinit.asdf: {name} has dtype {np.dtype(dtype).name}; expected {expected}" in refusals["dq_init"]


def test_ramps_that_can_not_be_processed_are_refused(visit, cache):
    write_input_ramp(visit / "raw/d_ramp.asdf", "dq_init", "refpix")
    (visit / "results").mkdir()
    write_input_ramp(visit / "results/e_dqinit.asdf", "dq_init")
    said = refused(visit, cache, {"input": ["raw", "raw/d_ramp.asdf"]})
    assert "d_ramp.asdf: refpix changed the counts of this ramp already" in said and "exclude=[d]" in said
    said = refused(visit, cache, {"input": ["raw", "results/e_dqinit.asdf"]})
    assert "e_dqinit.asdf: lies in the folder of the results" in said


def test_what_a_step_would_refuse_is_refused_with_all_other_bad_inputs(visit, cache):
    write_raw(visit / "raw/short_uncal.asdf", DATA[:1], {"instrument.detector": "WFI01"})
    for name, changes in {
        "time": {"meta.exposure.frame_time": 0.0},
        "pointing": {"meta.wcsinfo.ra_ref": ...},
        "guide": {"meta.guide_star.window_xstop": ...},
    }.items():
        change_raw(write_exposure(visit / "raw", name), changes)
    (visit / "raw/a_uncal.asdf").write_text("nothing")
    *lines, remedy = refused(visit, cache).strip().splitlines()
    assert len(lines) == 5 and remedy == "to go on without: --config 'exclude=[a,guide,pointing,short,time]'"
    assert "guide_uncal.asdf: meta.guide_star.window_xstop is missing" in lines[1]
    assert "pointing_uncal.asdf: meta.wcsinfo.ra_ref is missing" in lines[2]
    assert "short_uncal.asdf: the ramp has 1 resultant; ramp_fitting needs at least 2" in lines[3]
    assert "time_uncal.asdf: meta.exposure.frame_time is 0.0" in lines[4]
    # A skipped step refuses nothing.
    steps = {name: {"skip": True} for name in ("assign_wcs", "source_catalog", "tweakreg")}
    skipping = {"input": "raw", "exclude": ["a", "guide", "short", "time"], "steps": steps}
    assert "pointing" in built(visit, cache, skipping)["exposures"]


def test_an_exposure_to_align_needs_a_source_catalog(visit, cache):
    """Without one, Snakemake would name a missing file. An exposure that is not aligned needs none."""
    skip = {"skip": True}
    said = refused(visit, cache, {"input": "raw", "steps": {"source_catalog": skip}})
    assert "configuration: steps.source_catalog.skip is true for a, and tweakreg aligns it with its source catalog" in said
    assert "set steps.tweakreg.skip to true as well" in said and said.count("steps.source_catalog.skip is true for") == 2
    one = [{"select": {"exposure": "b"}, "steps": {"source_catalog": skip}}]
    said = refused(visit, cache, {"input": "raw", "overrides": one})
    assert said.strip().startswith("overrides[0]: steps.source_catalog.skip is true for b, ") and "\n" not in said.strip()
    built(visit, cache, {"input": "raw", "steps": {"source_catalog": skip, "tweakreg": skip}})


def test_sources_and_the_alignment_need_a_wcs(visit, cache):
    """source_catalog would fail after the image is calibrated."""
    skip = {"skip": True}
    said = refused(visit, cache, {"input": "raw", "steps": {"assign_wcs": skip}})
    assert "configuration: steps.assign_wcs.skip is true for a, and source_catalog and tweakreg need its WCS" in said
    assert "set steps.source_catalog.skip and steps.tweakreg.skip to true as well" in said
    built(visit, cache, {"input": "raw", "steps": {name: skip for name in ("assign_wcs", "source_catalog", "tweakreg")}})


def test_an_excluded_member_need_not_be_there(visit, cache):
    members = [{"expname": f"raw/{stem}_uncal.asdf", "exptype": "science"} for stem in ("a", "gone", "b")]
    (visit / "asn.json").write_text(json.dumps({"products": [{"name": "visit", "members": members}]}))
    (visit / "raw/c_uncal.asdf").write_text("nothing")
    bad = {"input": ["asn.json", "raw/c_uncal.asdf", "raw/lost_uncal.asdf"]}
    *lines, remedy = refused(visit, cache, bad).strip().splitlines()
    assert len(lines) == 3
    assert "the member 'raw/gone_uncal.asdf' of 'visit' does not exist" in lines[0]
    assert "c_uncal.asdf: is not an ASDF file" in lines[1]
    assert "input 'raw/lost_uncal.asdf': does not exist" in lines[2]
    assert remedy == "to go on without: --config 'exclude=[gone,c,lost]'"
    assert set(built(visit, cache, bad | {"exclude": ["gone", "c", "lost"]})["exposures"]) == {"a", "b"}
    assert set(built(visit, cache, {"input": "asn.json", "exclude": ["gone"]})["exposures"]) == {"a", "b"}
    without = built(visit, cache, {"input": "asn.json", "exclude": ["gone", "b"]})["pointings"]
    assert without["gone"] is None and isinstance(without["b"], float), "known from the run that had it"
    files = ["raw/a_uncal.asdf", "raw/gone_uncal.asdf"]
    assert set(built(visit, cache, {"input": files, "exclude": ["gone"]})["exposures"]) == {"a"}


# ------------------------------------------------------------------------------------------------------ what arrives later
def test_files_that_are_still_arriving_are_left_out_and_named(visit, cache):
    raw = visit / "raw"
    content = (raw / "b_uncal.asdf").read_bytes()
    for name in ("d", "e"):
        (raw / f"{name}_uncal.asdf").touch()
    (raw / "b_uncal.asdf").write_bytes(content[: len(content) // 2])
    (raw / "e_uncal.asdf").write_bytes(content[:100])
    os.symlink(raw / "nowhere", raw / "f_uncal.asdf")
    members = [{"expname": f"raw/{stem}_uncal.asdf", "exptype": "science"} for stem in ("a", "b", "gone")]
    (visit / "asn.json").write_text(json.dumps({"products": [{"name": "visit", "members": members}]}))
    inputs = ["asn.json", *(f"raw/{stem}_uncal.asdf" for stem in ("c", "d", "e", "f"))]
    assert len(refused(visit, cache, {"input": inputs}).splitlines()) == 6, "five files, and how to go on without them"
    found = built(visit, cache, {"input": inputs, "incoming": True})
    assert set(found["exposures"]) == {"a", "c"} and found["excluded"] == {}
    assert found["left_out"] == {"visit": ["b", "gone"], "d": ["d"], "e": ["e"], "f": ["f"]}
    expected = {
        "b": "(truncated)",
        "gone": "the member 'raw/gone_uncal.asdf' of 'visit' does not exist",
        "d": "d_uncal.asdf: is not an ASDF file",
        "e": "e_uncal.asdf: ",
        "f": "f_uncal.asdf: can't be opened (No such file or directory)",
    }
    for notice, (stem, reason) in zip(found["notices"], expected.items(), strict=True):
        assert notice.startswith(f"{stem}: left out, it can't be read yet: ") and reason in notice
    # The next run takes what has arrived.
    (raw / "b_uncal.asdf").write_bytes(content)
    found = built(visit, cache, {"input": inputs, "incoming": True})
    assert set(found["exposures"]) == {"a", "b", "c"} and found["left_out"]["visit"] == ["gone"]
    assert found["exposures"]["b"][0] == "visit"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_left_out(visit, cache):
    (visit / "raw/b_uncal.asdf").chmod(0)
    found = built(visit, cache, {"input": "raw", "incoming": True})
    assert found["left_out"] == {"b": ["b"]} and "can't be opened (Permission denied)" in found["notices"][0]


def test_without_any_readable_file_there_is_nothing_to_do(visit, cache):
    arriving = {"input": "raw", "incoming": True}
    for stem in "abc":
        (visit / f"raw/{stem}_uncal.asdf").write_bytes(b"")
    *lines, remedy = refused(visit, cache, arriving).strip().splitlines()
    assert len(lines) == 3 and remedy.startswith("incoming: no exposure can be read yet, so that there is nothing to do")
    for stem in "abc":
        (visit / f"raw/{stem}_uncal.asdf").unlink()
    assert "the folder holds no file" in refused(visit, cache, arriving)
    assert "nothing to do" in refused(visit, cache, arriving)


def test_inputs_and_selections_without_a_file_yet_are_warnings(visit, cache):
    (visit / "half.json").write_text('{"products": [{"na')
    (visit / "empty").mkdir()
    config = {"input": ["raw", "half.json", "empty"], "exclude": ["late", "a", {"detector": "WFI07"}]}
    config["overrides"] = [{"select": {"detector": "WFI05"}, "steps": {"refpix": {"skip": True}}}]
    found = built(visit, cache, {**config, "incoming": True})
    assert set(found["exposures"]) == {"b", "c"} and found["left_out"] == {} and found["excluded"] == {"a": ["a"]}
    expected = ["half.json", "'empty'", "'late'", "exclude[2] (detector WFI07)", "overrides[0].select (detector WFI05)"]
    assert len(found["notices"]) == len(expected)
    assert all(text in notice for text, notice in zip(expected, found["notices"], strict=True))
    said = refused(visit, cache, config)
    assert "half.json" in said and "'empty'" in said


def test_a_whole_file_that_a_step_would_refuse_is_an_error_while_others_arrive(visit, cache):
    (visit / "raw/a_uncal.asdf").write_bytes(b"")
    change_raw(visit / "raw/b_uncal.asdf", {"meta.exposure.frame_time": 0.0})
    line, remedy = refused(visit, cache, {"input": "raw", "incoming": True}).strip().splitlines()
    assert "b_uncal.asdf: meta.exposure.frame_time is 0.0" in line and "exclude=[b]" in remedy


def test_exposures_can_be_left_out_of_any_input(visit, cache):
    everything = built(visit, cache)["exposures"]
    left = built(visit, cache, {"input": "raw", "exclude": "a"})["exposures"]
    assert left == {stem: entry for stem, entry in everything.items() if stem != "a"} and "a" in everything
    assert "no input is an exposure of the name 'nobody'" in refused(visit, cache, {"input": "raw", "exclude": ["nobody", "a"]})


def test_a_detector_without_references_is_named(visit, cache):
    write_exposure(visit / "raw", "d", detector="WFI05")
    said = refused(visit, cache)
    assert "d_uncal.asdf: CRDS has no mask reference in roman_0002.pmap" in said
    assert "WFI05" in said and "references.override.mask" in said


def test_without_a_server_a_missing_reference_is_named(visit, cache, tmp_path):
    poor = tmp_path / "poor"
    shutil.copytree(cache, poor, copy_function=os.link)
    (poor / "references/roman/wfi/roman_wfi_gain_wfi01_0001.asdf").unlink()
    said = refused(visit, poor)
    assert "roman_wfi_gain_wfi01_0001.asdf: this reference of roman_0002.pmap is not in the CRDS cache" in said
    assert "no server" in said and "1 missing in all" in said
    # With a server it would be fetched by a job of its own; the inventory only says that it is missing.
    found = built(visit, poor, CRDS_SERVER_URL="https://localhost:9", CRDS_CONTEXT="roman_0002.pmap")
    assert [Path(p).name for p in found["missing"]] == ["roman_wfi_gain_wfi01_0001.asdf"]
