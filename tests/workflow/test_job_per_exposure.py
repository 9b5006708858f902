"""`job_per: exposure`: the products and logs of `job_per: step`, what runs again, and failures."""

import json
import re
import shutil

import pytest
from demo_visit import ASSOCIATION, CATALOGED, CONFIGURATION, SMALL_CONFIGURATION, STEMS, TYPES
from demo_visit import SMALL_FIRST as FIRST
from demo_visit import SMALL_SECOND as SECOND
from demo_visit import SMALL_SPECTRUM as SPECTRUM
from products import arrays_of, assert_same_products, leftovers
from repository import ROOT
from small_files import damage_pixels
from snakemake_runs import Workflow

from rampflow.chain import STEPS, chain_of
from rampflow.files.asdf_reader import AsdfFile
from rampflow.quality.benchmarks import read_benchmark

pytestmark = pytest.mark.workflow

#: Rules for the chains of the visit's exposures, and the number of exposures of each.
CHAINS = {
    "exposure_to_source_catalog": 3,
    "exposure_to_source_catalog_with_wfi18_transient": 2,
    "exposure_to_flatfield": 1,
    "exposure_to_photom": 3,
    "exposure_to_photom_with_wfi18_transient": 1,
}
#: Python imports it when it starts: the process of an exposure is killed in the middle of writing a file, if KILL is set.
KILL = """
import os, signal, sys
from pathlib import Path
pwrite = os.pwrite
def killing(descriptor, data, position):
    if os.environ.get("KILL") and Path(sys.argv[0]).stem == "process_exposure" and position > 100_000:
        os.kill(os.getpid(), signal.SIGKILL)
    return pwrite(descriptor, data, position)
os.pwrite = killing
"""


