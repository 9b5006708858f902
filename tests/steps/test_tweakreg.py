"""tweakreg: associations of a simulated sky compared with the truth, failures, every parameter, effects on the products."""

import contextlib
import copy
import datetime
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import asdf
import gwcs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tweakreg
from astropy import units as u
from astropy.coordinates import FK5, ICRS, Galactic
from astropy.modeling.models import Scale
from astropy.table import Table
from gwcs.coordinate_frames import CelestialFrame
from simulated_sky import DEC, MAS, RA, SIZE, Sky, time_entry
from small_files import SCRIPTS, meta_of, succeed, write_image
from spherical_geometry.polygon import SphericalPolygon

from rampflow import __version__
from rampflow.alignment import common_fit, outcomes
from rampflow.alignment.affine import TERMS, Affine, affine_of_terms, fit_affine, terms_of
from rampflow.alignment.evidence import RADII, count_pairs, poisson_tail
from rampflow.alignment.exposures import ARCSEC
from rampflow.alignment.product import apply_solution, read_solution, update_catalog
from rampflow.astrometry.region import unit_vectors
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import EmptyArray, create_asdf
from rampflow.files.yaml_tree import tagged
from rampflow.step.exposure import Exposure
from rampflow.wcs.conversion import tree_of_wcs, wcs_of_tree

sys.path.insert(0, str(Path(__file__).parents[1] / "validation"))


@pytest.fixture(scope="module")
def dithers(tmp_path_factory):
    """Two dithers with different pointing errors."""
    sky = Sky(tmp_path_factory.mktemp("dithers"))
    sky.expose("a", error=(0.3, -0.4))
    sky.expose("b", error=(-0.5, 0.6), dither=(40, 25))
    return sky


@pytest.fixture(scope="module")
def aligned(dithers):
    return dithers.align("aligned")


@pytest.fixture(scope="module")
def usual(dithers):
    return dithers.align("usual", refine=False)


# ----------------------------------------------------------------------------------------------------------------- truth
@pytest.mark.slow
def test_alignment_errors_are_at_the_limit_of_the_stars(usual, aligned):
    for stem in "ab":
        assert aligned.offset(stem) < 0.1
        assert aligned.scatter(stem) < 0.15
    assert max(usual.offset(stem) for stem in "ab") > max(aligned.offset(stem) for stem in "ab")


@pytest.mark.slow
def test_the_solution_has_all_entries_of_the_products(aligned):
    solution = aligned["a"]
    assert solution["status"] == "COMPLETE" and solution["s_region"].startswith("POLYGON ICRS  ")
    assert wcs_of_tree(solution["wcs"]).name == "FIT-LVL2-GAIADR3_S3"
    results = solution["wcs_fit_results"]
    assert set(results) == set(
        "<rot> <scale> center fitgeom mae matrix n_detector nmatches proper proper_rot rmse rot scale shift skew status".split()
    )
    assert results["status"] == "SUCCESS" and results["n_detector"] == 2 and results["fitgeom"] == "general"
    assert 40 < results["nmatches"] < 90 and 1e-4 < results["mae"] < results["rmse"] < 6e-4
    np.testing.assert_allclose(np.hypot(*results["shift"]), 0.5, atol=2e-3)  # the error of the pointing
    assert any("tweakreg" in line for line in solution["cal_logs"])


def test_the_solution_is_a_file_for_asdf(aligned):
    with asdf.open(aligned.path) as file:
        content = file["tweakreg"]
        assert list(content["exposures"]) == list(aligned.summary["exposures"])
        for stem, document in content["exposures"].items():
            with asdf.open(io.BytesIO(document.tobytes())) as solution:
                entry = solution["tweakreg"]
                assert isinstance(entry["wcs"], gwcs.WCS) and entry["status"] == "COMPLETE"
                here = wcs_of_tree(aligned[stem]["wcs"])
                np.testing.assert_array_equal(entry["wcs"](10.5, 20.5), here(10.5, 20.5))
                assert {key: entry[key] for key in tweakreg.UNKNOWN} == aligned.summary["exposures"][stem]
        assert content["parameters"]["refine"] is True and content["astrometric_catalog"]["status"] == "SUCCESS"


def test_a_solution_is_read_without_those_of_the_others(aligned, tmp_path):
    with AsdfFile(aligned.path) as file:
        assert len(file.text) < 200_000, "the solutions are in blocks, not in the tree"
    content = aligned.path.read_bytes()
    begins = [at for at in range(len(content)) if content.startswith(b"#ASDF 1", at)]  # of the whole file, of a and of b
    assert len(begins) == 3
    damaged = tmp_path / "damaged_tweakreg.asdf"
    damaged.write_bytes(content[: begins[2]] + bytes(1000) + content[begins[2] + 1000 :])
    for place in ("wcs_fit_results", "s_region", "cal_logs"):
        assert read_solution(damaged, "a")[place] == aligned["a"][place]
    with pytest.raises(RampflowError, match=re.escape(str(damaged))):
        read_solution(damaged, "b")
    assert aligned["b"]["status"] == "COMPLETE"


def test_a_solution_has_the_log_of_the_association_and_its_own(aligned):
    def messages(stem):
        return [line.split(" :: ", 3)[-1] for line in aligned[stem]["cal_logs"]]

    for stem, other in ("ab", "ba"):
        beginnings = {message.partition(": ")[0] for message in messages(stem)}
        assert {stem, "Parameters", "Astrometric catalog"} <= beginnings and other not in beginnings
    assert messages("a")[0] == messages("b")[0]


def test_the_summary_names_the_software(aligned):
    assert aligned.summary["calibration_software_name"] == "rampflow"
    assert aligned.summary["calibration_software_version"] == __version__


def test_the_summary_holds_status_matches_and_residuals(aligned):
    entry = aligned.summary["exposures"]["b"]
    assert entry["status"] == "COMPLETE" and entry["n_shared"] > 100
    assert entry["rmse_before_mas"] == pytest.approx(1000 * np.hypot(0.5, 0.6), rel=0.01)
    assert 0.1 < entry["rmse_after_mas"] < 0.6
    assert np.hypot(*entry["shift_mas"]) == pytest.approx(1000 * np.hypot(0.5, 0.6), rel=0.01)
    assert entry["scale"] == pytest.approx(1, abs=2e-6)
    # The error in right ascension turns north, too: by the sine of the declination.
    results = aligned["b"]["wcs_fit_results"]
    assert entry["rotation_deg"] == pytest.approx(results["<rot>"], abs=1e-9)
    assert abs(entry["rotation_deg"]) == pytest.approx(0.5 / 3600 * np.tan(np.radians(DEC)), rel=0.1)
    assert aligned.summary["parameters"]["refine"] is True and aligned.summary["astrometric_catalog"]["status"] == "SUCCESS"


def test_a_rotation_is_found(tmp_path):
    sky = Sky(tmp_path)
    sky.expose("a", error=(0.2, 0.2), roll_error=0.003)
    result = sky.align()
    assert result.offset("a") < 0.1
    assert abs(result.summary["exposures"]["a"]["rotation_deg"]) == pytest.approx(0.003, rel=0.1)


def test_alignment_works_at_the_pole(tmp_path):
    sky = Sky(tmp_path, dec=89.98)
    sky.expose("a", error=(0.1, 0.3))
    assert sky.align().offset("a") < 0.1


# ---------------------------------------------------------------------------------------------------------- associations
@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    """Two dithers of three detectors, each with an error of its own, and two that can't be aligned."""
    sky = Sky(tmp_path_factory.mktemp("mosaic"), radius=0.5, with_errors=True)
    errors = np.random.default_rng(3).uniform(-0.7, 0.7, (6, 2)).tolist()
    for group, dither in (("one", (0, 0)), ("two", (60, 40))):
        for detector in ("WFI02", "WFI05", "WFI08"):
            # A run without tweakreg, or without a catalog, leaves them SKIPPED: that is no reason not to align them now.
            status = "SKIPPED" if detector == "WFI05" else "INCOMPLETE"
            sky.expose(f"{group}_{detector}", detector, group=group, dither=dither, error=errors.pop(), status=status)
    sky.good = list(sky.truth)
    sky.expose("saturated", "WFI09", group="one", status="SKIPPED", ramp_fit="SKIPPED")
    sky.expose("empty", "WFI09", group="two", sources=0)
    sky.expose("bare", "WFI03", group="two", catalog=False)
    return sky


@pytest.mark.slow
def test_detectors_with_different_errors_are_aligned_separately(mosaic):
    bad = ["saturated", "empty", "bare"]
    without, result = mosaic.align("without", without=bad), mosaic.align("with")
    assert result.statuses() == dict.fromkeys(mosaic.good, "COMPLETE") | {
        "saturated": "SKIPPED",
        "empty": "FAILED",
        "bare": "SKIPPED",
    }
    for stem in mosaic.good:
        assert result.offset(stem) < 0.1
        np.testing.assert_allclose(result.error(stem), without.error(stem), atol=1e-6)
    assert "wcs_fit_results" not in result["bare"] and "wcs" not in result["saturated"]
    assert result["empty"]["wcs_fit_results"]["status"].startswith("FAILED")
    assert "empty: FAILED" in result.said and "bare: SKIPPED" in result.said


