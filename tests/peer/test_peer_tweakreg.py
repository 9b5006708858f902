"""Compare tweakreg, configured as romancal, with romancal's step, on the same images, catalogs and stars."""

import os

import numpy as np
import pytest
from astropy.table import Table
from simulated_sky import MAS, SIZE, Sky

from rampflow.wcs.conversion import wcs_of_tree

tweakreg_step = pytest.importorskip("romancal.tweakreg.tweakreg_step")

pytestmark = pytest.mark.peer


@pytest.fixture
def sky(tmp_path, monkeypatch):
    """Two groups of two detectors, whose errors are common to a group."""
    monkeypatch.chdir(tmp_path)  # romancal writes beside where it runs
    monkeypatch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", "true")
    sky = Sky(tmp_path, radius=0.4)
    for group, dither, error in (("one", (0, 0), (0.3, -0.4)), ("two", (60, 40), (-0.5, 0.6))):
        for detector in ("WFI05", "WFI08"):
            sky.expose(f"{group}_{detector.lower()}", detector, group=group, dither=dither, error=error)
    return sky


def romancal(sky, **parameters):
    """Romancal's models after its step, by stem."""
    from roman_datamodels import datamodels
    from romancal.datamodels import ModelLibrary

    stars = Table({"RA": sky.catalog_stars[0], "DEC": sky.catalog_stars[1]})
    stars.write(sky.folder / "stars.ecsv", overwrite=True)
    models = []
    for image, catalog in zip(sky.images, sky.catalogs, strict=True):
        model = datamodels.open(image)
        model.meta["source_catalog"] = {"tweakreg_catalog_name": os.fspath(catalog)}
        models.append(model)
    aligned = tweakreg_step.TweakRegStep.call(ModelLibrary(models), abs_refcat="stars.ecsv", **parameters)
    with aligned:
        result = dict(zip((p.name.removesuffix("_flat.asdf") for p in sky.images), list(aligned), strict=True))
        for index, model in enumerate(result.values()):
            aligned.shelve(model, index, modify=False)
    return result


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"fitgeometry": "rshift", "abs_fitgeometry": "rscale", "nclip": 1, "sigma": 2.0, "abs_nclip": 0},
        {"enforce_user_order": True, "searchrad": 3.0, "separation": 2.0, "tolerance": 0.5, "abs_searchrad": 2.0},
    ],
)
def test_the_wcs_equals_that_of_romancal(sky, parameters):
    theirs = romancal(sky, **parameters)
    ours = sky.align(refine=False, catalog_name="stars.ecsv", **parameters)
    x, y = (grid.ravel() for grid in np.meshgrid(*2 * [np.linspace(0, SIZE - 1, 7)]))
    for stem, model in theirs.items():
        assert model.meta.cal_step.tweakreg == ours[stem]["status"] == "COMPLETE"
        wcs = wcs_of_tree(ours[stem]["wcs"])
        (ra, dec), (their_ra, their_dec) = wcs(x, y), model.meta.wcs(x, y)
        assert MAS * np.abs((ra - their_ra) * np.cos(np.radians(dec))).max() < 1e-3
        assert MAS * np.abs(dec - their_dec).max() < 1e-3
        assert wcs.name == model.meta.wcs.name
        results, their_results = ours[stem]["wcs_fit_results"], model.meta.wcs_fit_results
        assert set(results) == set(their_results)
        for key in ("status", "nmatches", "n_detector", "fitgeom", "proper"):
            assert results[key] == their_results[key], key
        for key in ("shift", "matrix", "center", "rmse", "mae", "<rot>", "<scale>", "rot", "scale", "skew", "proper_rot"):
            np.testing.assert_allclose(results[key], their_results[key], atol=1e-9, err_msg=key)


def test_too_few_matches_fail_in_both(sky):
    theirs, ours = romancal(sky, abs_minobj=100_000), sky.align(refine=False, abs_minobj=100_000)
    for stem, model in theirs.items():
        assert model.meta.cal_step.tweakreg == ours[stem]["status"] == "FAILED"
        assert model.meta.wcs_fit_results["status"] == ours[stem]["wcs_fit_results"]["status"]


@pytest.mark.parametrize("failed", [False, True])
def test_catalogs_are_updated_equally(sky, failed):
    import pyarrow.parquet as pq

    from rampflow.alignment.product import update_catalog

    parameters = {"abs_minobj": 100_000} if failed else {}
    solution = sky.align(refine=False, **parameters)["one_wfi05"]
    updated = update_catalog(pq.read_table(sky.catalogs[0]), solution)
    romancal(sky, update_source_catalog_coordinates=True, **parameters)
    theirs = pq.read_table(sky.catalogs[0])
    for name in theirs.column_names:
        np.testing.assert_allclose(updated[name].to_numpy(), theirs[name].to_numpy(), rtol=0, atol=1e-12, err_msg=name)
