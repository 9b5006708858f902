"""The workflow writes the data model that is asked for, and a choice repeats the exposures that it concerns."""

import numpy as np
import pytest
import roman_datamodels
from demo_visit import FIRST
from products import arrays_of
from roman_datamodels import datamodels

from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.data_models import data_model
from rampflow.files.models import check_product
from rampflow.files.tags import DATA_MODELS, DEFAULT_DATA_MODEL, ROMAN_PREFIX
from rampflow.step.exposure import Exposure

pytestmark = pytest.mark.workflow

OTHER = next(version for version in DATA_MODELS if version != DEFAULT_DATA_MODEL)
KINDS = {"cal": "image", "wcs": "wcs", "segm": "segmentation_map"}
CLASSES = {"cal": datamodels.ImageModel, "wcs": datamodels.WfiWcsModel, "segm": datamodels.SegmentationMapModel}
#: What the alignment writes: the exposures of the visit are aligned together, and here one is alone.
ALIGNED = ("meta.wcs", "wcs_l1", "wcs_l2")


@pytest.fixture(scope="module")
def other(visit):
    """The first exposure of the visit, with the data model that is not the default; the results and the arguments."""
    options = [f"input=demo/{FIRST}_uncal.asdf", "results=other", "astrometric_catalog=demo/astrometric.ecsv"]
    arguments = ["--config", *options, "keep_intermediates=[dq_init, ramp_fitting]"]
    run = visit.snakemake(*arguments, f"data_model={OTHER}")
    assert run.returncode == 0, run.stdout + run.stderr
    return visit.folder / "other", arguments


@pytest.mark.parametrize("suffix", KINDS)
def test_products_of_both_data_models_are_valid(visit, other, suffix):
    for version, folder in ((DEFAULT_DATA_MODEL, visit.results), (OTHER, other[0])):
        path = folder / f"{FIRST}_{suffix}.asdf"
        tag = getattr(data_model(version), KINDS[suffix])
        with AsdfFile(path) as file:
            assert ROMAN_PREFIX + Exposure(file).tag == tag
        check_product(path, suffix)
        model_type = CLASSES[suffix]
        if tag <= model_type.create_minimal().tag:  # the installed packages know it: with `make test-next`, both
            with roman_datamodels.open(path) as model:
                assert isinstance(model, model_type)
                model.validate()


def test_the_data_models_differ_in_the_second_flags_alone(visit, other):
    for suffix in ("cal.asdf", "segm.asdf"):
        ours, expected = arrays_of(other[0] / f"{FIRST}_{suffix}"), arrays_of(visit.results / f"{FIRST}_{suffix}")
        added = {name for name in ours if name.endswith(".dq2")}
        assert ours.keys() - added == expected.keys() and len(added) == (suffix == "cal.asdf")
        for name, array in expected.items():
            if not name.endswith(ALIGNED):
                assert ours[name].tobytes() == array.tobytes(), name
        for name in added:
            dq2 = ours[name]
            assert dq2.dtype == np.uint32 and dq2.shape == expected[f"{FIRST}_{suffix}.dq"].shape and not dq2.any()


def test_another_data_model_processes_the_exposure_again(visit, other):
    _, arguments = other
    assert visit.jobs(*arguments, f"data_model={OTHER}") == {}
    jobs = visit.jobs(*arguments)
    assert jobs["dq_init"] == jobs["ramp_fitting"] == jobs["finalize"] == 1