@pytest.mark.slow
@pytest.mark.parametrize(("sources", "offset"), [(0, 5.0), (1, 0.8), (4, 0.6), (12, 0.4)])
def test_a_detector_with_few_stars_is_aligned_with_its_exposure(tmp_path, sources, offset):
    sky = Sky(tmp_path, radius=0.5)
    for detector in ("WFI02", "WFI04", "WFI08"):
        sky.expose(detector, detector, group="one", error=(0.5, 0.3))
    sky.expose("few", "WFI05", group="one", error=(0.5, 0.3), sources=sources)
    result = sky.align()
    assert set(result.statuses().values()) == {"COMPLETE"}
    assert result.offset("few") < offset and result.scatter("few") < 2 * offset
    assert result["few"]["wcs_fit_results"]["nmatches"] <= sources


@pytest.mark.slow
def test_an_exposure_outside_the_catalog_is_aligned_to_its_neighbors(tmp_path):
    sky = Sky(tmp_path)
    sky.expose("on", error=(0.3, -0.4))
    sky.expose("beside", error=(-0.5, 0.6), dither=(0, 250))
    x, y = sky.truth["on"].to_pixel(*sky.catalog_stars)
    inside = (x > 0) & (x < SIZE) & (y > 0) & (y < SIZE)
    x, y = sky.truth["beside"].to_pixel(*sky.catalog_stars)
    shared = inside & (x > 0) & (x < SIZE) & (y > 0) & (y < SIZE)
    inside[np.flatnonzero(shared)[4:]] = False  # too few to align it to the catalog: less than half of abs_minobj
    sky.catalog = sky.write_catalog("part.parquet", dict(zip(("ra", "dec"), sky.catalog_stars[:, inside], strict=True)))
    result = sky.align()
    entry = result.summary["exposures"]["beside"]
    assert entry["n_matches"] <= 4 and entry["n_shared"] > 20
    assert result.offset("on") < 0.15 and result.offset("beside") < 1.0
    # What finds the stars that they share are the parameters without abs_.
    for name, value in (("minobj", 500), ("searchrad", 0.1), ("use2dhist", False), ("tolerance", 1e-4), ("separation", 300.0)):
        assert sky.align(name, **{name: value}).statuses()["beside"] == "FAILED", name


@pytest.mark.slow
def test_exposures_with_few_stars_are_aligned_together_and_then_separately(tmp_path):
    sky = Sky(tmp_path, radius=0.5, in_catalog=6)
    for group, dither, error in (("one", (0, 0), (0.3, -0.4)), ("two", (60, 40), (-0.5, 0.6))):
        for detector in ("WFI02", "WFI05", "WFI08"):
            sky.expose(f"{group}_{detector}", detector, group=group, dither=dither, error=error)
    result = sky.align()
    assert set(result.statuses().values()) == {"COMPLETE"}
    assert max(entry["n_matches"] for entry in result.summary["exposures"].values()) < 12
    for stem in sky.truth:
        assert result.offset(stem) < 0.5 and result.scatter(stem) < 1


@pytest.mark.slow
def test_an_exposure_without_enough_stars_fails_alone(tmp_path):
    sky = Sky(tmp_path)
    sky.expose("good", error=(0.3, -0.4))
    sky.expose("poor", error=(-0.5, 0.6), dither=(30, 30), sources=3)
    result = sky.align()
    assert result.statuses() == {"good": "COMPLETE", "poor": "FAILED"}
    assert result.offset("good") < 0.1
    assert result["poor"]["wcs_fit_results"] == {"status": "FAILED: not enough matches", "nmatches": 0, "n_detector": 2}
    assert sky.align("common", refine=False).statuses()["good"] == "COMPLETE"


@pytest.mark.slow
def test_an_exposure_without_enough_stars_is_aligned_as_one_with_its_neighbors_alone(tmp_path, monkeypatch):
    """tweakwcs compares all pairs of what it aligns as one."""
    sky = Sky(tmp_path)
    for number in range(4):
        sky.expose(f"good{number}", error=(0.3, -0.4), dither=(number * 30, 0))
    sky.expose("poor", dither=(70, 5), sources=3)
    aligned = []

    def fit(members, *arguments, **options):
        aligned.append([member.stem for member in members])
        return common_fit.fit_common_correction(members, *arguments, **options)

    monkeypatch.setattr(outcomes, "fit_common_correction", fit)
    monkeypatch.setattr(outcomes, "MOST_AS_ONE", 2)
    result = sky.align()
    assert aligned == [["good2", "good3", "poor"]]
    assert [stem for stem, status in result.statuses().items() if status == "FAILED"] == ["poor"]


def test_exposures_that_match_no_stars_are_tried_as_one_without_a_union_of_their_outlines(tmp_path, monkeypatch):
    """The union of the outlines of a dozen images takes tweakwcs 30 s, and serves no purpose here."""
    sky, unions = Sky(tmp_path, radius=0.5), []
    for number, dither in enumerate([(0, 0), (40, -30)]):
        for detector in ("WFI01", "WFI02", "WFI04"):
            sky.expose(f"{number}_{detector}", detector, dither=dither, group=f"pointing {number}")
    rng = np.random.default_rng(5)
    ra, dec = RA + rng.uniform(-1, 1, 2000), DEC + rng.uniform(-0.5, 0.5, 2000)
    sky.catalog = sky.write_catalog("other.parquet", {"ra": ra, "dec": dec})
    multi_union = SphericalPolygon.multi_union

    def counted(polygons, **options):
        unions.append(len(polygons))
        return multi_union(polygons, **options)

    monkeypatch.setattr(SphericalPolygon, "multi_union", counted)
    result = sky.align()
    assert_failed(result, *sky.truth)
    assert "Exposures with too few stars of their own: 6" in result.said
    assert max(unions, default=1) == 1


@pytest.mark.parametrize("refine", [True, False])
def test_without_an_astrometric_catalog_all_exposures_fail(dithers, refine):
    catalog = dithers.catalog
    try:
        dithers.catalog = dithers.write_catalog("failed.parquet", {}, "FAILED", "no answer in 1200 s")
        failed = dithers.align("failed", refine=refine)
        dithers.catalog = dithers.write_catalog("five.parquet", {k: np.full(5, v) for k, v in (("ra", RA), ("dec", DEC))})
        five = dithers.align("five", refine=refine)
    finally:
        dithers.catalog = catalog
    for result, reason in ((failed, "no answer in 1200 s"), (five, "abs_minobj is 10")):
        assert set(result.statuses().values()) == {"FAILED"}
        assert result["a"]["wcs_fit_results"] == {"status": "FAILED", "nmatches": 0, "n_detector": 2}
        assert reason in result.summary["exposures"]["a"]["reason"] and reason in result.said


def test_an_association_of_skipped_exposures_is_skipped(tmp_path):
    sky = Sky(tmp_path)
    sky.expose("a", catalog=False)
    assert sky.align().statuses() == {"a": "SKIPPED"}
    assert not {"wcs", "s_region", "wcs_fit_results"} & set(sky.align(save_abs_catalog=True)["a"])


