"""Runs with settings of selected exposures: what runs again, and what the products record."""

import shutil

import pytest
import roman_datamodels
from demo_visit import ASSOCIATION, FIRST, STEMS

pytestmark = pytest.mark.workflow

#: Two images of WFI01 and one of WFI18, each in an association of its own.
NAMES = [STEMS[0], STEMS[1], STEMS[2]]
INPUTS = [f"demo/{name}_uncal.asdf" for name in NAMES]
THRESHOLD = '{select: {exposure: "*_0001_*"}, steps: {ramp_fitting: {rejection_threshold: 6}}}'
FLAT = "{select: {detector: WFI18, optical_element: F158}, references: {flat: my_flat.asdf}}"
ENDS = {"source_catalog": 1, "astrometric_catalog": 1, "tweakreg": 1, "finalize": 1}


def options(job_per, *others):
    stars = "astrometric_catalog=demo/astrometric.ecsv"
    return ["--config", f"input=[{', '.join(INPUTS)}]", stars, f"results=selected_{job_per}", f"job_per={job_per}", *others]


@pytest.fixture(scope="module", params=["step", "exposure"])
def run(visit, request):
    """The visit's folder and the way of running, after a run without selections."""
    flat = next((visit.inputs / "crds_cache/references/roman/wfi").glob("*_flat_wfi18_*.asdf"))
    shutil.copy(flat, visit.folder / "my_flat.asdf")
    done = visit.snakemake(*options(request.param))
    assert done.returncode == 0, done.stdout + done.stderr
    return visit, request.param


def jobs(run, *others):
    visit, job_per = run
    counts = visit.jobs(*options(job_per, *others))
    counts.pop("astrometric_catalog", None)
    return counts


def test_only_what_is_selected_runs_again_and_the_products_record_it(run):
    visit, job_per = run
    assert jobs(run) == {}
    ends = {name: 1 for name in ENDS if name != "astrometric_catalog"}
    both = f"overrides=[{THRESHOLD}, {FLAT}]"
    if job_per == "step":
        after = ("flatfield", *ends)
        kept = ("dark_current", "assign_wcs", "photom")
        assert jobs(run, f"overrides=[{FLAT}]") == dict.fromkeys((*kept, *after), 1)
        changed = jobs(run, both)
        assert {changed[name] for name in (*kept, *after)} == {2} and changed["dq_init"] == changed["ramp_fitting"] == 1
    else:
        ends.pop("source_catalog")
        (rule,) = set(jobs(run, f"overrides=[{THRESHOLD}]")) - set(ends)
        assert rule.startswith("exposure_to_source_catalog")
        assert jobs(run, f"overrides=[{FLAT}]") == ends | {"exposure_to_source_catalog_with_wfi18_transient": 1}
        assert sum(jobs(run, both).values()) == 2 * (len(ends) + 1)

    done = visit.snakemake(*options(job_per, both))
    assert done.returncode == 0, done.stdout + done.stderr
    line = "overrides[0] (exposure *_0001_*): steps.ramp_fitting.rejection_threshold for 1 exposure"
    assert line in done.stdout + done.stderr and line in (visit.folder / "logs" / "summary.txt").read_text().splitlines()
    # The order of entries that don't meet is no reason to run again.
    assert jobs(run, both) == jobs(run, f"overrides=[{FLAT}, {THRESHOLD}]") == {}
    found = {}
    for name in NAMES:
        with roman_datamodels.open(visit.folder / f"selected_{job_per}" / f"{name}_cal.asdf") as image:
            logs = " ".join(" ".join(image.meta.cal_logs).split())
            found[name] = (
                [value for value in ("4.5", "6.0") if f"rejection_threshold={value}," in logs],
                "Parameters of the configuration's overrides: rejection_threshold" in logs,
                str(image.meta.ref_file.flat).endswith("my_flat.asdf"),
            )
    assert found == {NAMES[0]: (["6.0"], True, False), NAMES[1]: (["4.5"], False, False), NAMES[2]: (["4.5"], False, True)}


def test_a_selection_leaves_out_exposures_and_steps(run):
    visit, job_per = run
    both = f"overrides=[{THRESHOLD}, {FLAT}]"
    assert jobs(run, both, "exclude={detector: WFI18}") == {}, "the override of an exposure that is left out is no mistake"
    done = visit.snakemake(
        *options(job_per, "overrides=[{select: {detector: WFI07}, steps: {refpix: {skip: true}}}]"), "--dry-run"
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "overrides[0].select (detector WFI07) matches no exposure; detector is WFI01, WFI18" in said


def test_a_part_of_an_association_is_left_out_of_its_alignment(visit):
    skip = f"overrides=[{{select: {{exposure: {FIRST}}}, steps: {{tweakreg: {{skip: true}}}}}}]"
    counts = visit.jobs(*visit.arguments, skip)
    assert counts["tweakreg"] == 1 and set(counts) <= set(ENDS)
    differing = 'overrides=[{select: {exposure: "*_0001_*"}, steps: {tweakreg: {abs_sigma: 2.5}}}]'
    refused = visit.snakemake(*visit.arguments, differing, "--dry-run")
    assert refused.returncode != 0 and f"{ASSOCIATION} is aligned as a whole" in refused.stdout + refused.stderr
    agreed = f"overrides=[{{select: {{association: {ASSOCIATION}}}, steps: {{tweakreg: {{abs_sigma: 2.5}}}}}}]"
    assert visit.jobs(*visit.arguments, agreed)["tweakreg"] == 1


# ------------------------------------------------------------------------------------------------- messages before a run
def test_a_report_says_what_it_repeats_before_it_starts(run):
    visit, job_per = run
    both = f"overrides=[{THRESHOLD}, {FLAT}]"
    said = visit.snakemake("report", *options(job_per, both), "--dry-run")
    text = said.stdout + said.stderr
    assert said.returncode == 0, text
    last = "source_catalog" if job_per == "step" else "ramp_fitting"
    assert f"so that dq_init to {last} run again for 3 exposures" in text
    assert "keep_intermediates='[saturation, refpix, dark_decay, linearity, ramp_fitting]'" in text
    counts = visit.jobs("report", *options(job_per, both))
    assert counts["dq_init"] == counts["linearity"] == 3 and ("source_catalog" in counts) == (job_per == "step")


def test_a_second_config_that_replaces_the_first_is_refused(visit):
    done = visit.snakemake("--config", "input=demo", "--config", "results=x", "--dry-run")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "input would be ignored; write one: --config input=demo results=x" in said