@pytest.fixture(scope="module")
def together(visit, tmp_path_factory):
    """The visit in another folder, a job for each exposure, all intermediates kept."""
    folder = tmp_path_factory.mktemp("together")
    shutil.copytree(visit.inputs, folder / "demo", ignore=shutil.ignore_patterns("results"))
    workflow = Workflow(folder, folder / "demo" / "crds_cache")
    workflow.arguments = [*CONFIGURATION, "--config", "keep_intermediates=true", "job_per=exposure"]
    workflow.results = folder / "demo" / "results"
    counts = workflow.jobs(*workflow.arguments)
    assert {rule: number for rule, number in counts.items() if rule.startswith("exposure")} == CHAINS
    assert not set(counts) & set(STEPS) - {"tweakreg"}, "no rule of a single step runs"
    run = workflow.snakemake(*workflow.arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    return workflow


def chain(stem):
    name = stem.partition("_")[2]
    steps = chain_of(TYPES[name], name.split("_")[1].upper())
    return [step for step in steps if step != "tweakreg"]


def lines_of(text):
    """Lines of a log without times, which differ between runs, and without the name of the working folder."""
    lines = [re.sub(r"\S*/demo/", "demo/", line.partition("Z :: ")[2]) for line in text.splitlines()]
    # A slow machine alone logs the rows, and the first process alone that it compiles, without a time.
    return [line for line in lines if line and "Rows done: " not in line]


# ------------------------------------------------------------------------------------------------------------- products
def test_products_are_the_same(visit, together):
    assert_same_products(together.results, visit.results)


@pytest.mark.parametrize("stem", STEMS)
def test_files_between_the_steps_and_their_logs_are_the_same(visit, together, stem):
    names = [f"{stem}_{STEPS[step].suffix}.asdf" for step in chain(stem) if STEPS[step].rewrites]
    names += [f"{stem}_cat.parquet", f"{stem}_segm.asdf"] if "source_catalog" in chain(stem) else []
    for name in names:
        ours, theirs = (workflow.results / "intermediates" / name for workflow in (together, visit))
        arrays, expected = arrays_of(ours), arrays_of(theirs)
        assert arrays.keys() == expected.keys()
        for key, array in expected.items():
            assert arrays[key].dtype == array.dtype and arrays[key].shape == array.shape, (name, key)
            same = list(arrays[key]) == list(array) if array.dtype.hasobject else arrays[key].tobytes() == array.tobytes()
            assert same, (name, key)
    for step in chain(stem):
        ours, theirs = (workflow.folder / "logs" / stem / f"{step}.log" for workflow in (together, visit))
        assert lines_of(ours.read_text()) == lines_of(theirs.read_text()), step


@pytest.mark.parametrize("stem", STEMS)
def test_provenance_is_the_same(visit, together, stem):
    metas = []
    for workflow in (together, visit):
        with AsdfFile(workflow.results / f"{stem}_cal.asdf") as file:
            meta = file.tree["roman"]["meta"]
        meta["cal_logs"] = lines_of("\n".join(meta["cal_logs"]))
        metas.append({key: meta[key] for key in ("cal_step", "ref_file", "cal_logs", "filename", "statistics")})
    assert metas[0] == metas[1]
    recipes = [line for line in metas[0]["cal_logs"] if ":: Recipe " in line]
    jobs = [*chain(stem), *(["tweakreg"] if stem in CATALOGED else []), "finalize"]
    assert sorted(line.split()[0] for line in recipes) == sorted(f"rampflow.{job}" for job in jobs)


def test_each_step_has_its_benchmark(together):
    for stem in STEMS:
        for step in [*chain(stem), "exposure", "finalize"]:
            measured = read_benchmark(together.folder / "benchmarks" / stem / f"{step}.tsv")
            assert measured["seconds"] > 0, (stem, step)
            assert step in ("exposure", "finalize") or measured["cpu"] is not None and measured["memory"] > 20


def test_the_log_of_the_job_tells_where_it_is(together):
    stem = STEMS[2]
    text = (together.folder / "logs" / stem / "exposure.log").read_text()
    steps = chain(stem)
    assert re.findall(r"Step (\d+) of (\d+): (\w+)", text) == [
        (str(n), str(len(steps)), step) for n, step in enumerate(steps, start=1)
    ]


# ----------------------------------------------------------------------------------------------------- what runs again
def test_nothing_runs_again(together):
    assert together.jobs(*together.arguments) == {}


def test_the_other_way_repeats_nothing_that_is_finished(visit, together):
    assert together.jobs(*together.arguments[:-1], "job_per=step") == {}
    assert visit.jobs(*visit.arguments, "job_per=exposure") == {}


def test_another_parameter_repeats_the_exposures_that_it_applies_to(together):
    counts = together.jobs(*together.arguments, "steps={flatfield: {include_var_flat: true}}")
    assert {rule: n for rule, n in counts.items() if "exposure" in rule} == {
        "exposure_to_source_catalog": 3,
        "exposure_to_source_catalog_with_wfi18_transient": 2,
        "exposure_to_flatfield": 1,
    }
    assert counts["finalize_image"] == 1


def test_the_products_of_either_way_are_valid_elsewhere(together, tmp_path):
    """In a working folder that knows nothing of them, recipes alone count."""
    shutil.copytree(together.folder / "demo", tmp_path / "demo")
    elsewhere = Workflow(tmp_path, tmp_path / "demo" / "crds_cache")
    for way in ("step", "exposure"):
        assert elsewhere.jobs(*together.arguments[:-1], f"job_per={way}") == {}


def test_pictures_of_ramps_need_the_files_of_the_steps(together):
    """Rules of single steps make what the jobs of the exposures don't write."""
    stem = STEMS[0]
    arguments = [*CONFIGURATION, "--config", f"input=demo/{stem}_uncal.asdf", "results=elsewhere", "job_per=exposure"]
    counts = together.jobs("report", *arguments)
    made = {rule for rule in counts if rule in STEPS or rule.startswith("exposure")}
    on_ramps = {"dq_init", "saturation", "refpix", "dark_decay", "linearity", "ramp_fitting"}
    assert made == {"exposure_to_source_catalog", "tweakreg"} | on_ramps
    kept = [*arguments[:-1], "job_per=exposure", "keep_intermediates=[saturation, refpix, linearity, ramp_fitting]"]
    assert not set(together.jobs("report", *kept)) & set(STEPS) - {"tweakreg"}


def test_the_profile_for_slurm_uses_it(together):
    arguments = [
        "--workflow-profile",
        ROOT / "workflow" / "profiles" / "slurm",
        "--config",
        f"input=demo/{STEMS[5]}_uncal.asdf",
    ]
    counts = together.jobs(*map(str, arguments), "results=elsewhere")
    assert counts["exposure_to_photom"] == 1 and "dq_init" not in counts


# ------------------------------------------------------------------------------------------------------------- failures
@pytest.fixture(scope="module")
def small(small_visit):
    """The small visit, whose process of an exposure can be killed."""
    (small_visit.folder / "sitecustomize.py").write_text(KILL)
    small_visit.environment["PYTHONPATH"] = str(small_visit.folder)
    small_visit.arguments = [*SMALL_CONFIGURATION, "--keep-going", "--config", "job_per=exposure"]
    return small_visit


def summary_of(workflow):
    return (workflow.folder / "logs" / "summary.txt").read_text().splitlines()


def test_an_exposure_killed_in_the_middle_of_its_chain(small):
    """The same command again makes the same products as a run that was not disturbed."""
    arguments = [*small.arguments, f"input=demo/{SPECTRUM}_uncal.asdf", "keep_intermediates=[linearity]"]
    undisturbed = small.snakemake(*arguments, "results=undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    killed = Workflow(small.folder, small.folder / "demo" / "crds_cache")
    killed.environment = small.environment | {"KILL": "yes"}
    run = killed.snakemake(*arguments, "results=killed")
    assert run.returncode == 1
    head, line, *_ = summary_of(small)
    assert head.startswith("rampflow: 1 failed, ") and head.endswith(", 0 of 1 exposures have their products")
    assert line.startswith(f"failed: {SPECTRUM} linearity: ended without an error message, probably killed")
    again = small.snakemake(*arguments, "results=killed")
    assert again.returncode == 0, again.stdout + again.stderr
    assert_same_products(small.folder / "killed", small.folder / "undisturbed")
    kept = [small.folder / name / "intermediates" for name in ("killed", "undisturbed")]
    assert [path.name for path in kept[0].iterdir()] == [f"{SPECTRUM}_linearity.asdf"]
    assert_same_products(*kept)
    assert not leftovers(small.folder)
    more = [*arguments[:-1], "keep_intermediates=true", "results=undisturbed"]
    assert small.jobs(*more) == {}, "files that are missing are not made for their own sake"
    changed = small.jobs(*more, "steps={refpix: {remove_trends: false}}")
    assert changed == {"exposure_to_photom": 1, "finalize_image": 1}


def test_one_bad_exposure_does_not_hold_back_the_others_of_its_association(small):
    raw = small.folder / "demo" / f"{FIRST}_uncal.asdf"
    good = raw.read_bytes()
    damage_pixels(raw)
    failed = small.snakemake(*small.arguments)
    assert failed.returncode == 1
    results = small.folder / "results"
    assert {path.name.removesuffix("_cal.asdf") for path in results.glob("*_cal.asdf")} == {SECOND, SPECTRUM}
    assert set(json.loads((results / f"{ASSOCIATION}_tweakreg.json").read_text())["exposures"]) == {SECOND}
    head, line, *_ = summary_of(small)
    assert head.startswith("rampflow: 1 failed, ") and head.endswith(", 2 of 3 exposures have their products")
    assert line.startswith(f"failed: {FIRST} dq_init: ") and line.endswith(f"[logs/{FIRST}/dq_init.log]")
    assert "doesn't match its checksum" in failed.stdout + failed.stderr
    raw.write_bytes(good)
    mended = small.snakemake(*small.arguments)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert set(json.loads((results / f"{ASSOCIATION}_tweakreg.json").read_text())["exposures"]) == {FIRST, SECOND}
    kept = {path.name.rpartition("_")[2] for path in (results / "intermediates").glob(f"{FIRST}_*")}
    assert kept == {"flat.asdf", "cat.parquet", "segm.asdf"}
    assert not list((results / "intermediates").glob(f"{SPECTRUM}_photom.asdf")), "a temporary file"