# --------------------------------------------------------------------------------------------------------------- evidence
def assert_failed(result, *stems):
    """The exposures are FAILED in solution and summary, with numbers, and keep their WCS."""
    for stem in stems:
        solution, entry = result[stem], result.summary["exposures"][stem]
        assert solution["status"] == entry["status"] == "FAILED"
        assert not {"wcs", "s_region"} & solution.keys()
        assert solution["wcs_fit_results"]["status"].startswith("FAILED") and solution["wcs_fit_results"]["nmatches"] == 0
        assert entry["shift_mas"] is entry["rmse_after_mas"] is None and entry["n_matches"] == 0
        assert re.search(r"\d+ of \d+ sources matched|\d+ sources and \d+ stars", entry["reason"])
        assert f"{stem}: FAILED, {entry['reason']}" in result.said


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("density", [1e4, 1e5, 1e6, 3e6])
def test_unrelated_stars_give_no_alignment(dithers, density, refine):
    rng, side = np.random.default_rng(int(density)), 0.25
    ra, dec = RA + rng.uniform(-side, side, (2, int(density * 4 * side**2))) * [[1 / np.cos(np.radians(DEC))], [0]]
    catalog, dec = dithers.catalog, DEC + rng.uniform(-side, side, len(ra))
    try:
        dithers.catalog = dithers.write_catalog("others.parquet", {"ra": ra, "dec": dec})
        assert_failed(dithers.align("others", refine=refine), "a", "b")
    finally:
        dithers.catalog = catalog


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A crowded field, and a pointing error beyond the search."""
    sky = Sky(tmp_path_factory.mktemp("crowded"), density=2500, in_catalog=2000, radius=0.12)
    sky.expose("a", error=(20.0, 3.0))
    return sky


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
def test_a_pointing_error_beyond_the_search_fails_in_a_crowded_field(crowded, refine):
    lost = crowded.align("lost", refine=refine)
    assert_failed(lost, "a")
    assert "try a larger abs_searchrad" in lost.said
    found = crowded.align("found", refine=refine, abs_searchrad=25)
    assert found.offset("a") < 0.1 and found.summary["exposures"]["a"]["n_matches"] > 1500


@pytest.mark.parametrize("refine", [True, False])
def test_a_mirrored_catalog_gives_no_alignment(crowded, refine):
    catalog, (ra, dec) = crowded.catalog, crowded.catalog_stars
    try:
        crowded.catalog = crowded.write_catalog("mirrored.parquet", {"ra": 2 * RA - ra, "dec": dec})
        assert_failed(crowded.align("mirrored", refine=refine), "a")
    finally:
        crowded.catalog = catalog


@pytest.mark.slow
def test_a_wrong_roll_is_corrected_or_refused(tmp_path):
    sky = Sky(tmp_path, radius=0.12)
    sky.expose("a", roll_error=0.3)
    sky.expose("b", roll_error=3.0)
    result = sky.align()
    assert result.offset("a") < 0.1 and result.scatter("a") < 0.1
    assert_failed(result, "b")


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
def test_a_lost_detector_does_not_stay_complete_beside_its_group(tmp_path, refine):
    sky = Sky(tmp_path, radius=0.5)
    for detector, error in (("WFI02", 0.5), ("WFI04", 0.5), ("WFI08", 15.0)):
        sky.expose(detector, detector, group="one", error=(error, 0.3))
    without, result = sky.align("without", without=["WFI08"], refine=refine), sky.align(refine=refine)
    assert result.statuses() == {"WFI02": "COMPLETE", "WFI04": "COMPLETE", "WFI08": "FAILED"}
    assert_failed(result, "WFI08")
    for stem in ("WFI02", "WFI04"):
        np.testing.assert_allclose(result.error(stem), without.error(stem), atol=1e-6)


@pytest.mark.slow
def test_detectors_of_a_group_with_opposite_errors_are_aligned_with_a_warning(tmp_path):
    sky = Sky(tmp_path, radius=0.5)
    for detector, sign in (("WFI02", 1), ("WFI04", -1)):
        sky.expose(detector, detector, group="one", error=(2.5 * sign, 0.3 * sign))
    result = sky.align()
    assert max(result.offset(stem) for stem in sky.truth) < 0.1
    assert "WFI02, WFI04: no common pointing fits" in result.said
    # One correction can't serve both: the other is not called aligned.
    common = sky.align("common", refine=False)
    assert sorted(common.statuses().values()) == ["COMPLETE", "FAILED"]
    for stem, status in common.statuses().items():
        if status == "COMPLETE":
            assert common.offset(stem) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
def test_misaligned_exposures_of_one_field_do_not_confirm_each_other(tmp_path, refine):
    sky = Sky(tmp_path, density=2500, in_catalog=2000, radius=0.12)
    sky.expose("a", error=(20.0, 3.0))
    for copy_of_it in ("b", "c"):
        for suffix in ("_flat.asdf", "_cat.parquet"):
            (tmp_path / f"{copy_of_it}{suffix}").write_bytes((tmp_path / f"a{suffix}").read_bytes())
        sky.images.append(tmp_path / f"{copy_of_it}_flat.asdf")
        sky.catalogs.append(tmp_path / f"{copy_of_it}_cat.parquet")
    assert_failed(sky.align(refine=refine), "a", "b", "c")


@pytest.mark.slow
def test_one_shared_star_is_not_enough_for_an_alignment(tmp_path):
    sky = Sky(tmp_path, radius=0.3)
    sky.expose("good", error=(0.3, -0.4))
    sky.expose("other", error=(5.0, 2.0), dither=(0, 440))
    table = pq.read_table(sky.catalogs[1])
    # Of those that both see, one is left, where the pointing errors put it.
    ra, dec = wcs_of_tree(meta_of(sky.images[1])["wcs"])(table["x_psf"].to_numpy(), table["y_psf"].to_numpy())
    x, y = sky.truth["good"].to_pixel(ra, dec)
    shared = np.flatnonzero((x > -100) & (x < SIZE + 100) & (y > -100) & (y < SIZE + 100))
    kept = np.setdiff1d(np.arange(len(table)), shared[1:])
    pq.write_table(table.take(kept), sky.catalogs[1])
    ra, dec = sky.catalog_stars
    x, y = sky.truth["good"].to_pixel(ra, dec)
    inside = (x > 0) & (x < SIZE) & (y > 0) & (y < SIZE)
    sky.catalog = sky.write_catalog("part.parquet", {"ra": ra[inside], "dec": dec[inside]})
    result = sky.align()
    assert result.offset("good") < 0.1
    assert_failed(result, "other")


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_stars_listed_a_second_time_elsewhere_give_no_alignment(tmp_path, share, refine):
    """Two lists 3 arcsec apart; `share` is the part of the stars in the second one. Which list is right can't be known."""
    sky = Sky(tmp_path)
    sky.expose("a", error=(0.3, -0.4))
    sky.expose("b", error=(0.3, -0.4), dither=(30, 20))
    ra, dec = sky.catalog_stars
    second = np.random.default_rng(5).random(len(ra)) < share
    both = {"ra": np.append(ra, ra[second]), "dec": np.append(dec, dec[second] + 3 / 3600)}
    sky.catalog = sky.write_catalog("twice.parquet", both)
    result = sky.align(refine=refine)
    if share < 0.5:
        assert max(result.offset("a"), result.offset("b")) < 1
    else:
        assert_failed(result, "a", "b")
        assert "about as many do after another shift of" in result.said
        assert sky.align("near", refine=refine, abs_searchrad=1).offset("a") < 1


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
def test_exposures_do_not_confirm_each_other_without_a_star_that_fits(tmp_path, refine):
    """Positions rounded to 10⁻⁴ degrees: stars near the sources, none of which is left after clipping."""
    sky = Sky(tmp_path)
    for name, dither in (("a", (0, 0)), ("b", (30, 20)), ("c", (-20, 40))):
        sky.expose(name, error=(0.3, -0.4), dither=dither)
    ra, dec = sky.catalog_stars
    sky.catalog = sky.write_catalog("rounded.parquet", {"ra": np.round(ra, 4), "dec": np.round(dec, 4)})
    for entry in sky.align(refine=refine).summary["exposures"].values():
        assert entry["status"] == "FAILED" or entry["n_matches"] >= 5


def test_an_implausible_scale_gives_a_warning(tmp_path):
    sky = Sky(tmp_path)
    sky.expose("a", error=(0.3, -0.4))
    ra, dec = sky.catalog_stars
    assert "scale differs" not in sky.align("usual").said
    sky.catalog = sky.write_catalog("wide.parquet", {"ra": RA + 1.004 * (ra - RA), "dec": DEC + 1.004 * (dec - DEC)})
    result = sky.align("wide")
    assert "scale differs from that of the stars" in result.said
    assert "scale differs" in result.summary["exposures"]["a"]["reason"]


def test_a_fit_that_clips_all_stars_fails(dithers):
    assert_failed(dithers.align("clipped", without=["b"], abs_sigma=1e-3), "a")


@pytest.mark.parametrize("n_stars", [9, 10])
def test_a_star_that_is_clipped_counts_for_abs_minobj(tmp_path, n_stars):
    """Exactly abs_minobj (10) stars in common; one of them is 40 mas off, as of an unknown companion."""
    sky = Sky(tmp_path, density=60, in_catalog=50)
    sky.expose("a", error=(0.3, -0.4))
    ra, dec = (values[sky.detected[np.argsort(sky.mag[sky.detected])][:n_stars]] for values in sky.stars)
    dec = dec + np.r_[40, np.zeros(n_stars - 1)] / MAS
    ra, dec = np.append(ra, RA + np.array([-0.04, 0.03])), np.append(dec, DEC + np.array([0.01, -0.02]))  # not on the image
    sky.catalog = sky.write_catalog("ten.parquet", {"ra": ra, "dec": dec})
    result = sky.align()
    if n_stars < 10:
        assert_failed(result, "a")
        assert "9 of" in result.said
    else:
        entry = result.summary["exposures"]["a"]
        assert entry["status"] == "COMPLETE" and entry["n_matches"] == 9
        assert result.offset("a") < 0.5


def test_a_star_with_a_close_neighbor_counts_for_abs_minobj(tmp_path):
    """Exactly abs_minobj (10) stars in common; the matching leaves one out for a source 0.6 arcsec beside it."""
    sky = Sky(tmp_path, density=60, in_catalog=50)
    sky.expose("a", error=(0.3, -0.4))
    ra, dec = (values[sky.detected[:10]] for values in sky.stars)
    sky.catalog = sky.write_catalog("ten.parquet", {"ra": ra, "dec": dec})
    table = pq.read_table(sky.catalogs[0])
    neighbor = table.slice(0, 1).set_column(
        table.schema.get_field_index("x_psf"), "x_psf", [np.float32([table["x_psf"][0].as_py() + 5.5])]
    )
    pq.write_table(pa.concat_tables([table, neighbor.cast(table.schema)]), sky.catalogs[0])
    result = sky.align()
    assert result.summary["exposures"]["a"]["n_matches"] == 10 and result.offset("a") < 0.5


