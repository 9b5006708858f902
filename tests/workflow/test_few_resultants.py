"""Exposures of one to three resultants, and ramps as input, through the whole workflow."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from simulator import simulate_references, simulate_sky
from small_files import SCRIPTS, arrays_of, opened, succeed
from snakemake_runs import Workflow, crds_environment

from rampflow import dq as flags
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf

pytestmark = pytest.mark.workflow

SIZE = 256
#: Detector, type of the exposure and read pattern by name.
EXPOSURES = {
    "image": ("WFI01", "WFI_IMAGE", "two"),
    "lost": ("WFI01", "WFI_IMAGE", "two"),
    "flat": ("WFI01", "WFI_FLAT", "three"),
    "masked": ("WFI18", "WFI_FLAT", "two"),
    "transient": ("WFI18", "WFI_FLAT", "three"),
    "one": ("WFI18", "WFI_FLAT", "one"),
}
GIVEN = "again"  #: the ramp of `flat`


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    """The processed exposures, each an association of its own; `one` is left out after its refusal."""
    folder = tmp_path_factory.mktemp("few")
    cache = folder / "crds_cache"
    simulate_references.make_cache(cache, ("WFI01", "WFI18"), SIZE, 1)
    sky = simulate_sky.make_sky(270, 66, 0.008, 150, 20, seed=3)
    sky.write(folder / "sky.ecsv")
    sky["ra", "dec", "mag"][sky["type"] == "star"].write(folder / "stars.ecsv")
    for name, (detector, kind, table) in EXPOSURES.items():
        light = ["--sky", folder / "sky.ecsv"] if kind == "WFI_IMAGE" else ["--gradient", "20", "200"]
        options = ["--detector", detector, "--exposure-type", kind, "--ma-table", table, "--cache", cache]
        quiet = ["--cosmic-ray-flux", "0", "--snowballs", "0"]
        command = [SCRIPTS / "simulator/simulate_exposure.py", folder / f"raw/{name}_uncal.asdf", *light, *options, *quiet]
        subprocess.run([sys.executable, *map(str, command)], check=True)
    lose_last_resultant(folder / "raw/lost_uncal.asdf")
    mask = cache / "references/roman/wfi/roman_wfi_mask_wfi01_0001.asdf"
    (folder / "ramps").mkdir()
    ramp = folder / f"ramps/{GIVEN}_dqinit.asdf"
    succeed("dq_init", folder / "raw/flat_uncal.asdf", ramp, "--mask", mask)
    workflow = Workflow(folder, cache)
    workflow.environment = crds_environment(cache)
    given = ["--config", f"input=[raw,ramps/{ramp.name}]", "astrometric_catalog=stars.ecsv", "keep_intermediates=true"]
    workflow.refused = workflow.snakemake("--keep-going", *given)
    workflow.done = workflow.snakemake("--keep-going", *given, "exclude=[one]")
    return workflow


def lose_last_resultant(path):
    """Replace the counts of the last resultant by a fill value."""
    with AsdfFile(path) as file:
        tree = file.tree
        tree["roman"]["data"] = tree["roman"]["data"].read()
        tree["roman"]["data"][-1] = 4242
        with create_asdf(path.with_suffix(".part"), tree):
            pass
    shutil.move(path.with_suffix(".part"), path)


def product(visit, name):
    return visit.folder / f"results/{name}_cal.asdf"


def test_one_resultant_is_refused_before_any_job(visit):
    assert visit.refused.returncode != 0
    assert "one_uncal.asdf: the ramp has 1 resultant; ramp_fitting needs at least 2" in visit.refused.stderr
    assert "'exclude=[one]'" in visit.refused.stderr


@pytest.mark.parametrize("name", ["image", "flat", "masked", "transient"])
def test_products_of_few_resultants_are_valid_and_say_that_no_jumps_were_searched_for(visit, name):
    assert visit.done.returncode == 0, visit.done.stderr
    with opened(product(visit, name)) as image:
        assert image.meta.cal_step.ramp_fit == "COMPLETE"
        assert ((image.dq & flags.UNRELIABLE_SLOPE) != 0).all() and not (image.dq & flags.JUMP_DET).any()
    resultants = 2 if EXPOSURES[name][2] == "two" else 3
    log = (visit.folder / f"logs/{name}/ramp_fitting.log").read_text()
    assert f"the ramp has {resultants} resultants, too few to search for jumps (4 are needed)" in log


@pytest.mark.parametrize("name", ["flat", "masked", "transient"])
def test_slopes_of_few_resultants_are_those_of_the_light(visit, name):
    image = arrays_of(visit.folder / f"results/intermediates/{name}_rampfit.asdf")
    with AsdfFile(visit.folder / f"raw/{name}_truth.asdf") as file:
        truth = file.tree["truth"]["count_rate"].read()
    good = (image["dq"] & ~np.uint32(flags.UNRELIABLE_SLOPE)) == 0
    pulls = (image["data"] - truth)[good] / image["err"].astype(float)[good]
    # refpix leaves 0.03 DN/s in common, and errors that follow the slope shift pulls by 0.03.
    assert abs(pulls.mean()) < 0.08
    assert pulls.std() == pytest.approx(1, abs=0.04)
    rows = np.isnan(image["data"]).mean(axis=1) == 1
    # With two resultants, the rows that the transient affects most have no slope: 1000 of 4096.
    masked = 1000 * SIZE // 4096 - 4 if name == "masked" else 0
    assert rows[:masked].all() and not rows[masked:].any()
    assert good.mean() > 0.9 * (1 - masked / len(rows))


def test_an_exposure_that_lost_one_of_two_resultants_has_products_and_is_failed(visit):
    with opened(product(visit, "lost")) as image:
        assert image.meta.cal_step.ramp_fit == "FAILED"
        assert ((image.dq & flags.DO_NOT_USE) != 0).all()
    assert "no pixel has a usable slope" in (visit.folder / "logs/lost/ramp_fitting.log").read_text()


@pytest.mark.parametrize("name", ["flat", "masked", "transient"])
def test_the_report_has_pictures_of_few_resultants(visit, name):
    kept = visit.folder / "results/intermediates"
    options = ["--ramp", kept / f"{name}_linearity.asdf", "--image", kept / f"{name}_rampfit.asdf"]
    if name != "flat":
        options += ["--transient", kept / f"{name}_dark_decay.asdf"]
    succeed("ramp_pictures", visit.folder / f"{name}.json", *options)
    shown = json.loads((visit.folder / f"{name}.json").read_text())["pictures"]
    assert len(shown) == 1  # the ramps: a transient is not measured with fewer than 4 resultants
    preview = product(visit, name).with_suffix(".png")
    succeed("image_pictures", visit.folder / f"{name}_image.json", "--image", product(visit, name), "--preview", preview)


def test_a_ramp_gives_the_products_of_its_raw_file(visit):
    ours, raw = arrays_of(product(visit, GIVEN)), arrays_of(product(visit, "flat"))
    assert ours.keys() == raw.keys()
    for name, values in raw.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)
