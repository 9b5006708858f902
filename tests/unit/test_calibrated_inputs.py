"""Which calibrated images are taken as input, and into which association."""

import shutil

import declarations
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inventories import SERVERLESS
from parameter_references import add_parameters
from small_files import write_image

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.path_lists import read_list, write_list
from rampflow.files.tags import ROMAN_PREFIX
from rampflow.files.yaml_tree import tagged
from rampflow.workflow import inventory
from rampflow.workflow.association import find_members
from rampflow.workflow.configuration import validated
from rampflow.workflow.inventory_building import build_inventory

DECLARED = declarations.steps()
VISIT = "r0000101001001001001"
STEMS = [f"{VISIT}_0001_wfi0{number}_f158" for number in (1, 2)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with two calibrated images, each with its catalog and segmentation map."""
    monkeypatch.chdir(tmp_path)
    for stem in STEMS:
        write(tmp_path / f"{stem}_cal.asdf", **{"instrument.detector": stem[-10:-5].upper()})
        write_catalog(tmp_path / f"{stem}_cat.parquet")
        write_map(tmp_path / f"{stem}_segm.asdf")
    return tmp_path


def write_map(path, **meta):
    meta = {"filename": path.name, "instrument": {"detector": path.name.split("_")[2].upper()}} | meta
    with create_asdf(path, {"roman": tagged({"meta": meta}, f"{ROMAN_PREFIX}segmentation_map-2.1.0")}):
        pass


def write_catalog(path, x=1.0, metadata=(("roman.meta.filename", "a_cat.parquet"),)):
    pq.write_table(pa.table({"x_psf": [x]}).replace_schema_metadata(dict(metadata)), path)


def write(path, **meta):
    import numpy as np

    known = {"wcs": {}, **{f"wcsinfo.{name}": 1.0 for name in ("v2_ref", "v3_ref", "roll_ref")}}
    return write_image(path, np.zeros((8, 8)), known | meta)


def build(folder, **config):
    config = {"input": "*_cal.asdf", "results": "out"} | config
    return build_inventory(validated(config, DECLARED), folder, folder / ".rampflow" / "inventory.json", DECLARED)


def test_images_of_one_visit_are_one_association_and_only_aligned(folder):
    entries = build(folder).exposures
    assert list(entries) == STEMS
    for stem, entry in entries.items():
        assert (entry.association, entry.chain, entry.shape) == (VISIT, ("tweakreg",), (1, 8, 8))
        assert entry.is_calibrated and entry.is_cataloged and entry.catalog.endswith(f"{stem}_cat.parquet")
    assert inventory.read(inventory.name_exposures_file(validated({"input": "*_cal.asdf", "results": "out"}, DECLARED),
                                                   folder / ".rampflow" / "inventory.json")).exposures == entries  # fmt: skip


def parameters_of_crds(folder, cache, monkeypatch, **config):
    """What a context sets for tweakreg of the images, whose catalogs make references needless."""
    for name in ("CRDS_CONTEXT", "STPIPE_DISABLE_CRDS_STEPPARS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CRDS_PATH", str(cache))
    monkeypatch.setenv("CRDS_SERVER_URL", SERVERLESS)
    return [entry.step_parameters.get("tweakreg", {}) for entry in build(folder, **config).exposures.values()]


def test_parameters_of_a_named_context_are_used(folder, cache, monkeypatch):
    cache = shutil.copytree(cache, folder / "crds")
    add_parameters(cache, "0006", pars_tweakregstep=("WFI_IMAGE|WFI_LOLO", {"abs_fitgeometry": "shift"}))
    references = {"crds_context": "roman_0006.pmap"}
    for found in parameters_of_crds(folder, cache, monkeypatch, references=references):
        assert found["abs_fitgeometry"][0] == "shift" and found["abs_fitgeometry"][1].endswith("pars-tweakregstep_0006.asdf")
    assert parameters_of_crds(folder, cache, monkeypatch) == [{}, {}], "no context is named"
    off = references | {"step_parameters": False}
    assert parameters_of_crds(folder, folder / "no_cache", monkeypatch, references=off) == [{}, {}]


def test_a_context_that_leaves_out_the_alignment_is_refused(folder, cache, monkeypatch):
    cache = shutil.copytree(cache, folder / "crds")
    add_parameters(cache, "0006", pars_tweakregstep=("WFI_IMAGE|WFI_LOLO", {"skip": True}))
    with pytest.raises(RampflowError, match=r"_cal\.asdf: .*pars-tweakregstep_0006\.asdf.*step_parameters: false"):
        parameters_of_crds(folder, cache, monkeypatch, references={"crds_context": "roman_0006.pmap"})


def test_names_patterns_and_folders_give_the_same_association(folder):
    files = [f"{stem}_cal.asdf" for stem in STEMS]
    expected = find_members(files, folder)
    assert [member.association for member in expected] == [VISIT, VISIT]
    assert find_members(["*_cal.asdf"], folder) == find_members(["."], folder) == expected


def test_a_folder_with_raw_files_gives_these_alone(folder):
    (folder / "r1_uncal.asdf").write_text("")
    assert [member.path.name for member in find_members(["."], folder)] == ["r1_uncal.asdf"]


def test_links_change_with_the_content_of_the_files_beside_an_image(folder):
    before = build(folder).links
    write_catalog(folder / f"{STEMS[0]}_cat.parquet", x=2.0)
    changed = {path for path, link in build(folder).links.items() if before[path] != link}
    assert changed == {str(folder / f"{STEMS[0]}_cat.parquet")}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"results": "."}, "its products would be written over it"),
        ({"steps": {"tweakreg": {"skip": True}}}, "steps.tweakreg.skip is true: nothing is left to do"),
        ({"input": "*_none_cal.asdf"}, "does not exist"),
    ],
)
def test_images_with_nothing_to_do_or_in_the_way_are_refused(folder, config, says):
    with pytest.raises(RampflowError, match=says):
        build(folder, **config)


@pytest.mark.parametrize("ending", ["cal.asdf", "cat.parquet", "segm.asdf"])
def test_a_link_to_a_file_of_the_results_is_refused(folder, ending):
    path = folder / f"{STEMS[0]}_{ending}"
    (folder / "out").mkdir()
    path.symlink_to(path.rename(folder / "out" / path.name))
    with pytest.raises(RampflowError, match=f"{path.name}: lies in the folder of the results .*out.*would be overwritten"):
        build(folder)


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"exposure.type": "WFI_SPECTRAL"}, "type WFI_SPECTRAL, which isn't aligned"),
        ({"wcsinfo.v2_ref": "far"}, "v2_ref"),
    ],
)
def test_images_that_can_not_be_aligned_are_refused_before_any_job(folder, meta, says):
    write(folder / f"{STEMS[0]}_cal.asdf", **meta)
    with pytest.raises(RampflowError, match=says):
        build(folder)


@pytest.mark.parametrize("version", ["1.3.0", "3.0.0"])
def test_images_of_a_version_that_can_not_be_written_anew_are_refused_before_any_job(folder, version):
    path = folder / f"{STEMS[0]}_cal.asdf"
    with AsdfFile(path) as file:
        tree = file.tree | {"roman": tagged(file.tree["roman"], f"{ROMAN_PREFIX}wfi_image-{version}")}
        with create_asdf(folder / "changed", tree):
            pass
    (folder / "changed").replace(path)
    with pytest.raises(RampflowError, match=rf"_cal.asdf: has the data model wfi_image-{version}; .* from wfi_image-1.4.0 to"):
        build(folder)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "is truncated"),
        (lambda path: path.write_bytes(b""), "is truncated"),
        (lambda path: path.write_bytes(b"\xff\xff\xff\x7fPAR1"), "is truncated"),
        (lambda path: write_catalog(path, metadata=()), "no metadata of a product"),
    ],
)
def test_a_damaged_catalog_beside_an_image_is_refused_before_any_job(folder, damage, says):
    path = folder / f"{STEMS[1]}_cat.parquet"
    damage(path)
    with pytest.raises(RampflowError, match=f"{path}.*{says}.*; get it again, or remove it"):
        build(folder)


@pytest.mark.parametrize("ending", ["cat.parquet", "segm.asdf"])
@pytest.mark.parametrize("name", ["filename", "instrument.detector"])
def test_swapped_files_beside_images_are_refused_before_any_job(folder, ending, name):
    paths = [folder / f"{stem}_{ending}" for stem in STEMS]
    names, detectors = [stem[:-5] for stem in STEMS], ["WFI01", "WFI02"]
    for path, filename, detector in zip(paths, names[::-1], detectors[::-1], strict=True):
        known = {"filename": f"{filename}_{ending}"} if name == "filename" else {"detector": detector}
        if ending == "segm.asdf":
            write_map(path, filename=known.get("filename", ""), instrument={"detector": known.get("detector", "")})
        else:
            write_catalog(path, metadata=[("roman.meta.other", "?"), (f"roman.meta.{name}", *known.values())])
    with pytest.raises(RampflowError) as refused:
        build(folder)
    place, values = ("filename", names) if name == "filename" else ("detector", detectors)
    for path, theirs, ours in zip(paths, values[::-1], values, strict=True):
        assert f"{path}: is of {theirs} by its metadata ({place}), and not of {ours}; get it again" in str(refused.value)


def test_a_catalog_is_needed_where_sources_are_not_found_again(folder):
    (folder / f"{STEMS[0]}_segm.asdf").unlink()
    with pytest.raises(RampflowError, match="source_catalog.skip is true"):
        build(folder, steps={"source_catalog": {"skip": True}})


def test_a_long_list_of_files_is_one_short_argument(folder):
    paths = [f"{'long' * 30}/{number}.asdf" for number in range(1200)]
    argument = write_list(paths)
    assert len(argument) < 60 and read_list(["first", argument]) == ["first", *paths]
    assert write_list(paths) == argument != write_list(paths[:-1])
    assert write_list([]) == ""
    with pytest.raises(RampflowError, match="nowhere"):
        read_list(["@nowhere"])