@pytest.mark.slow
def test_a_lost_exposure_does_not_spoil_the_common_correction(tmp_path):
    """One correction for all (refine: false): the exposures that it fits are aligned without the lost one."""
    sky = Sky(tmp_path, radius=0.3)
    sky.expose("lost", error=(0.3, -15.0), dither=(-30, 20))  # the first: the others are aligned to it
    sky.expose("a", error=(0.3, -0.4))
    sky.expose("b", error=(-0.5, 0.6), dither=(40, 25))
    result = sky.align(refine=False)
    assert result.statuses() == {"lost": "FAILED", "a": "COMPLETE", "b": "COMPLETE"}
    assert max(result.offset(stem) for stem in "ab") < 0.3
    assert result["a"]["wcs_fit_results"]["n_detector"] == 3
    assert_failed(result, "lost")
    assert "lost: not aligned to the stars; the common correction is fitted without" in result.said


@pytest.mark.slow
def test_an_exposure_that_the_common_correction_does_not_fit_is_reported(tmp_path):
    """Two exposures that share no star, with different pointing errors: one correction serves one of them."""
    sky = Sky(tmp_path, radius=0.4)
    sky.expose("a", error=(2.5, 0.3))
    sky.expose("b", error=(-2.5, -0.3), dither=(0, 900))
    result = sky.align(refine=False)
    failed = [stem for stem, status in result.statuses().items() if status == "FAILED"]
    assert failed
    for stem in failed:
        reason = result.summary["exposures"][stem]["reason"]
        assert "the correction common to all exposures (refine: false) doesn't fit it" in reason
        assert "refine: true aligns it" in reason
    assert max(sky.align("jointly").offset(stem) for stem in "ab") < 0.1


@pytest.mark.slow
def test_an_exposure_without_sources_takes_the_alignment_of_its_group(tmp_path):
    sky = Sky(tmp_path, radius=0.5)
    sky.expose("other", "WFI02", group="one", error=(0.5, 0.3))
    sky.expose("mate", "WFI05", group="one", error=(0.5, 0.3), sources=0)
    sky.expose("alone", "WFI05", group="two", error=(0.5, 0.3), sources=0)
    result = sky.align()
    assert result.statuses() == {"other": "COMPLETE", "mate": "COMPLETE", "alone": "FAILED"}
    assert result.summary["exposures"]["mate"]["reason"] == "no stars of its own: aligned as its exposure's other detectors"
    assert result["mate"]["wcs_fit_results"]["rmse"] is None  # 0 would read as perfect
    assert result.offset("mate") < 20  # one detector's rotation, carried to another
    assert sky.align("without", without=["other"]).statuses() == {"mate": "FAILED", "alone": "FAILED"}


@pytest.mark.slow
def test_every_exposure_has_every_key_in_the_summary(mosaic):
    result = mosaic.align("keys")
    keys = [tuple(entry) for entry in result.summary["exposures"].values()]
    assert set(keys) == {tuple(tweakreg.UNKNOWN)} and set(result.statuses().values()) == {"COMPLETE", "SKIPPED", "FAILED"}
    assert result.summary["exposures"]["bare"]["n_matches"] is None
    assert 0 < result.summary["exposures"][mosaic.good[0]]["n_by_chance"] < 0.1


def test_the_poisson_tail_agrees_with_scipy():
    from scipy.stats import poisson

    count, mean = (grid.ravel() for grid in np.meshgrid([1, 2, 5, 10, 40, 200], [1e-7, 1e-3, 0.3, 3.0, 30.0]))
    exact, bound = poisson.logsf(count - 1, mean) / np.log(10), poisson_tail(count, mean)
    assert (bound >= exact - 1e-9).all() and (bound <= 0).all()
    rare = (exact < -2) & np.isfinite(exact)
    np.testing.assert_allclose(bound[rare], exact[rare], atol=0.5)
    assert poisson_tail(0, 0.0) == 0


def test_the_number_of_pairs_is_recovered():
    rng = np.random.default_rng(8)
    side, n_sources, n_stars = 400 * ARCSEC, 1000, 20_000

    def directions(plane):
        return unit_vectors(*np.degrees(plane))

    sources = rng.uniform(-side / 2, side / 2, (2, n_sources))
    stars = rng.uniform(-side / 2, side / 2, (2, n_stars))
    chance = n_sources * n_stars / 400**2 * np.pi * RADII**2
    pairs = count_pairs(directions(sources), directions(stars))
    np.testing.assert_allclose(pairs.chance, chance, rtol=0.1)  # the edges have fewer
    assert abs(pairs.found[0] - chance[0]) < 4 * np.sqrt(chance[0]) + 0.2 * chance[0]
    assert not pairs.significant()
    stars[:, :60] = sources[:, :60] + rng.normal(0, 0.005, (2, 60)) * ARCSEC
    true = count_pairs(directions(sources), directions(stars))
    assert 50 <= true.found[2] <= 62 and true.false_alarm(1e12) < -30
    # A double star that is seen as two is one coincidence.
    double = [np.repeat(p[:, :50], 2, axis=1) + np.tile([0, 0.2 * ARCSEC], 50) * [[1], [0]] for p in (sources, sources)]
    assert list(count_pairs(*(directions(p) for p in double)).found) == [50, 50, 50]
    none = count_pairs(directions(sources), np.empty((0, 3)))
    assert list(none.found) == [0, 0, 0] and none.false_alarm() == 0


@pytest.mark.slow
def test_trials_of_false_alarms_are_summarized():
    import false_alarms

    false = [false_alarms.false_trial(seed) for seed in range(100, 122)]
    assert {t["kind"] for t in false} == set(false_alarms.KINDS) and not any(t["accepted"] for t in false)
    good = [false_alarms.good_trial(seed) for seed in range(100, 110)]
    assert all(t["accepted"] and t["n_matches"] > 0.5 * t["matched"] for t in good)
    summary = false_alarms.summarize(false, good)
    assert not summary["refused"] and "| doubles | 4 | 0 |" in false_alarms.table(summary)


# -------------------------------------------------------------------------------------------------------- aligned already
@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """Images as a finished run leaves them, aligned by the corrections that one run found, and that run's result."""
    sky = Sky(tmp_path_factory.mktemp("calibrated"))
    sky.expose("a", error=(0.3, -0.4), roll_error=0.002)
    sky.expose("b", error=(-1.5, 2.6), roll_error=-0.003, dither=(40, 25))
    first = sky.align("first")
    for index in range(len(sky.images)):
        write_aligned(sky, index, first)
    return sky, first


def write_aligned(sky, index, result):
    """Put the image and catalog that a finished run would leave in the place of those before the alignment."""
    stem = tweakreg.stem_of_image(sky.images[index])
    with AsdfFile(sky.images[index]) as file:
        apply_solution(file.tree["roman"]["meta"], result[stem])
        sky.images[index] = sky.folder / f"{stem}_cal.asdf"
        with create_asdf(sky.images[index], file.tree):
            pass
    table = update_catalog(pq.read_table(sky.catalogs[index]), result[stem])
    pq.write_table(table, sky.catalogs[index])


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
def test_aligning_aligned_images_changes_nothing(calibrated, refine):
    sky, first = calibrated
    again = sky.align("again", refine=refine)
    for stem in "ab":
        if refine:
            assert np.abs(again.error(stem) - first.error(stem)).max() < 0.001
            assert np.hypot(*again.summary["exposures"][stem]["shift_mas"]) < 0.001
        assert again.scatter(stem) < (0.1 if refine else 0.5)
        assert again.summary["exposures"][stem]["rmse_after_mas"] == pytest.approx(
            first.summary["exposures"][stem]["rmse_after_mas"], rel=1e-3 if refine else 0.3
        )


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.slow
def test_detectors_of_an_exposure_agree_if_some_of_them_are_aligned_already(tmp_path, number):
    """The pointing error is still in the WCS of the others. The last one has no stars and follows the rest."""
    sky = Sky(tmp_path, radius=0.5)
    for detector, sources in (("WFI02", None), ("WFI04", None), ("WFI08", None), ("WFI05", 0)):
        sky.expose(detector, detector, group="one", error=(0.5, 0.3), sources=sources)
    first = sky.align("first")
    for index in range(number):
        write_aligned(sky, index, first)
    result = sky.align("mixed")
    assert set(result.statuses().values()) == {"COMPLETE"} and "no common pointing" not in result.said
    for stem in sky.truth:
        assert np.abs(result.error(stem) - first.error(stem)).max() < 0.1
    assert "aligned as its exposure's other detectors" in result.summary["exposures"]["WFI05"]["reason"]


