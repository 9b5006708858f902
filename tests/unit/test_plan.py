"""What the rules of the workflow ask: files, arguments and recipes of the exposures of a run."""

import os
from pathlib import Path
from types import SimpleNamespace

import declarations
import process_exposure
import pytest

from rampflow.chain import chain_of
from rampflow.errors import RampflowError
from rampflow.step.program import read_arguments
from rampflow.workflow import late_reports, recipes, rerun, second_pass
from rampflow.workflow import plan as plans
from rampflow.workflow.configuration import validated
from rampflow.workflow.inventory import ExposureEntry, Inventory

DECLARED = declarations.steps()
TYPES = {"a1": "WFI_IMAGE", "a2": "WFI_IMAGE", "a3": "WFI_SPECTRAL", "b1": "WFI_IMAGE"}


def entry(stem, **changes):
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


@pytest.fixture
def make_plan(tmp_path, monkeypatch):
    """Makes the plan of a run of four exposures in two associations, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.parquet").write_text("a catalog")

    def make(scratch=None, **config):
        exposures = {stem: entry(stem) for stem in TYPES}
        exposures["b1"] = entry("b1", tweakreg_catalog="own.parquet")
        names = {p for e in exposures.values() for p in (e.path, *e.references.values())} - {"N/A"}
        links = {path: f"links/{Path(path).name}" for path in names}
        return plans.Plan(validated(config, DECLARED), DECLARED, Inventory(exposures, "x.pmap", links), scratch)

    return make


def test_which_exposures_and_associations_there_are(make_plan):
    plan = make_plan()
    assert plan.with_step("tweakreg") == ["a1", "a2", "b1"] and plan.without_step("tweakreg") == ["a3"]
    assert plan.associations() == plan.aligned_associations() == ["a", "b"]
    assert plan.members("a") == ["a1", "a2", "a3"] and plan.members_to_align("a") == ["a1", "a2"]


def test_all_products_are_those_of_the_exposures_and_the_alignments(make_plan):
    products = make_plan(results="out").all_products()
    assert len(products) == len(set(products)) == 3 * 6 + 4 + 2
    assert "out/a1_cat.parquet" in products and "out/a3_cat.parquet" not in products and "out/b_tweakreg.json" in products


def test_a_step_reads_what_the_previous_one_of_its_chain_writes(make_plan):
    plan = make_plan()
    assert plan.raw_exposure("a1") == "links/a1_uncal.asdf"
    assert plan.exposure_before("a1", "saturation") == "results/intermediates/a1_dqinit.asdf"
    before = f"results/intermediates/a1_{plans.STEPS['dark_decay'].suffix}.asdf"
    assert plan.exposure_before("a1", "linearity") == before, "WFI01 does not go through wfi18_transient"
    assert plan.calibrated_image("a1").endswith("/a1_flat.asdf") and plan.calibrated_image("a3").endswith("/a3_photom.asdf")


def test_what_other_jobs_read_lies_in_the_results_folder(make_plan):
    plan = make_plan(scratch="/node")
    assert plan.calibrated_image("a1") == "results/intermediates/a1_flat.asdf"
    assert plan.exposure_before("a1", "saturation") == "/node/a1_dqinit.asdf"
    assert plan.kept_steps() == {"ramp_fitting", "flatfield"}
    assert make_plan(keep_intermediates=True).kept_steps() == set(plans.STEPS)


def test_a_reference_that_does_not_apply_is_no_input_and_is_said(make_plan):
    plan = make_plan(references={"override": {"dark": "N/A"}})
    assert plan.references("a1", "dark_current") == []
    assert plan.references("a1", "flatfield") == ["links/flat.asdf"]
    assert plan.arguments("a1", "dark_current").startswith("--dark N/A")
    assert "--flat links/flat.asdf --chosen_by_crds flat" in plan.arguments("a1", "flatfield")


def test_a_member_is_aligned_with_the_catalog_that_is_given_for_it(make_plan):
    plan = make_plan()
    assert plan.catalogs_to_align("a") == [f"results/intermediates/{stem}_cat.parquet" for stem in ("a1", "a2")]
    (given,) = plan.catalogs_to_align("b")
    assert Path(given).read_text() == "a catalog" and given != "own.parquet"
    assert plan.given_catalogs("b") == [given] and plan.given_catalogs("a") == []
    assert plan.made_catalogs("b") == ["results/intermediates/b1_cat.parquet"] and plan.made_catalogs("a") == []
    assert plan.solution("a1") == "results/intermediates/a_tweakreg.asdf" and plan.solution("a3") == []


def test_the_alignment_is_required_of_exposures_that_have_one(make_plan):
    plan = make_plan(require_alignment=True)
    assert (plan.requirement("a1"), plan.requirement("a3"), make_plan().requirement("a1")) == ("--require_alignment", "", "")


def test_a_recipe_changes_with_what_a_step_is_made_from_alone(make_plan):
    plan, other = make_plan(), make_plan(steps={"refpix": {"remove_offset": False}, "tweakreg": {"abs_sigma": 2.5}})
    differing = {step for step in plan.exposures["a1"].chain if plan.recipe("a1", step) != other.recipe("a1", step)}
    assert differing == {"refpix", "tweakreg"}
    assert plan.recipe("a1", "dq_init") != plan.recipe("a2", "dq_init"), "another raw file"
    assert plan.recipe("a1", "tweakreg") == plan.recipe("a2", "tweakreg") == plan.association_recipe("a")


def test_parameters_of_crds_are_those_of_the_exposure_and_change_its_recipes(make_plan):
    def with_parameters(file="1", **values):
        plan = make_plan(steps={"tweakreg": {"minobj": 12}})
        sets = {name: (value, f"/c/roman_wfi_pars-{file}.asdf") for name, value in values.items()}
        plan.exposures["a1"] = entry("a1", step_parameters={"tweakreg": sets, "saturation": {"backup": (2, "/c/s.asdf")}})
        return plan

    plan, before = with_parameters(abs_sigma=2.5, margin=20.0), make_plan(steps={"tweakreg": {"minobj": 12}})
    assert "--backup 2" in plan.arguments("a1", "saturation") and "--parameters_from s.asdf:backup" in plan.arguments(
        "a1", "saturation"
    )
    assert "--backup 0" in plan.arguments("a2", "saturation") and "--parameters_from" not in plan.arguments("a2", "saturation")
    assert {step for step in plan.exposures["a1"].chain if plan.recipe("a1", step) != before.recipe("a1", step)} == {
        "saturation",
        "tweakreg",
    }
    # An association is aligned with the parameters of its first exposure.
    assert "--abs_sigma 2.5" in plan.alignment_parameters("a") and "--minobj 12" in plan.alignment_parameters("a")
    assert "--parameters_from roman_wfi_pars-1.asdf:abs_sigma" in plan.alignment_parameters("a")
    assert plan.alignment_parameters("a", ["a2"]) == before.alignment_parameters("a")
    assert "--margin 20.0" in plan.search_parameters("a") and "--margin 15.0" in plan.search_parameters("b")
    # Another file with the same values is another recipe, because the product names the file.
    assert with_parameters("2", abs_sigma=2.5).association_recipe("a") != with_parameters(abs_sigma=2.5).association_recipe("a")


def test_the_next_step_records_that_crds_leaves_out_steps(make_plan):
    plan = make_plan()
    skip = {"skip": (True, "/c/p.asdf")}
    chain = tuple(name for name in plan.exposures["a1"].chain if name not in ("photom", "flatfield"))
    plan.exposures["a1"] = entry(
        "a1", chain=chain, step_parameters={"photom": skip, "flatfield": skip, "refpix": {"skip": (False, "/c/r.asdf")}}
    )
    assert plan.parameters("a1", "source_catalog").endswith("--parameters_from p.asdf:flatfield.skip,photom.skip")
    assert all("--parameters_from" not in plan.parameters("a1", name) for name in chain if name != "source_catalog")


def test_settings_of_a_selection_are_recorded_and_change_the_recipes_of_its_exposures_alone(make_plan):
    def with_overrides(place):
        plan = make_plan(steps={"ramp_fitting": {"edge_size": 1}})
        values = {"ramp_fitting": {"edge_size": (2, place)}, "photom": {"skip": (True, place)}}
        chain = tuple(step for step in plan.exposures["a1"].chain if step != "photom")
        plan.exposures["a1"] = entry("a1", chain=chain, step_parameters=values, own_references={"flat": place})
        return plan

    plan, before = with_overrides("overrides[0]"), make_plan(steps={"ramp_fitting": {"edge_size": 1}})
    fit, flat = plan.arguments("a1", "ramp_fitting"), plan.arguments("a1", "flatfield")
    assert "--edge_size 2" in fit and fit.endswith("--parameters_from overrides:edge_size")
    assert flat.endswith("--parameters_from overrides:photom.skip")
    assert "--chosen_by_crds flat" in before.arguments("a1", "flatfield") and "--chosen_by_crds" not in flat
    differing = {step for step in plan.exposures["a1"].chain if plan.recipe("a1", step) != before.recipe("a1", step)}
    assert differing == {"ramp_fitting", "flatfield"}
    assert all(
        plan.recipe("a2", step) == before.recipe("a2", step) for step in before.exposures["a2"].chain if step != "tweakreg"
    )
    # Another place in the list is no reason to run again.
    moved = with_overrides("overrides[1]")
    assert all(plan.recipe("a1", step) == moved.recipe("a1", step) for step in plan.exposures["a1"].chain)


def test_a_segmentation_map_of_selected_exposures_is_read_by_its_content(make_plan, tmp_path):
    def settings(name):
        override = {"select": {"exposure": "a1"}, "steps": {"source_catalog": {"forced_segmentation": name}}}
        return plans.read_settings({"overrides": [override]}, DECLARED, tmp_path)

    plan = make_plan()
    link = settings("own.parquet")["overrides"][0]["steps"]["source_catalog"]["forced_segmentation"]
    assert link != "own.parquet" and Path(link).read_text() == "a catalog"
    with pytest.raises(RampflowError, match=r"overrides\[0\]\.steps\.source_catalog\.forced_segmentation: none does not exist"):
        settings("none")
    plan.exposures["a1"] = entry("a1", step_parameters={"source_catalog": {"forced_segmentation": (link, "overrides[0]")}})
    assert plan.forced_segmentation("a1") == [link] and plan.forced_segmentation("a2") == []
    assert f"--forced_segmentation {link}" in plan.arguments("a1", "source_catalog")


def test_contradicting_parameters_of_crds_are_refused_with_the_file(make_plan):
    plan = make_plan()
    plan.exposures["a1"] = entry("a1", step_parameters={"tweakreg": {"sigma": (2.0, "/c/p.asdf")}})

    def refuse(options):
        raise RampflowError(f"sigma {options['sigma']}")

    with pytest.raises(RampflowError, match=r"/c/p\.asdf: with the parameters of tweakreg for a: sigma 2\.0"):
        plan.check_alignments(refuse)


def test_a_cluster_job_has_a_folder_of_its_own_on_the_disk_of_its_node(tmp_path, monkeypatch):
    monkeypatch.setenv("NODE", str(tmp_path / "a disk"))
    settings = {"scratch": "$NODE", "results": "out"}
    assert plans.scratch_folder({"scratch": None}) is None
    assert plans.scratch_folder(settings) == "out/intermediates/scratch", "the main process never sees these files"
    monkeypatch.setenv(plans.EXPOSURES_VARIABLE, "x.json")
    folders = {Path(plans.scratch_folder(settings)) for _ in range(2)}
    assert len(folders) == 2 and {folder.parent for folder in folders} == {tmp_path / "a disk"}
    assert all(folder.is_dir() for folder in folders)


def test_options_are_those_of_the_inputs_that_a_job_has():
    files = {"refpix": ["a b", "c"], "transient": [], "stars": "s"}
    assert plans.given_options(files, ("refpix", "transient", "stars")) == "--refpix 'a b' c --stars s"
    assert plans.given_options(files, ("none",)) == ""


# ------------------------------------------------------------------------------------------------- an exposure as one job
def test_each_kind_of_chain_has_a_rule(make_plan):
    plan = make_plan()
    assert plan.chains(plan.exposures) == {
        "exposure_to_source_catalog": ["a1", "a2", "b1"],
        "exposure_to_photom": ["a3"],
    }
    longer = ("dq_init", "saturation", "wfi18_transient", "ramp_fitting", "photom", "source_catalog", "tweakreg")
    plan.exposures["b1"] = entry("b1", chain=longer)
    plan.exposures["a2"] = entry("a2", chain=tuple(step for step in longer if step != "wfi18_transient"))
    assert plan.chains(["b1", "a2"]) == {
        "exposure_to_source_catalog_with_wfi18_transient": ["b1"],
        "exposure_to_source_catalog": ["a2"],
    }
    assert plan.chains([]) == {}


def test_a_job_for_all_steps_writes_what_is_kept_and_the_last_image(make_plan):
    plan = make_plan()
    assert plan.written_steps("a1") == ["ramp_fitting", "flatfield"]
    assert plan.written_steps("a3") == ["ramp_fitting", "photom"]
    assert make_plan(keep_intermediates=False).written_steps("a1") == ["flatfield"]
    kept = make_plan(keep_intermediates=["refpix", "wfi18_transient", "flatfield"])
    assert kept.written_steps("a3") == ["refpix", "photom"]


def test_a_job_for_all_steps_has_their_command_lines(make_plan):
    plan = make_plan(steps={"saturation": {"n_pix_grow_sat": 2}})
    tasks = process_exposure.read_tasks(plan.step_lines("a1"))
    assert [task.name for task in tasks] == plan.steps_of_exposure("a1")
    files = ["links/a1_uncal.asdf"]
    for task in tasks:
        assert task.recipe == plan.recipe("a1", task.name)
        given = read_arguments(DECLARED[task.name], task.arguments)
        assert str(given["input"]) == files[-1]
        outputs = [str(given[name]) for name, _ in DECLARED[task.name].outputs]
        files += outputs if len(outputs) == 1 else []
        assert given.get("n_pix_grow_sat", 2) == 2
    assert files[1:3] == ["a1_dqinit.asdf", "a1_saturation.asdf"], "not written, so they are nowhere"
    assert files[-1] == "results/intermediates/a1_flat.asdf"
    assert outputs == ["results/intermediates/a1_cat.parquet", "results/intermediates/a1_segm.asdf"]


def test_finished_exposures_stay_with_the_rules_that_have_made_them(make_plan):
    plan = make_plan(job_per="exposure")
    assert rerun.exposures_in_one_job(plan) == ["a1", "a2", "a3", "b1"]
    assert rerun.exposures_in_one_job(make_plan()) == []
    for stem in ("a1", "a2"):
        path = Path(plan.calibrated_image(stem))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stem)
    rerun.remember_made(plan, 0, ["a2"])
    assert rerun.exposures_in_one_job(plan) == ["a2", "a3", "b1"]
    assert rerun.exposures_in_one_job(make_plan()) == ["a2"]
    other = {"steps": {"saturation": {"n_pix_grow_sat": 1}}}
    assert rerun.exposures_in_one_job(make_plan(job_per="exposure", **other)) == ["a1", "a2", "a3", "b1"], "made again"
    assert rerun.exposures_in_one_job(make_plan(**other)) == []
    Path(plan.calibrated_image("a2")).write_text("other")
    assert rerun.exposures_in_one_job(make_plan()) == []


# ------------------------------------------------------------------------------------------------------- the second pass
@pytest.mark.parametrize(
    ("stem", "step", "expected"),
    [
        ("a1", "dq_init", True),
        ("a1", "source_catalog", True),
        ("b1", "source_catalog", True),  # it is aligned with another catalog, which is compared with its own
        ("a1", "finalize", False),
        ("a3", "dq_init", False),  # it is not aligned
        ("a", "tweakreg", False),
        ("a1", "exposure", True),  # the job of all its steps
    ],
)
def test_which_failures_hold_back_an_alignment(make_plan, stem, step, expected):
    assert second_pass.holds_back_alignment(make_plan(), stem, step) == expected


def test_members_are_finished_when_all_that_have_not_failed_are_ready(make_plan):
    plan = make_plan()
    failed = [("a1", "refpix")]
    assert second_pass.exposures_to_finish(plan, failed) == [], "a2 has no image yet"
    for name in (plan.calibrated_image("a2"), plan.catalogs_to_align("a")[1]):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert second_pass.exposures_to_finish(plan, failed) == ["a2"]
    assert second_pass.exposures_to_finish(plan, [("a3", "refpix"), ("a", "tweakreg")]) == []
    assert second_pass.exposures_to_finish(plan, [*failed, ("a2", "finalize")]) == [], "nobody is left"
    # An exposure that is not aligned takes part, for the report, when it is finished.
    for name in plan.products("a3"):
        assert second_pass.exposures_to_finish(plan, failed) == ["a2"]
        Path(name).touch()
    assert second_pass.exposures_to_finish(plan, failed) == ["a2", "a3"]


def test_a_report_waits_for_exposures_that_are_not_aligned(make_plan):
    plan = make_plan()
    for name in (f(stem) for stem in ("a1", "a2") for f in (plan.calibrated_image, plan.catalog_to_align)):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    failed = [("a3", "refpix")]
    assert second_pass.exposures_to_finish(plan, failed) == []
    assert second_pass.exposures_to_finish(plan, failed, with_report=True) == ["a1", "a2"]
    done = [*failed, ("a1", "finalize")]
    assert second_pass.exposures_to_finish(plan, done, with_report=True) == [], "the alignment is done, with a1"


def test_a_report_tells_failed_exposures_from_excluded_ones(make_plan):
    plan = make_plan()
    plan.inventory.excluded["a"] = ["a1", "a2", "a3"]
    assert plan.missing_options("a", ["a2", "b1"]) == "--excluded a1 a3 --missing a2"
    assert plan.missing_options("a") == "--excluded a1 a2 a3" and plan.missing_options("b", ["a2"]) == ""


def test_a_later_report_says_what_it_repeats_and_how_to_avoid_it(make_plan):
    def write(*paths):
        for path in map(Path, paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    plan = make_plan()
    assert late_reports.repeated_steps(plan) == {}, "no products: the report is made together with them"
    write(*plan.products("a1"), plan.paths.exposure("a1", "ramp_fitting"), *plan.products("a3"))
    chain = plan.steps_of_exposure("a1")
    assert late_reports.repeated_steps(plan) == {"a1": chain, "a3": plan.steps_of_exposure("a3")}
    # Files of single steps that one job of all steps has not written repeat only what makes them.
    alone = late_reports.repeated_steps(plan, ["a1"])["a1"]
    assert alone == chain[: chain.index("linearity") + 1]
    said = late_reports.describe_repeated(plan, late_reports.repeated_steps(plan))
    assert "dq_init to source_catalog run again for 2 exposures" in said
    assert said.endswith("keep_intermediates='[saturation, refpix, linearity, ramp_fitting]'")
    # What is kept is not made again.
    write(plan.paths.exposure("a1", "saturation"), plan.paths.exposure("a1", "refpix"))
    assert late_reports.repeated_steps(plan)["a1"] == chain[chain.index("dark_decay") :]
    write(plan.paths.exposure("a1", "linearity"), plan.paths.between("a3", "ramp_pictures.json"))
    assert late_reports.repeated_steps(plan) == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [("--cores 2 report", True), ("results/a_report.html", True), ("--report all.html", False), ("--cores 2", False)],
)
def test_a_report_is_requested_by_its_target(words, expected):
    assert late_reports.is_requested(words.split()) is expected


def test_the_second_pass_repeats_the_command_without_what_failed(make_plan, monkeypatch, tmp_path):
    called = {}

    def start(command, **options):
        called.update(command=command, **options)
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(second_pass.subprocess, "Popen", start)
    monkeypatch.setenv(plans.EXPOSURES_VARIABLE, "x.json")
    second_pass.run_second_pass(make_plan(), ["a2"], ["--cores", "2", "-F", "--keep-going"])
    assert called["command"][1:] == ["-m", "snakemake", "--cores", "2", "--keep-going", "--forcerun", "--nolock"]
    assert called["cwd"] == tmp_path and plans.EXPOSURES_VARIABLE not in called["env"]
    monkeypatch.setenv(second_pass.LEFT_OUT_VARIABLE, called["env"][second_pass.LEFT_OUT_VARIABLE])
    assert second_pass.is_second_pass() and second_pass.left_out() == ["a1", "a3", "b1"]


@pytest.mark.parametrize("option", ["--directory run", "-d run", "--directory=run"])
def test_relative_paths_are_taken_from_where_snakemake_was_started(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    assert second_pass.start_folder(option.split(), {"PWD": "/"}) == Path("/")
    assert second_pass.start_folder(option.split(), {}) == tmp_path
    assert second_pass.start_folder(["--cores", "2"], {"PWD": os.sep}) == tmp_path


# ------------------------------------------------------------------------------------------------------ current products
@pytest.fixture
def finished(make_plan, monkeypatch):
    """A plan whose exposures all have current products, and the recipes that the log of each image has."""
    plan = make_plan(results="out")
    logged = {}
    for stem in plan.exposures:
        image = Path(plan.paths.product(stem, "cal.asdf"))
        logged[image] = rerun.exposure_recipes(plan, stem)[image]
        between = [plan.calibrated_image(stem), plan.paths.between(stem, "cat.parquet")]
        for age, path in enumerate([*plan.products(stem), *between]):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
            os.utime(path, (1000 + 10 * path.endswith("png") - age, 1000 + 10 * path.endswith("png") - age))
        os.utime(image, (1000, 1000))
    monkeypatch.setattr(recipes, "recipes_in", lambda path: logged[path])
    return plan, logged


def test_products_are_outdated_by_recipes_and_by_newer_files_that_they_are_made_of(finished):
    plan, logged = finished
    assert all(rerun.is_current(plan, stem) for stem in plan.exposures)
    image = Path(plan.paths.product("a1", "cal.asdf"))
    logged[image] = logged[image] | {"flatfield": "other"}
    assert not rerun.is_current(plan, "a1") and rerun.is_current(plan, "a2")
    # The exposures of an association are aligned together; those that are not aligned stand alone.
    os.utime(plan.paths.between("a1", "cat.parquet"), (1001, 1001))
    assert [stem for stem in plan.exposures if rerun.is_current(plan, stem)] == ["a3", "b1"]
    os.utime(plan.paths.product("b1", "cal.png"), (999, 999))
    Path(plan.paths.product("a3", "wcs.asdf")).unlink()
    assert [stem for stem in plan.exposures if rerun.is_current(plan, stem)] == []


def test_products_of_a_second_pass_are_current_though_the_next_run_aligns_all(finished):
    plan, logged = finished
    image = Path(plan.paths.product("a2", "cal.asdf"))
    logged[image] = logged[image] | {"tweakreg": plan.association_recipe("a", ["a2"])}
    os.utime(plan.paths.between("a1", "cat.parquet"), (1001, 1001))
    assert rerun.is_current(plan, "a2", ["a2"]) and not rerun.is_current(plan, "a2")
    assert rerun.is_current(plan, "b1", ["a2"])