@pytest.mark.slow
def test_aligned_images_follow_another_catalog(calibrated):
    sky, _ = calibrated
    catalog, (ra, dec) = sky.catalog, sky.catalog_stars
    try:
        sky.catalog = sky.write_catalog("release.parquet", {"ra": ra, "dec": dec + 250 / MAS})
        result = sky.align("release", catalog_name="release.parquet")
    finally:
        sky.catalog = catalog
    for stem in "ab":
        np.testing.assert_allclose(result.error(stem), [[0, 250]] * 81, atol=0.25)
        np.testing.assert_allclose(np.median(result.error(stem), axis=0), [0, 250], atol=0.1)
        wcs = wcs_of_tree(result[stem]["wcs"])
        assert wcs.name == "FIT-LVL2-release.parquet"
        assert wcs.available_frames == ["detector", "v2v3", "v2v3vacorr", "v2v3corr", "world"]
        assert wcs.bounding_box is not None
        # What others read of it is the same to and from the sky.
        x, y = wcs.invert(*wcs(1000.0, 3000.0))
        np.testing.assert_allclose([x, y], [1000, 3000], atol=0.01)


@pytest.mark.slow
def test_the_tangent_plane_of_an_aligned_exposure_is_a_rotation(calibrated):
    from rampflow.alignment.exposures import SourcePositions, read_exposure
    from rampflow.step.exposure import Exposure

    sky, _ = calibrated
    x, y = (grid.ravel() for grid in np.meshgrid(*2 * [np.linspace(1, SIZE - 2, 5)]))
    with AsdfFile(sky.images[1]) as file:
        member = read_exposure("b", Exposure(file), SourcePositions(x, y, np.full(x.shape, 0.01)))
    expected = unit_vectors(*member.wcs(x, y))
    np.testing.assert_allclose(member.to_sky(member.plane), expected, rtol=0, atol=1e-4 * ARCSEC / 1000 + 5e-16)
    np.testing.assert_allclose(member.to_plane(expected), member.plane, rtol=0, atol=1e-7)


# ------------------------------------------------------------------------------------------------------------- parameters
@pytest.mark.slow
@pytest.mark.parametrize(
    "parameters",
    [
        {"abs_searchrad": 0.2, "abs_tolerance": 0.05},
        {"abs_minobj": 95},
        {"abs_separation": 200.0},
        {"abs_use2dhist": False, "abs_tolerance": 0.3},
        {"abs_tolerance": 1e-5},
    ],
)
@pytest.mark.parametrize("refine", [True, False])
def test_without_matches_the_alignment_fails(dithers, parameters, refine):
    result = dithers.align("nothing", without=["b"], refine=refine, **parameters)
    assert result.statuses() == {"a": "FAILED"}


@pytest.mark.parametrize("refine", [True, False])
def test_a_threshold_beyond_all_residuals_clips_nothing(dithers, refine):
    assert dithers.align("unclipped", without=["b"], refine=refine, abs_sigma=1e300).offset("a") < 0.5


def test_a_small_tolerance_with_a_search_is_enough(dithers):
    assert dithers.align("small", abs_tolerance=0.05).offset("a") < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("geometry", list(TERMS))
def test_the_fit_geometry_selects_the_terms(dithers, geometry, refine):
    result = dithers.align(geometry, without=["b"], abs_fitgeometry=geometry, refine=refine)
    results = result["a"]["wcs_fit_results"]
    (a, b), (c, d) = results["matrix"]
    assert results["fitgeom"] == geometry
    terms = {"rotation": abs(b - c), "scale": abs(a * d - b * c - 1), "shear": np.hypot(a - d, b + c)}
    there = {"shift": (), "rshift": ("rotation",), "rscale": ("rotation", "scale"), "general": tuple(terms)}[geometry]
    for name, value in terms.items():
        assert (value > 1e-9) == (name in there), name
    # Without a rotation, that which the error in right ascension makes near the pole stays.
    assert (result.scatter("a") > 0.3) == (geometry == "shift")


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
def test_stars_that_fit_badly_are_left_out(dithers, refine):
    catalog, stars = dithers.catalog, dithers.catalog_stars.copy()
    stars[1, ::12] += 20 / MAS
    try:
        dithers.catalog = dithers.write_catalog("wrong.parquet", {"ra": stars[0], "dec": stars[1]})
        runs = {
            (nclip, sigma): dithers.align(
                f"wrong_{nclip}_{sigma}", without=["b"], refine=refine, abs_nclip=nclip, abs_sigma=sigma
            )
            for nclip, sigma in ((0, 3.0), (3, 3.0), (3, 100.0))
        }
    finally:
        dithers.catalog = catalog
    assert runs[3, 3.0].offset("a") < 0.15
    assert runs[0, 3.0].offset("a") > 1
    np.testing.assert_allclose(runs[3, 100.0].error("a"), runs[0, 3.0].error("a"), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parameters",
    [
        {"minobj": 500},
        {"searchrad": 0.2, "tolerance": 0.05},
        {"use2dhist": False},
        {"tolerance": 1e-5},
        {"separation": 300.0},
        {"fitgeometry": "shift"},
        {"sigma": 0.7},
        {"sigma": 0.7, "nclip": 1},
    ],
)
def test_relative_alignment_parameters_apply_without_refine(dithers, usual, parameters):
    other = dithers.align("other", refine=False, **parameters)
    assert usual.scatter("b") < 1
    if parameters.keys() & {"fitgeometry", "sigma"}:
        assert 0.01 < max(np.abs(other.error(stem) - usual.error(stem)).max() for stem in "ab") < 10
    else:
        assert "FAILED" in other.statuses().values()  # not aligned to each other: one correction can't serve both
    if "nclip" in parameters:
        assert np.abs(dithers.align("third", refine=False, sigma=0.7).error("b") - other.error("b")).max() > 1e-3


@pytest.mark.slow
def test_expand_refcat_reaches_exposures_beyond_the_first(tmp_path):
    sky = Sky(tmp_path, radius=0.3)
    sky.expose("first", error=(0.3, -0.4), dither=(0, -330))
    sky.expose("last", error=(-0.4, 0.4), dither=(0, 330))
    sky.expose("middle", error=(-0.4, 0.3))
    reached = {
        name: sky.align(name, refine=False, **parameters).statuses()["last"] == "COMPLETE"
        for name, parameters in {
            "fixed": {},
            "growing": {"expand_refcat": True},
            "in_order": {"expand_refcat": True, "enforce_user_order": True},
            "other_catalog": {"catalog_name": "MINE"},
        }.items()
    }
    assert reached == {"fixed": False, "growing": True, "in_order": False, "other_catalog": True}


def test_the_matched_stars_are_saved(dithers):
    dithers.align("saved", save_abs_catalog=True, catalog_name="sub/Mine.parquet")
    table = Table.read(dithers.folder / "saved_fit_mine.parquet_ref.ecsv")
    assert 60 < len(table) < 140 and set(table["n_exposures"]) == {1, 2}
    assert np.isin(np.array(table["ra"]), dithers.catalog_stars[0]).all()


def refusal(output, summary, *arguments):
    """The error message of a step that must fail and leave no file."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert tweakreg.main([str(a) for a in (output, summary, *arguments)]) == 1
    assert not output.exists() and not summary.exists()
    return said.getvalue()


def test_contradictory_parameters_and_broken_inputs_are_refused(dithers):
    folder = dithers.folder / "refused"
    folder.mkdir()
    output, common = folder / "r_tweakreg.asdf", ["--astrometric_catalog", dithers.catalog]
    a, b = dithers.images
    cat = dithers.catalogs[0]

    def said(*arguments):
        return refusal(output, folder / "r.json", *arguments)

    assert "separation" in said("--images", a, "--catalogs", cat, *common, "--separation", 0.98)
    assert "abs_tolerance" in said("--images", a, "--catalogs", cat, *common, "--abs_tolerance", 0.8)
    assert "2 images and 1 catalogs" in said("--images", a, b, "--catalogs", cat, *common)
    assert "twice" in said("--images", a, a, "--catalogs", cat, cat, *common)
    assert "astrometric_catalog.py" in said("--images", a, "--catalogs", cat, "--astrometric_catalog", cat)


def test_an_image_without_a_wcs_is_refused(tmp_path):
    sky = Sky(tmp_path)
    sky.expose("a")
    write_image(sky.images[0], np.zeros((8, 8)), {"observation.observation_id": "1"})
    arguments = ["--images", sky.images[0], "--catalogs", sky.catalogs[0], "--astrometric_catalog", sky.catalog]
    assert "run assign_wcs" in refusal(tmp_path / "o_tweakreg.asdf", tmp_path / "o.json", *arguments)


def without_frames(wcs):
    """The same positions in one step, as a WCS of FITS keywords has them."""
    changed = gwcs.WCS([(wcs.pipeline[0].frame, wcs.forward_transform), (wcs.output_frame, None)])
    changed.bounding_box = wcs.bounding_box
    return changed


def without_box(wcs):
    wcs.bounding_box = None
    return wcs


def with_frame(reference_frame, **options):
    """A change of the frame of the sky; the positions stay the same numbers."""

    def change(wcs):
        frame = CelestialFrame(name="world", reference_frame=reference_frame, **options)
        changed = gwcs.WCS([*((step.frame, step.transform) for step in wcs.pipeline[:-1]), (frame, None)])
        changed.bounding_box = wcs.bounding_box
        return changed

    return change


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_frames, "fewer than 3 frames .*with the frames detector, v2v3"),
        (without_box, "no bounding box"),
        (with_frame(Galactic()), r"the frame world of its WCS \(meta.wcs\) is galactic; it must be ICRS"),
        (with_frame(FK5(equinox="J2050")), "is fk5; it must be ICRS"),
        (with_frame(ICRS(), unit=(u.rad, u.rad)), "has the units rad, rad; it must be ICRS"),
        (with_frame(ICRS(), axes_order=(1, 0)), "has dec before ra"),
    ],
)
def test_a_wcs_that_can_not_be_aligned_fails_alone(tmp_path, change, says):
    """Calibrated images may have any WCS."""
    sky = Sky(tmp_path)
    sky.expose("good", error=(0.3, -0.4))
    with AsdfFile(sky.images[-1]) as file:
        tree = tree_of_wcs(change(wcs_of_tree(Exposure(file).meta["wcs"])))
    sky.expose("other", error=(0.3, -0.4), dither=(5, 5), group="other", header={"wcs": tree})
    result = sky.align()
    assert result.statuses() == {"good": "COMPLETE", "other": "FAILED"}
    assert result.offset("good") < 0.1
    assert re.search(says, result.summary["exposures"]["other"]["reason"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tree: tagged(tree, f"{tree.tag}9"), "which the installed gwcs doesn't read"),
        (lambda tree: tagged({**tree, "steps": tree["steps"][:1]}, tree.tag), "its WCS"),
        (lambda tree: tagged({"name": "", "steps": []}, tree.tag), "its WCS"),
        (lambda tree: {"steps": 5}, "a mapping without a tag"),
    ],
    ids=range(4),
)
def test_a_wcs_that_can_not_be_read_fails_alone(tmp_path, change, says):
    """One of a newer gwcs, or a damaged one."""
    sky = Sky(tmp_path)
    sky.expose("good", error=(0.3, -0.4))
    with AsdfFile(sky.images[-1]) as file:
        tree = change(Exposure(file).meta["wcs"])
    sky.expose("other", error=(0.3, -0.4), dither=(5, 5), group="other", header={"wcs": tree})
    result = sky.align()
    assert result.statuses() == {"good": "COMPLETE", "other": "FAILED"}
    assert says in result.summary["exposures"]["other"]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("end", [np.inf, 1e7])
def test_an_impossible_bounding_box_is_that_of_the_image(tmp_path, end):
    sky = Sky(tmp_path)
    path = sky.expose("a", error=(0.3, -0.4))
    with AsdfFile(path) as file:
        meta = Exposure(file).meta
        wcs = wcs_of_tree(meta["wcs"])
        wcs.bounding_box = ((-end, end), (-end, end))
        roman = tagged(
            {"meta": meta | {"wcs": tree_of_wcs(wcs)}, "data": EmptyArray((SIZE, SIZE), np.float32)}, file.tree["roman"].tag
        )
    with create_asdf(path, {"roman": roman}):
        pass
    result = sky.align()
    assert result.statuses() == {"a": "COMPLETE"} and result.offset("a") < 0.1
    assert "a_flat.asdf: the bounding box of its WCS (meta.wcs) is ((" in result.said
    assert wcs_of_tree(result["a"]["wcs"]).bounding_box.bounding_box(order="F") == ((-0.5, SIZE - 0.5), (-0.5, SIZE - 0.5))


@pytest.mark.slow
def test_a_wcs_whose_v2v3_is_not_in_arcsec_fails_alone(tmp_path):
    """Its matches would be looked for in a plane of another scale, and not be found."""
    sky = Sky(tmp_path)
    sky.expose("good", error=(0.3, -0.4))
    sky.expose("degrees", error=(0.3, -0.4), dither=(5, 5))
    with asdf.open(sky.images[-1]) as file:
        wcs = file["roman"]["meta"]["wcs"]
    steps = [(step.frame, step.transform) for step in wcs.pipeline]
    number = [frame.name for frame, _ in steps].index("v2v3vacorr")
    to_degrees = Scale(1 / 3600) & Scale(1 / 3600)
    steps[number - 1] = steps[number - 1][0], steps[number - 1][1] | to_degrees
    steps[number] = steps[number][0], to_degrees.inverse | steps[number][1]
    changed = gwcs.WCS(steps)
    changed.bounding_box = wcs.bounding_box
    np.testing.assert_allclose(changed(10, 20), wcs(10, 20), rtol=1e-12)
    with AsdfFile(sky.images[-1]) as file:
        meta = {"wcs": tree_of_wcs(changed)} | {
            f"{part}.{name}": value for part in ("wcsinfo", "cal_step") for name, value in Exposure(file).meta[part].items()
        }
    meta |= {"observation.observation_id": "degrees", "instrument.detector": "WFI07"}
    write_image(sky.images[-1], np.zeros((8, 8)), meta)
    result = sky.align()
    assert result.statuses() == {"good": "COMPLETE", "degrees": "FAILED"}
    assert result.offset("good") < 0.1
    reason = result.summary["exposures"]["degrees"]["reason"]
    assert "its WCS (meta.wcs) contradicts itself" in reason and "must be in arcsec" in reason
    assert result["degrees"]["wcs_fit_results"]["status"] == "FAILED"


def test_no_pixel_is_read(tmp_path):
    sky = Sky(tmp_path)
    sky.expose("a")
    with AsdfFile(sky.images[0]) as file:
        file.tree["roman"]["data"] = EmptyArray((20_000, 20_000), np.float32)  # 1.6 GB that take no place on the disk
        with create_asdf(sky.images[0], file.tree):
            pass
    arguments = [tmp_path / "o_tweakreg.asdf", tmp_path / "o.json", "--images", sky.images[0], "--catalogs", sky.catalogs[0]]
    # The kernel's own count of the program's memory: the one of its parent includes what that had when it started it.
    program = "import sys, tweakreg; tweakreg.main(sys.argv[1:]); print(open('/proc/self/status').read())"
    command = [sys.executable, "-c", program, *arguments, "--astrometric_catalog", sky.catalog]
    run = subprocess.run(
        [os.fspath(a) for a in command], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SCRIPTS)}
    )
    assert read_solution(arguments[0], "a")["status"] == "COMPLETE", run.stderr
    assert int(re.search(r"VmHWM:\s*(\d+) kB", run.stdout)[1]) < 400_000


def test_tweakreg_runs_as_a_program(dithers, aligned):
    output, summary = dithers.folder / "program_tweakreg.asdf", dithers.folder / "program.json"
    arguments = ["--images", *dithers.images, "--catalogs", *dithers.catalogs, "--astrometric_catalog", dithers.catalog]
    succeed("tweakreg", output, summary, *arguments)
    assert read_solution(output, "a")["wcs_fit_results"] == aligned["a"]["wcs_fit_results"]
    assert json.loads(summary.read_text())["exposures"] == aligned.summary["exposures"]


# --------------------------------------------------------------------------------------------------------------- catalogs
def test_flagged_sources_and_those_outside_the_image_are_left_out(dithers, aligned):
    path = dithers.catalogs[0]
    original = pq.read_table(path)
    n_sources = aligned.summary["exposures"]["a"]["n_sources"]
    try:
        flags = np.zeros(len(original), np.int32)
        flags[:10], flags[10:20] = 1, 4  # DO_NOT_USE, JUMP_DET
        x = original["x_psf"].to_numpy().copy()
        x[20:23], x[23:25] = SIZE + 1, np.nan
        table = original.set_column(7, "warning_flags", pa.array(flags)).set_column(3, "x_psf", pa.array(x))
        pq.write_table(table, path)
        result = dithers.align("flagged")
    finally:
        pq.write_table(original, path)
    assert result.summary["exposures"]["a"]["n_sources"] == n_sources - 15
    assert result.offset("a") < 0.15


def custom_table(sky, names=("x", "y"), rows=None):
    """The sources of the first exposure under other names."""
    table = pq.read_table(sky.catalogs[0])
    return Table({name: table[f"{axis}_psf"].to_numpy()[:rows] for name, axis in zip(names, "xy", strict=True)})


def align_with(sky, catalog):
    """Align two exposures, the first with another catalog."""
    usual, sky.catalogs[0] = sky.catalogs[0], catalog
    try:
        return sky.align("custom")
    finally:
        sky.catalogs[0] = usual


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("x", "y"), ("x", "y_psf"), ("x_psf", "y"), ("x_psf", "y_psf"), ("x_centroid", "y_centroid")]
)
@pytest.mark.parametrize("name", ["custom.ecsv", "custom.parquet", "custom_cat", "custom.txt", "custom.csv", "custom.fits"])
def test_a_custom_catalog_has_x_and_y(dithers, aligned, name, names):
    path = dithers.folder / name
    kind = None if path.suffix in (".csv", ".fits", ".parquet") else "ascii.ecsv"
    custom_table(dithers, names).write(path, overwrite=True, format=kind)
    result = align_with(dithers, path)
    assert result.offset("a") < 0.1
    assert result.summary["exposures"]["a"]["catalog"] == result["a"]["catalog"] == name
    assert f"a: {result.summary['exposures']['a']['n_sources']} of" in result.said
    assert f"sources from {path} ({', '.join(names)})" in result.said


def test_a_catalog_that_was_not_compared_gives_a_warning(dithers):
    path = dithers.folder / "unknown.ecsv"
    custom_table(dithers).write(path, overwrite=True)
    result = align_with(dithers, path)
    assert result.offset("a") < 0.1
    assert result.summary["exposures"]["a"]["reason"] == "unknown.ecsv has no metadata that name its exposure"
    assert re.search(r"WARNING.*a: unknown\.ecsv has no metadata that name its exposure, and there", result.said)


@pytest.mark.slow
def test_custom_catalogs_are_compared_with_the_sources_of_the_image(dithers):
    """Without metadata: swapped, counted from (1, 1), of one source in five, and right in another order."""
    own, paths = list(dithers.catalogs), [dithers.folder / f"plain_{stem}.csv" for stem in "ab"]
    tables = [Table(pq.read_table(catalog, columns=["x_psf", "y_psf"]).to_pydict()) for catalog in own]
    for path, table in zip(paths, tables, strict=True):
        Table({"x": table["x_psf"], "y": table["y_psf"]})[::-1].write(path, overwrite=True)
    dithers.catalogs = list(paths)
    try:
        right = dithers.align("right", own_catalogs=own)
        assert right.statuses() == {"a": "COMPLETE", "b": "COMPLETE"}
        assert max(right.offset(stem) for stem in "ab") < 0.1
        assert not right.summary["exposures"]["a"]["reason"] and "WARNING" not in right.said
        dithers.catalogs.reverse()
        swapped = dithers.align("swapped", own_catalogs=own)
        assert swapped.statuses() == {"a": "FAILED", "b": "FAILED"}
        for stem, path in zip("ab", paths[::-1], strict=True):
            reason = swapped.summary["exposures"][stem]["reason"]
            assert f"{path}: contradicts the image" in reason
            assert re.search(r"\d+ of its \d+ positions lie within 2 pixels of the \d+ sources", reason)
        Table({"x": tables[0]["x_psf"] + 1, "y": tables[0]["y_psf"] + 1}).write(paths[0], overwrite=True)
        few = tables[1][::5]
        Table({"x": few["x_psf"], "y": few["y_psf"] - 0.15}).write(paths[1], overwrite=True)
        dithers.catalogs = list(paths)
        other = dithers.align("shifted", own_catalogs=own)
        assert other.statuses() == {"a": "FAILED", "b": "COMPLETE"}
        assert "(1.00, 1.00) pixels" in other.summary["exposures"]["a"]["reason"]
        assert "positions are off by (0.00, -0.15) pixels" in other.summary["exposures"]["b"]["reason"]
        assert re.search(r"WARNING.*b: plain_b\.csv: its positions are off by", other.said)
    finally:
        dithers.catalogs = own


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0.0, 0.2])
def test_sources_that_are_listed_twice_count_once(dithers, aligned, apart):
    table = custom_table(dithers)
    again = Table({"x": np.asarray(table["x"]) + apart, "y": np.asarray(table["y"]) - apart})
    path = dithers.folder / "twice.csv"
    Table({name: np.concatenate([table[name], again[name]]) for name in ("x", "y")}).write(path, overwrite=True)
    result = align_with(dithers, path)
    assert f"a: {len(table)} of {2 * len(table)} sources are listed twice and merged" in result.said
    assert result.summary["exposures"]["a"]["n_sources"] == len(table)
    # Half the distance of the entries, in mas: the merged positions are between them.
    assert result.offset("a") < 0.1 + 110 * apart / np.sqrt(2)


def test_merged_sources_are_between_their_entries():
    from rampflow.alignment.source_positions import SourcePositions

    sources = SourcePositions(
        np.array([10.0, 50.0, 10.4, 90.0]), np.array([5.0, 6.0, 5.0, 7.0]), np.array([0.01, 0.02, 0.02, 0.03])
    )
    merged = sources.merged()
    np.testing.assert_allclose(merged.positions, [[10.08, 5], [50, 6], [90, 7]])
    np.testing.assert_array_equal(merged.error, [0.01, 0.02, 0.03])
    assert sources.merged(0.3) is sources
    assert len(SourcePositions(*np.empty((3, 0))).merged()) == 0


@pytest.mark.slow
def test_an_empty_custom_catalog_has_no_sources(dithers):
    for name, table in (("bare.ecsv", Table()), ("columns.ecsv", Table({"x": [], "y": []})), ("other.ecsv", Table({"n": []}))):
        table.write(dithers.folder / name, overwrite=True)
        result = align_with(dithers, dithers.folder / name)
        assert result.statuses() == {"a": "FAILED", "b": "COMPLETE"}
        assert result.summary["exposures"]["a"]["n_sources"] == 0 and result.offset("b") < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.ecsv", None, "none.ecsv: can't be opened"),
        ("text.ecsv", b"these are no sources", "text.ecsv: can't be read as a table"),
        (
            "words.ecsv",
            b"# %ECSV 1.0\n# ---\n# datatype:\n# - {name: x, datatype: string}\n# - {name: y, datatype: string}\nx y\na b\n",
            "can't be read as a table",
        ),
        ("cut.parquet", b"PAR1 and no more", "cut.parquet: can't be read as a parquet file"),
        ("half.csv", b"x,flux\n1,2\n", "has no columns x (or x_psf) and y (or y_psf)"),
        ("cat.asdf", b"#ASDF 1.0.0\n", "save the catalog as parquet or ECSV"),
    ],
)
def test_an_unusable_custom_catalog_fails_only_its_exposure(dithers, name, content, says):
    if content is not None:
        (dithers.folder / name).write_bytes(content)
    result = align_with(dithers, dithers.folder / name)
    assert result.statuses() == {"a": "FAILED", "b": "COMPLETE"}
    entry = result.summary["exposures"]["a"]
    assert "its source catalog can't be used" in entry["reason"] and says in entry["reason"] and entry["reason"] in result.said
    assert result["a"]["wcs_fit_results"] == {"status": "FAILED", "nmatches": 0, "n_detector": 1}
    assert result.offset("b") < 0.1


IDENTITIES = {
    "instrument.detector": ("WFI07", "WFI08"),
    "observation.observation_id": ("0001", "0002"),
    "exposure.start_time": ("2026-12-31T23:59:00.000", "2026-12-31T23:49:00"),
    "image.filename": ("r0000101001001001001_0001_wfi07_f158_cal.asdf", "r0000101001001001001_0002_wfi07_f158_cal.asdf"),
}


@pytest.fixture(scope="module")
def identified(tmp_path_factory):
    """Two dithers whose headers say which exposures they are."""
    sky = Sky(tmp_path_factory.mktemp("identified"))
    header = {"observation.observation_id": "0001", "filename": "r0000101001001001001_0001_wfi07_f158_flat.asdf"}
    header["exposure.start_time"] = time_entry(datetime.datetime(2026, 12, 31, 23, 59))
    sky.expose("a", error=(0.3, -0.4), header=header)
    sky.expose("b", error=(-0.5, 0.6), dither=(40, 25))
    return sky


@pytest.mark.slow
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("suffix", ["parquet", "ecsv"])
@pytest.mark.parametrize("field", IDENTITIES)
def test_the_catalog_of_another_exposure_is_refused(identified, field, suffix, other):
    table, path = custom_table(identified), identified.folder / f"own.{suffix}"
    value = IDENTITIES[field][other]
    if suffix == "parquet":
        arrow = pa.table({name: np.asarray(table[name]) for name in ("x", "y")})
        pq.write_table(arrow.replace_schema_metadata({f"roman.meta.{field}": value}), path)
    else:
        section, name = field.split(".")
        table.meta["roman"] = {"meta": {section: {name: value}}}
        table.write(path, overwrite=True)
    result = align_with(identified, path)
    assert result.statuses() == {"a": "FAILED" if other else "COMPLETE", "b": "COMPLETE"}
    if other:
        reason = result.summary["exposures"]["a"]["reason"]
        assert "is the catalog of another exposure by its metadata" in reason and value[:22].removesuffix("_cal.asdf") in reason
    else:
        assert result.offset("a") < 0.1 and f"sources from {path}" in result.said


def test_swapped_catalogs_of_the_pipeline_are_refused(tmp_path):
    """Two detectors of one exposure: each catalog says of which it is."""
    sky = Sky(tmp_path, radius=0.5)
    for detector in ("WFI02", "WFI05"):
        sky.expose(detector, detector, group="one", error=(0.5, 0.3))
    for path, detector in zip(sky.catalogs, ("WFI02", "WFI05"), strict=True):
        table = pq.read_table(path)
        meta = {**table.schema.metadata, "roman.meta.instrument.detector": detector}
        pq.write_table(table.replace_schema_metadata(meta), path)
    assert set(sky.align().statuses().values()) == {"COMPLETE"}
    sky.catalogs.reverse()
    result = sky.align("swapped")
    assert set(result.statuses().values()) == {"FAILED"}
    assert "instrument.detector WFI05, not WFI02" in result.summary["exposures"]["WFI02"]["reason"]


@pytest.mark.parametrize("fitted", [True, False])
def test_forced_sources_use_the_positions_in_this_image(tmp_path, fitted):
    """A forced catalog: x_centroid is of the image of the map, 35 pixels off; forced_ is of this image, with flags."""
    sky = Sky(tmp_path)
    sky.expose("a", error=(0.3, -0.4))
    table = pq.read_table(sky.catalogs[0])
    x, y = (table[f"{axis}_psf"].to_numpy() for axis in "xy")
    flags = np.zeros(len(x), np.int32)
    flags[:7] = 1  # DO_NOT_USE
    columns = {"x_centroid": x + 35, "y_centroid": y - 20, "forced_x_centroid": x, "forced_y_centroid": y}
    if fitted:
        columns |= {"forced_x_psf": x, "forced_y_psf": y, "forced_x_centroid": x + 1}
    pq.write_table(pa.table(columns | {"forced_warning_flags": flags}), sky.catalogs[0])
    result = sky.align()
    assert result.offset("a") < 0.1
    assert result.summary["exposures"]["a"]["n_sources"] == len(x) - 7
    assert f"(forced_{'x_psf' if fitted else 'x_centroid'}, " in result.said


# ------------------------------------------------------------------------------------------------------------------ epochs
@pytest.fixture(scope="module")
def epochs(tmp_path_factory):
    """Two exposures four years apart, of stars that move by 30 mas per year on average: 60 mas from the mean epoch each."""
    sky = Sky(tmp_path_factory.mktemp("epochs"), motion=(30.0, 10.0))
    sky.expose("early", error=(0.3, -0.4), years=-2)
    sky.expose("late", error=(-0.5, 0.6), dither=(40, 25), years=2)
    return sky


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
def test_exposures_years_apart_are_aligned_at_their_own_epochs(epochs, refine):
    result = epochs.align(f"refined_{refine}", refine=refine)
    assert set(result.statuses().values()) == {"COMPLETE"}
    for stem in ("early", "late"):
        assert result.offset(stem) < 0.15
        entry = result.summary["exposures"][stem]
        assert entry["n_matches"] > 40 and entry["rmse_after_mas"] < 0.6
        assert result[stem]["wcs_fit_results"]["n_detector"] == 2


@pytest.mark.slow
def test_sources_outside_the_catalog_do_not_tie_epochs(tmp_path):
    """Stars of 8 mas per year: after four years those that both exposures have are 32 mas apart, and few are in the catalog."""
    sky = Sky(tmp_path, motion=(8.0, 4.0), density=300, in_catalog=40)
    sky.expose("early", error=(0.3, -0.4), years=-2)
    sky.expose("late", error=(-0.5, 0.6), dither=(40, 25), years=2)
    result = sky.align()
    assert max(result.offset(stem) for stem in sky.truth) < 0.15


@pytest.mark.slow
def test_exposures_of_one_month_are_aligned_together(tmp_path):
    """Eighteen days apart, each to the stars of its own day: fast stars move by 5 mas."""
    sky = Sky(tmp_path, motion=(0.0, 100.0), in_catalog=190)
    sky.expose("a", error=(0.3, -0.4), years=-0.025)
    sky.expose("b", error=(-0.5, 0.6), dither=(40, 25), years=0.025)
    result = sky.align()
    for stem in "ab":
        assert result.offset(stem) < 0.15
        assert result.summary["exposures"][stem]["rmse_after_mas"] < 1.5  # of faint stars too
        assert result.summary["exposures"][stem]["n_shared"] > 100


@pytest.mark.slow
def test_without_motions_exposures_years_apart_are_off_by_the_motion(epochs):
    """What the motions change: the same exposures with a catalog that knows none."""
    stars = dict(zip(("ra", "dec"), epochs.catalog_stars, strict=True))
    usual, epochs.catalog = epochs.catalog, epochs.write_catalog("still.parquet", stars)
    try:
        result = epochs.align("still")
    finally:
        epochs.catalog = usual
    if result.statuses()["early"] == "COMPLETE":
        assert result.offset("early") > 40


def test_exposures_of_one_night_stay_where_they_are(tmp_path):
    sky = Sky(tmp_path, motion=(0.0, 10.0))
    sky.expose("a", error=(0.3, -0.4), years=1e-4)
    moving = sky.align("moving")
    sky.catalog = sky.write_catalog("still.parquet", dict(zip(("ra", "dec"), sky.catalog_stars, strict=True)))
    np.testing.assert_array_equal(moving.error("a"), sky.align("still").error("a"))


# ---------------------------------------------------------------------------------------------------------------- products
def test_an_image_takes_its_solution(dithers, aligned):
    meta, solution = meta_of(dithers.images[0]), aligned["a"]
    before = copy.deepcopy(meta)
    apply_solution(meta, solution)
    assert meta["wcs"] is solution["wcs"] and meta["wcs"]["name"] != before["wcs"]["name"]
    assert meta["wcsinfo"]["s_region"] == solution["s_region"]
    assert meta["wcs_fit_results"]["status"] == "SUCCESS" and meta["cal_step"]["tweakreg"] == "COMPLETE"
    assert meta["cal_logs"][-1] == solution["cal_logs"][-1]
    assert meta["source_catalog"]["tweakreg_catalog_name"] == solution["catalog"] == "a_cat.parquet"


def test_an_image_without_a_solution_keeps_its_wcs(dithers):
    meta = meta_of(dithers.images[0])
    before = copy.deepcopy(meta)
    results = {"status": "FAILED", "nmatches": 0, "n_detector": 1}
    apply_solution(meta, {"status": "FAILED", "reason": "few", "wcs_fit_results": results})
    assert repr(meta["wcs"]) == repr(before["wcs"]) and meta["wcsinfo"] == before["wcsinfo"]
    assert meta["cal_step"]["tweakreg"] == "FAILED" and meta["wcs_fit_results"] == results


def test_a_catalog_takes_its_solution(dithers, aligned):
    table, solution = pq.read_table(dithers.catalogs[0]), aligned["a"]
    updated = update_catalog(table, solution)
    assert updated.schema.equals(table.schema)
    assert updated.schema.metadata[b"other"] == b"kept"
    assert updated.schema.metadata[b"roman.meta.wcsinfo.s_region"].decode() == solution["s_region"]
    wcs = wcs_of_tree(solution["wcs"])
    for suffix, pixels in (("", "centroid"), ("_centroid", "centroid"), ("_psf", "psf")):
        expected = wcs(updated[f"x_{pixels}"].to_numpy(), updated[f"y_{pixels}"].to_numpy())
        for name, values in zip((f"ra{suffix}", f"dec{suffix}"), expected, strict=True):
            np.testing.assert_allclose(updated[name].to_numpy(), values, rtol=0, atol=1e-12)
            assert np.abs(updated[name].to_numpy() - table[name].to_numpy()).min() > 5e-5
    assert updated["x_psf"] == table["x_psf"]
    # The positions of given sources in this image follow those in it, too.
    names = {
        name: f"forced_{name}" for name in table.column_names if "centroid" in name or "psf" in name or name in ("ra", "dec")
    }
    forced = update_catalog(table.rename_columns([names.get(name, name) for name in table.column_names]), solution)
    for name, other in names.items():
        np.testing.assert_array_equal(forced[other].to_numpy(), updated[name].to_numpy())
    assert update_catalog(table, {"status": "FAILED"}).equals(table)


# ------------------------------------------------------------------------------------------------------------------ pieces
@pytest.mark.parametrize("geometry", list(TERMS))
def test_terms_and_corrections_make_a_round_trip(geometry):
    terms = np.array([0.3, -0.2, 1e-5, 2e-6, -3e-6, 4e-6])[: TERMS[geometry]]
    affine = affine_of_terms(terms)
    np.testing.assert_allclose(terms_of(affine, geometry), terms, atol=1e-15)
    square = np.array([[-200.0, -200], [200, -200], [200, 200], [-200, 200]])
    again = fit_affine(square, affine(square))
    np.testing.assert_allclose(again.matrix, affine.matrix, atol=1e-14)
    np.testing.assert_allclose(again.shift, affine.shift, atol=1e-12)


def test_rotation_and_scale_of_a_correction():
    angle = np.radians(0.01)
    matrix = 1.0001 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert Affine(matrix, np.zeros(2)).rotation_and_scale() == pytest.approx((0.01, 1.0001), rel=1e-9)
