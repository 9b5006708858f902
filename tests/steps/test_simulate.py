"""The simulator: its references are valid and found by CRDS, its exposures are valid and match their truth."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import roman_datamodels.datamodels as rdm
from astropy.coordinates import SkyCoord
from astropy.modeling.models import Scale, Shift
from astropy.table import Table
from photutils.aperture import CircularAperture
from roman_datamodels.datamodels import ScienceRawModel
from saturation import checked_thresholds, flag_saturated
from scipy.ndimage import label
from scipy.spatial.transform import Rotation
from simulator import detector as electronics
from simulator import simulate_exposure, simulate_references, simulate_sky
from simulator.metadata import MA_TABLES, MODELS, OLDER_VERSIONS, Settings, fill_metadata
from simulator.optics import FOCAL_PLANE_CENTER, PointSpread, Projection, attitude, defocus, pointing_at, render_sources

from rampflow import dq as flags
from rampflow.astrometry.region import unit_vectors
from rampflow.catalog.photometry import encircled_energy
from rampflow.detector import SCIENCE, border_pixels
from rampflow.errors import RampflowError
from rampflow.wcs.building import build_wcs

pytestmark = pytest.mark.slow

SIZE = 256
TRIMMED = SIZE - 8
DETECTORS = ("WFI01", "WFI18")
ELEMENTS = {"WFI_SPECTRAL": "GRISM", "WFI_IM_DARK": "DARK", "WFI_SP_DARK": "DARK"}
SETTINGS = Settings(ma_table="short", cosmic_ray_flux=20)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with two contexts: the second brings a new flat for WFI01."""
    path = tmp_path_factory.mktemp("crds")
    simulate_references.make_cache(path, DETECTORS, SIZE, 1)
    simulate_references.make_cache(path, ("WFI01",), SIZE, 2, context="roman_0002.pmap", new=("flat",))
    return path


@pytest.fixture(scope="module")
def references(cache):
    """Open references of each detector's F158 images."""
    folder = cache / "references/roman/wfi"

    def path(reftype, detector):
        names = (f"{reftype}_{detector}", f"{reftype}_{detector}_f158", reftype)
        return next(p for p in (folder / f"roman_wfi_{name.lower()}_0001.asdf" for name in names) if p.exists())

    types = simulate_exposure.REFERENCE_TYPES
    return {detector: {reftype: rdm.open(path(reftype, detector)) for reftype in types} for detector in DETECTORS}


@pytest.fixture(scope="module")
def sky():
    return simulate_sky.make_sky(270, 66, 0.006, 60, 40, seed=3)


@pytest.fixture(scope="module")
def exposure(references, sky):
    return simulate_exposure.simulate(SETTINGS, sky, references["WFI01"])


# ------------------------------------------------------------------------------------------------------------ references
def crds_answers(cache, questions):
    """Ask CRDS in a process of its own, which sees the cache and no server."""
    program = (
        "import crds, json, sys\n"
        "print(json.dumps([crds.getreferences(header, context=context, observatory='roman')"
        " for header, context in json.load(sys.stdin)]))"
    )
    environment = {**os.environ, "CRDS_PATH": str(cache), "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu"}
    environment.pop("CRDS_CONTEXT", None)
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(questions),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def crds_header(detector, exposure_type):
    return {
        "ROMAN.META.INSTRUMENT.NAME": "WFI",
        "ROMAN.META.INSTRUMENT.DETECTOR": detector,
        "ROMAN.META.INSTRUMENT.OPTICAL_ELEMENT": ELEMENTS.get(exposure_type, "F129"),
        "ROMAN.META.EXPOSURE.TYPE": exposure_type,
        "ROMAN.META.EXPOSURE.START_TIME": "2027-01-01 00:00:00",
    }


def test_crds_finds_references_of_every_exposure_type(cache):
    asked = [(detector, kind) for detector in DETECTORS for kind in simulate_references.EXPOSURE_TYPES]
    answers = crds_answers(cache, [(crds_header(*question), "roman_0001.pmap") for question in asked])
    for (detector, kind), found in zip(asked, answers, strict=True):
        assert set(found) == set(simulate_references.MAKERS)
        for reftype, name in found.items():
            if reftype in ("flat", "epsf") and kind in ELEMENTS:
                assert name == "NOT FOUND n/a"
                continue
            path = Path(name)
            assert path.is_file()
            parts = ["roman_wfi", reftype, *([] if reftype == "darkdecaysignal" else [detector.lower()])]
            parts += ["f129"] if reftype == "epsf" else []
            assert path.name == "_".join([*parts, "0001.asdf"])


def test_new_context_brings_a_new_flat_and_nothing_else(cache):
    contexts = ("roman_0001.pmap", "roman_0002.pmap", None)
    for detector in DETECTORS:
        before, after, default = crds_answers(cache, [(crds_header(detector, "WFI_IMAGE"), context) for context in contexts])
        changed = {reftype for reftype in before if before[reftype] != after[reftype]}
        assert changed == ({"flat"} if detector == "WFI01" else set())
        assert default == after


def test_mapping_checksums_are_right(cache):
    mappings = sorted((cache / "mappings/roman").iterdir())
    assert len(mappings) == len(simulate_references.MAKERS) + 1 + 2 * 2
    for mapping in mappings:
        lines = mapping.read_text().splitlines(keepends=True)
        digest = hashlib.sha1("".join(line for line in lines if "sha1sum" not in line).encode()).hexdigest()
        assert simulate_references.read_mapping(mapping)[0]["sha1sum"] == digest


def test_references_are_valid(cache):
    for path in (cache / "references/roman/wfi").iterdir():
        with rdm.open(path) as model:
            model.validate()
            assert model.meta.filename == path.name


def test_references_have_faults(cache, references):
    of = dict(references["WFI01"])
    of["linearity"] = rdm.open(cache / "references/roman/wfi/roman_wfi_linearity_wfi01_0001.asdf")
    faulty = {
        "saturation": of["saturation"].data,
        "linearity": of["linearity"].coeffs[1],
        "inverselinearity": of["inverselinearity"].coeffs[1],
        "readnoise": of["readnoise"].data,
        "gain": of["gain"].data,
        "flat": of["flat"].data,
    }
    for reftype, values in faulty.items():
        assert np.isnan(values).any() and (values == 0).any(), reftype
        assert np.isfinite(values).mean() > 0.999, reftype
    assert np.isnan(of["dark"].dark_slope).any() and (of["gain"].data < 0).any()
    assert (np.isnan(of["linearity"].coeffs[2]) & np.isfinite(of["linearity"].coeffs[1])).any()
    flagged = {
        "mask": (flags.DEAD, flags.HOT, flags.BAD_REF_PIXEL),
        "saturation": (flags.NO_SAT_CHECK,),
        "linearity": (flags.NO_LIN_CORR,),
        "inverselinearity": (flags.NO_LIN_CORR,),
        "dark": (flags.HOT, flags.DO_NOT_USE),
        "flat": (flags.NO_FLAT_FIELD,),
    }
    for reftype, names in flagged.items():
        assert all(flags.has(of[reftype].dq, flag).any() for flag in names), reftype


def test_exposure_shows_faulty_references_as_usual_pixels(references, exposure):
    of = references["WFI01"]
    faulty = [of[reftype].data for reftype in ("gain", "readnoise", "saturation")]
    faulty = np.any([~(values > 0) for values in (*faulty, of["inverselinearity"].coeffs[1])], axis=0)
    assert faulty.sum() >= 20
    last = exposure[0]["data"][-1][SCIENCE].astype(float)
    assert abs(np.median(last[faulty[SCIENCE]]) - np.median(last[~faulty[SCIENCE]])) < 200
    assert np.isfinite(exposure[1]["count_rate"]).all()


def test_linearity_and_its_inverse_agree(cache):
    folder = cache / "references/roman/wfi"
    with rdm.open(folder / "roman_wfi_linearity_wfi01_0001.asdf") as model:
        forward = model.coeffs.astype(float)
    with rdm.open(folder / "roman_wfi_inverselinearity_wfi01_0001.asdf") as model:
        inverse = model.coeffs.astype(float)
    good = np.isfinite(forward + inverse.sum(axis=0)).all(axis=0) & (forward[1] == 1) & (inverse[1] == 1)
    assert 0.99 < good.mean() < 1
    for counts in (1000.0, 20000.0, 60000.0):
        seen = np.polynomial.polynomial.polyval(counts, inverse[:, good])
        back = sum(c * seen**power for power, c in enumerate(forward[:, good]))
        assert np.abs(back - counts).max() < 0.1


def test_distortion_inverse(references):
    transform = references["WFI01"]["distortion"].coordinate_distortion_transform
    x, y = np.meshgrid(np.linspace(0, TRIMMED - 1, 9), np.linspace(0, TRIMMED - 1, 9))
    back = transform.inverse(*transform(x, y))
    assert np.abs(np.array(back) - [x, y]).max() < 1e-4
    v2, v3 = transform(x, y)
    assert np.hypot(v2[0, -1] - v2[0, 0], v3[0, -1] - v3[0, 0]) == pytest.approx(0.11 * (TRIMMED - 1), rel=0.01)


def test_odd_number_of_channels_is_refused(tmp_path):
    with pytest.raises(RampflowError, match="multiple of 256"):
        simulate_references.make_cache(tmp_path, DETECTORS, 384, 1)


# --------------------------------------------------------------------------------------------------------------- optics
def test_the_attitude_points_at_its_target():
    matrix = attitude(*FOCAL_PLANE_CENTER, 83.0, -12.0, 35.0)
    assert pointing_at(matrix, *FOCAL_PLANE_CENTER) == pytest.approx((83.0, -12.0, 35.0))


def test_projection_on_both_sides_of_the_v1_axis():
    projection = Projection(Scale(0.11) & Scale(0.11), 0, 0, attitude(0, 0, 83.0, -12.0, 35.0), 1.00002)
    x, y = np.array([-400.0, 0.0, 400.0]), np.array([-50.0, 0.0, 50.0])
    np.testing.assert_allclose(projection.to_pixel(*projection.to_sky(x, y)), (x, y), atol=1e-6)


def test_star_keeps_flux_and_position(references):
    epsf = references["WFI01"]["epsf"]
    spread = PointSpread(np.array(epsf.psf[0, 1]), epsf.meta.pixel_x, epsf.meta.pixel_y, epsf.meta.oversample)
    image = np.zeros((TRIMMED, TRIMMED))
    spread.add_star(image, 100.3, 80.8, 1000.0)
    rows, columns = np.indices(image.shape)
    assert image.sum() == pytest.approx(1000, rel=0.005)
    assert (image * columns).sum() / image.sum() == pytest.approx(100.3, abs=0.01)
    assert (image * rows).sum() / image.sum() == pytest.approx(80.8, abs=0.01)


def test_encircled_energies_are_those_of_simulated_stars(cache, references):
    with rdm.open(cache / "references/roman/wfi/roman_wfi_apcorr_wfi01_0001.asdf") as apcorr:
        curves = {name: entry for name, entry in apcorr.data.items() if entry["ee_radii"] is not None}
        for entry in curves.values():
            radii, fractions = np.array(entry["ee_radii"]), np.array(entry["ee_fractions"])
            assert (np.diff(radii) > 0).all() and (np.diff(fractions) > 0).all() and 0 < fractions[0] and fractions[-1] <= 1
            assert radii[-1] * 0.11 > 1.6  # the largest aperture of source_catalog
        energy = encircled_energy(curves["F158"]["ee_radii"], curves["F158"]["ee_fractions"], 0.11)
    assert len(curves) == len(simulate_references.FILTERS)
    epsf = references["WFI01"]["epsf"]
    spread = PointSpread(np.array(epsf.psf[0, 1]), epsf.meta.pixel_x, epsf.meta.pixel_y, epsf.meta.oversample)
    held = []
    for x, y in np.random.default_rng(4).uniform(120, 126, (30, 2)):  # near the center of the detector
        image = np.zeros((TRIMMED, TRIMMED))
        spread.add_star(image, x, y, 1.0)
        circles = [CircularAperture((x, y), radius / 0.11) for radius in energy]
        held.append([aperture.do_photometry(image)[0][0] for aperture in circles])
    np.testing.assert_allclose(np.mean(held, axis=0), list(energy.values()), rtol=0.015)


def test_galaxy_keeps_flux_and_orientation(references):
    epsf = references["WFI01"]["epsf"]
    spread = PointSpread(np.array(epsf.psf[0, 1]), epsf.meta.pixel_x, epsf.meta.pixel_y, epsf.meta.oversample)
    image = np.zeros((TRIMMED, TRIMMED))
    spread.add_galaxy(image, 100.3, 80.8, 1000.0, 4.0, 0.4, np.radians(30))
    dy, dx = np.indices(image.shape) - np.array([80.8, 100.3])[:, None, None]
    assert image.sum() == pytest.approx(1000)
    assert (image * dx).sum() / 1000 == pytest.approx(0, abs=0.02)
    moments = [(image * product).sum() for product in (dx * dx, dx * dy, dy * dy)]
    assert np.degrees(0.5 * np.arctan2(2 * moments[1], moments[0] - moments[2])) == pytest.approx(30, abs=1)


# ------------------------------------------------------------------------------------------------------------- exposures
def linear_slope(data, settings):
    """Difference of the last two long resultants' means per second, DN/s: a slope where nothing is saturated."""
    times = np.array([np.mean(reads) for reads in settings.read_pattern]) * settings.frame_time
    return (data[-2].astype(float) - data[-4]) / (times[-2] - times[-4])


def test_script_writes_valid_exposure_with_truth(cache, sky, tmp_path):
    import asdf
    from astropy.table import Table

    sky.write(tmp_path / "sky.ecsv")
    output = tmp_path / "r_uncal.asdf"
    script = Path(simulate_exposure.__file__)
    options = ["--sky", tmp_path / "sky.ecsv", "--cache", cache, "--ma-table", "short", "--guide-window", "100", "50"]
    subprocess.run([sys.executable, script, output, *options], check=True, capture_output=True)
    with rdm.open(output) as model:
        assert isinstance(model, rdm.ScienceRawModel)
        assert model.tag.endswith("wfi_science_raw-2.1.0")
        model.validate()
        assert model.data.shape == (8, SIZE, SIZE) and model.data.dtype == np.uint16
        assert model.amp33.shape == (8, SIZE, 128) and model.amp33.dtype == np.uint16
        assert len(model.meta.exposure.read_pattern) == model.meta.exposure.nresultants == 8
        assert (model.meta.guide_star.window_xstart, model.meta.guide_star.window_ystart) == (100, 50)
        assert model.meta.filename == output.name
        assert "resultantdq" not in model
    with asdf.open(tmp_path / "r_truth.asdf") as file:
        assert file["truth"]["count_rate"].shape == (TRIMMED, TRIMMED)
        assert len(file["truth"]["cosmic_rays"]["charge"]) > 0
    assert len(Table.read(tmp_path / "r_truth.ecsv")) > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "fps", "--exposure-type", "WFI_IM_DARK"], "it takes WFI_IMAGE, WFI_FLAT, WFI_WFSC"),
        ([], "--sky or --gradient is needed"),
    ],
)
def test_impossible_options_are_refused(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.setattr(sys, "argv", ["simulate_exposure.py", str(tmp_path / "r_uncal.asdf"), *options])
    with pytest.raises(SystemExit):
        simulate_exposure.main()
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_equal_seeds_make_equal_exposures(exposure, references, sky):
    again = simulate_exposure.simulate(SETTINGS, sky, references["WFI01"], threads=2)
    other = simulate_exposure.simulate(dataclasses.replace(SETTINGS, seed=2), sky, references["WFI01"])
    for name in ("data", "amp33"):
        np.testing.assert_array_equal(again[0][name], exposure[0][name])
        assert (other[0][name] != exposure[0][name]).mean() > 0.5
    np.testing.assert_array_equal(again[1]["cosmic_rays"]["charge"], exposure[1]["cosmic_rays"]["charge"])


def test_ramps_follow_the_true_count_rate(references, sky):
    # A flat lamp, with no cosmic ray: the mean slope is the mean count rate but for the non-linearity, below 1.5 % so near
    # the pedestal.
    settings = dataclasses.replace(SETTINGS, exposure_type="WFI_FLAT", cosmic_ray_flux=0, snowballs=0)
    arrays, truth, sources = simulate_exposure.simulate(settings, sky, references["WFI01"])
    assert len(sources) == 0
    slope = np.median(linear_slope(arrays["data"], settings)[4:-4, 4:-4] / truth["count_rate"])
    assert 0.95 < slope < 1.0


def test_cosmic_rays_appear_where_the_truth_says(exposure):
    arrays, truth, _ = exposure
    rays = truth["cosmic_rays"]
    steps = np.diff(arrays["data"].astype(float), axis=0)[:, 4:-4, 4:-4]
    quiet = np.median(np.abs(steps))
    single = (rays["charge"] > 2000) & (rays["charge"] < 20000) & (rays["resultant"] > 0)
    seen = steps[rays["resultant"] - 1, rays["row"], rays["column"]][single]
    # The read may be the last of its resultant, which then shows only a part of the charge; the next one shows the rest.
    later = steps[np.minimum(rays["resultant"], len(steps) - 1), rays["row"], rays["column"]][single]
    assert single.sum() > 20
    assert np.mean(seen + later > 0.5 * rays["charge"][single] / 1.8) > 0.9
    assert quiet < 20


def test_stars_are_at_their_true_pixels(exposure):
    arrays, _, sources = exposure
    image = linear_slope(arrays["data"], SETTINGS)[4:-4, 4:-4]
    stars = sources[(sources["type"] == "star") & (sources["mag"] > 18.5) & (sources["mag"] < 20.5)]
    inside = [star for star in stars if 6 < star["x"] < TRIMMED - 7 and 6 < star["y"] < TRIMMED - 7]
    assert len(inside) > 5
    rows, columns = np.mgrid[-2:3, -2:3]
    offsets = []
    for star in inside:
        x, y = round(star["x"]), round(star["y"])
        stamp = np.clip(image[y - 2 : y + 3, x - 2 : x + 3] - np.median(image), 0, None)
        offsets.append(
            [(stamp * columns).sum() / stamp.sum() + x - star["x"], (stamp * rows).sum() / stamp.sum() + y - star["y"]]
        )
    assert np.abs(np.median(offsets, axis=0)).max() < 0.15


def test_gradient_rises_over_the_columns(references):
    settings = dataclasses.replace(SETTINGS, gradient=(2.0, 2000.0), cosmic_ray_flux=0, snowballs=0)
    of = references["WFI01"]
    arrays, truth, sources = simulate_exposure.simulate(settings, None, of)
    assert sources is None
    gain = simulate_exposure.usable(of["gain"].data[SCIENCE], "gain")
    electrons = truth["scene"] * gain
    np.testing.assert_allclose(electrons[:, [0, -1]], np.broadcast_to([2.0, 2000.0], (TRIMMED, 2)), rtol=1e-6)
    np.testing.assert_allclose(np.diff(np.log(electrons), axis=1), np.log(1000) / (TRIMMED - 1), rtol=0.01)
    flat, dark = np.array(of["flat"].data), np.nan_to_num(of["dark"].dark_slope[SCIENCE])
    good = (flat > 0) & (of["mask"].dq[SCIENCE] == 0)
    np.testing.assert_allclose(truth["count_rate"][good], (truth["scene"] * flat + dark)[good], rtol=1e-5)
    bright = np.s_[:, TRIMMED // 2 : TRIMMED * 3 // 4]  # enough light to measure, not enough for much non-linearity
    slope = linear_slope(arrays["data"], settings)[4:-4, 4:-4]
    assert 0.96 < np.median(slope[bright] / truth["count_rate"][bright]) < 1.0


def test_jumps_are_single_hits_of_known_charge(references):
    settings = dataclasses.replace(SETTINGS, gradient=(1.0, 1.0001), jumps=True)
    arrays, truth, _ = simulate_exposure.simulate(settings, None, references["WFI01"])
    hits, reads = truth["cosmic_rays"], settings.read_pattern[-1][-1]
    place = np.sort(hits["row"] * TRIMMED + hits["column"])
    assert len(np.unique(place)) == len(place) == (TRIMMED // 8) ** 2
    assert (hits["row"] % 8 == 4).all() and (hits["column"] % 8 == 4).all()
    assert set(hits["charge"]) == set(electronics.JUMP_CHARGES) and set(hits["read"]) == set(range(1, reads))
    # Each charge comes in each read, as often as any other, but for one.
    counts = np.unique(np.stack([hits["charge"], hits["read"]]), axis=1, return_counts=True)[1]
    assert len(counts) == 25 * (reads - 1) and np.ptp(counts) <= 1
    # The whole charge is there a resultant after the first that shows some of it.
    data = arrays["data"].astype(float)[:, 4:-4, 4:-4]
    large = (hits["charge"] > 1000) & (hits["resultant"] < len(data) - 1)
    index = hits["resultant"][large], hits["row"][large], hits["column"][large]
    step = data[index[0] + 1, *index[1:]] - data[index[0] - 1, *index[1:]]
    assert np.median(step / (hits["charge"][large] / 1.8)) == pytest.approx(1, abs=0.05)


def test_a_dead_channel_sees_no_light_and_changes_no_other(references, sky, exposure):
    data = simulate_exposure.simulate(dataclasses.replace(SETTINGS, dead_channel=2), sky, references["WFI01"])[0]["data"]
    known = exposure[0]["data"]
    np.testing.assert_array_equal(data[..., :128], known[..., :128])
    rise = (data[-1].astype(float) - data[0])[SCIENCE]
    lit = (known[-1].astype(float) - known[0])[SCIENCE]
    assert np.median((lit - rise)[:, 124:]) == pytest.approx(0.25 * 20 * SETTINGS.frame_time, rel=0.15), "the background"
    assert rise[:, 124:].max() < 200 < lit[:, 124:].max(), "the noise of the readout, and no source"
    with pytest.raises(RampflowError, match="--dead-channel is 3; this detector has the channels 1 to 2"):
        simulate_exposure.simulate(dataclasses.replace(SETTINGS, dead_channel=3), sky, references["WFI01"])


def test_an_offset_of_the_reference_pixels_changes_no_other(references, sky, exposure):
    data = simulate_exposure.simulate(dataclasses.replace(SETTINGS, reference_offset=1000), sky, references["WFI01"])[0]["data"]
    moved = data.astype(int) - exposure[0]["data"]
    np.testing.assert_array_equal(moved[SCIENCE], 0)
    border = moved[:, border_pixels(0, SIZE, (SIZE, SIZE))]
    assert np.abs(border - 1000).max() <= 1, "rounded"


def test_defocus_widens_stars_and_keeps_their_flux(references):
    epsf = references["WFI01"]["epsf"]
    images = []
    for width in (0.0, 1.5):
        stamps = defocus(np.array(epsf.psf[0, 1]), width * epsf.meta.oversample)
        image = np.zeros((TRIMMED, TRIMMED))
        spread = PointSpread(stamps, epsf.meta.pixel_x, epsf.meta.pixel_y, epsf.meta.oversample)
        spread.add_star(image, 100.0, 100.0, 1000.0)
        images.append(image)
    sharp, wide = images
    assert wide.sum() == pytest.approx(sharp.sum(), rel=0.01)
    # The variances of convolved functions add up; wings beyond 10 pixels have too little light to be lost.
    columns = np.arange(TRIMMED) - 100.0
    variances = [(image.sum(axis=0) * columns**2).sum() / image.sum() for image in images]
    assert variances[1] - variances[0] == pytest.approx(1.5**2, rel=0.1)


@pytest.mark.parametrize("offset", [0, 300])
def test_reference_read_is_subtracted_and_kept(references, sky, exposure, offset):
    settings = dataclasses.replace(SETTINGS, reference_read=True, reference_amp33=True, data_encoding_offset=offset)
    arrays = simulate_exposure.simulate(settings, sky, references["WFI01"])[0]
    assert arrays["reference_read"].shape == (SIZE, SIZE) and arrays["reference_amp33"].shape == (SIZE, 128)
    for name, reference in (("data", "reference_read"), ("amp33", "reference_amp33")):
        raw = exposure[0][name].astype(int)
        assert arrays[reference].dtype == arrays[name].dtype == np.uint16
        assert np.median(arrays[reference]) == pytest.approx(6000, rel=0.1)
        decoded = arrays[name].astype(int) + arrays[reference] - offset
        whole = arrays[name] > 0  # the others fell below zero
        assert (whole | (arrays[reference] == 0)).mean() > (0.999 if offset else 0.1)  # that's what the offset is for
        np.testing.assert_array_equal(decoded[whole], raw[whole])
        assert (raw[~whole] <= np.broadcast_to(arrays[reference], raw.shape)[~whole] - offset).all()


def test_resultantdq_flags_and_loses_pixels(references, sky, exposure):
    arrays = simulate_exposure.simulate(dataclasses.replace(SETTINGS, resultantdq=True), sky, references["WFI01"])[0]
    resultantdq, lost = arrays["resultantdq"], flags.has(arrays["resultantdq"], flags.DROPOUT)
    for flag in (flags.DO_NOT_USE, flags.SATURATED, flags.JUMP_DET):
        assert (np.count_nonzero(flags.has(resultantdq, flag) & ~lost, axis=(1, 2)) >= 3).all()
    assert (np.count_nonzero(lost, axis=(1, 2)) > 64).all()
    assert flags.has(resultantdq[lost], flags.DO_NOT_USE).all() and not arrays["data"][lost].any()
    np.testing.assert_array_equal(arrays["data"][~lost], exposure[0]["data"][~lost])


@pytest.mark.parametrize("kind", ["fps", "tvac"])
def test_ground_test_has_quantities(references, sky, exposure, tmp_path, kind):
    settings = dataclasses.replace(SETTINGS, model=kind, reference_read=True)
    arrays = simulate_exposure.simulate(settings, sky, references["WFI01"])[0]
    simulate_exposure.write_exposure(tmp_path / "r_uncal.asdf", settings, arrays, references["WFI01"])
    with rdm.open(tmp_path / "r_uncal.asdf") as model:
        model.validate()
        assert type(model).__name__ == MODELS[kind]
        assert model.data.unit == model.reference_read.unit == "DN" and model.reference_read.shape == (1, SIZE, SIZE)
        np.testing.assert_array_equal(model.data.value, exposure[0]["data"])  # the reference read is back in
        assert [list(reads) for reads in model.meta.exposure.read_pattern] == settings.read_pattern
        assert (model.meta.exposure.type, model.meta.instrument.optical_element) == ("WFI_IMAGE", "F158")


@pytest.mark.parametrize("version", OLDER_VERSIONS)
def test_an_older_version_has_the_same_exposure(references, exposure, tmp_path, version):
    settings = dataclasses.replace(SETTINGS, model_version=version)
    simulate_exposure.write_exposure(tmp_path / "r_uncal.asdf", settings, exposure[0], references["WFI01"])
    with rdm.open(tmp_path / "r_uncal.asdf") as model:
        model.validate()
        assert model.tag.endswith(f"wfi_science_raw-{version}")
        np.testing.assert_array_equal(model.data, exposure[0]["data"])
        assert [list(reads) for reads in model.meta.exposure.read_pattern] == settings.read_pattern
        assert (model.meta.exposure.type, model.meta.instrument.optical_element) == ("WFI_IMAGE", "F158")


@pytest.mark.parametrize("name", MA_TABLES)
def test_every_multiaccum_table_gives_its_resultants(references, name):
    settings = dataclasses.replace(SETTINGS, ma_table=name, exposure_type="WFI_FLAT", cosmic_ray_flux=0, snowballs=0)
    assert (np.diff(np.concatenate([[0], *settings.read_pattern])) > 0).all()
    data = simulate_exposure.simulate(settings, None, references["WFI01"])[0]["data"].astype(float)
    means = np.array([np.mean(reads) for reads in settings.read_pattern]) * settings.frame_time
    level = np.median(data[:, 4:-4, 4:-4], axis=(1, 2))
    # Counts follow the mean times, whatever reads are left out: 100 DN/s and less than a tenth of non-linearity.
    np.testing.assert_allclose(np.diff(level) / np.diff(means), 99, rtol=0.1)


def test_numbers_of_resultants():
    lengths = {name: len(pattern) for name, (_, pattern) in MA_TABLES.items()}
    assert lengths == {"one": 1, "two": 2, "three": 3, "four": 4, "short": 8, "imaging": 9, "long": 16, "uneven": 8}


def test_bright_stars_come_on_top(sky):
    more = simulate_sky.make_sky(270, 66, 0.006, 60, 40, seed=3, bright=12)
    for name in sky.colnames:
        np.testing.assert_array_equal(more[name][:100], sky[name])
    added = more[100:]
    assert len(set(more["id"])) == len(more) == 112 and (added["type"] == "star").all()
    assert (added["mag"] >= 10).all() and (added["mag"] <= 16).all()


def test_bright_stars_and_snowballs_exercise_every_saturation_rule(references):
    settings = dataclasses.replace(SETTINGS, ma_table="uneven", snowballs=60)
    bright = simulate_sky.make_sky(270, 66, 0.004, 10, 0, seed=3, bright=12)
    of = references["WFI01"]
    counts = simulate_exposure.simulate(settings, bright, of)[0]["data"].astype(np.float32)
    threshold, _ = checked_thresholds(np.array(of["saturation"].data), np.array(of["saturation"].dq))
    groupdq = np.zeros(counts.shape, np.uint8)
    flag_saturated(counts, groupdq, threshold, settings.read_pattern)
    saturated, partly = (flags.has(groupdq, flag) for flag in (flags.SATURATED, flags.DO_NOT_USE))
    assert saturated.all(axis=0).sum() > 10  # cores of stars
    assert partly[1:-1].any(axis=(1, 2)).sum() >= 3  # the backward rule in several resultants of several reads
    # The second resultant's rule sees what the backward one does not: a mean below its diluted threshold.
    dilution = np.mean(settings.read_pattern[1]) / settings.read_pattern[1][-1]
    assert (partly[1] & (counts[1] < dilution * threshold)).sum() > 10


def test_snowballs_have_saturated_cores_and_wings(references):
    settings = dataclasses.replace(SETTINGS, exposure_type="WFI_IM_DARK", snowballs=8, cosmic_ray_flux=0)
    arrays, truth, _ = simulate_exposure.simulate(settings, None, references["WFI01"])
    image = np.zeros((TRIMMED, TRIMMED))
    hits = truth["cosmic_rays"]
    np.add.at(image, (hits["row"], hits["column"]), hits["charge"])
    cores, number = label(image >= electronics.SNOWBALL_CORE)
    assert 6 <= number <= 8 and (np.bincount(cores.ravel())[1:] > 15).all()
    last = arrays["data"][-1][4:-4, 4:-4]
    assert (last[cores > 0] > 50000).all()
    assert np.count_nonzero(image > 1000) > 2 * np.count_nonzero(cores)  # wings many times the noise


def test_saturated_exposure_is_saturated_everywhere(references, sky, tmp_path):
    settings = dataclasses.replace(SETTINGS, saturated=True)
    of = references["WFI01"]
    arrays = simulate_exposure.simulate(settings, sky, of)[0]
    simulate_exposure.write_exposure(tmp_path / "r_uncal.asdf", settings, arrays, of)
    with rdm.open(tmp_path / "r_uncal.asdf") as model:
        unchecked = np.isnan(of["saturation"].data) | flags.has(of["saturation"].dq, flags.NO_SAT_CHECK)
        above = model.data >= np.where(unchecked, 65536, of["saturation"].data)
        assert (above | flags.has(model.resultantdq, flags.SATURATED)).all()
        assert above.mean() > 0.99


def test_pointing_error_moves_the_header_alone(references, sky, tmp_path):
    of, made = references["WFI01"], []
    for error in ((0.0, 0.0), (0.3, -0.4)):
        settings = dataclasses.replace(SETTINGS, pointing_error=error)
        arrays = simulate_exposure.simulate(settings, sky, of)[0]
        path = tmp_path / f"{len(made)}_uncal.asdf"
        simulate_exposure.write_exposure(path, settings, arrays, of)
        with rdm.open(path) as model:
            made.append((np.array(model.data), dict(model.meta.wcsinfo)))
    np.testing.assert_array_equal(made[0][0], made[1][0])
    right, wrong = ((info["ra_ref"], info["dec_ref"]) for _, info in made)
    assert offset_between(right, wrong) == pytest.approx((0.3, -0.4), abs=1e-8)


def offset_between(a, b):
    """Offset of a position from another to the east and north along the great circle, arcsec; by astropy."""
    here, there = (SkyCoord(*place, unit="deg") for place in (a, b))
    distance, angle = here.separation(there).arcsec, here.position_angle(there).rad
    return distance * np.sin(angle), distance * np.cos(angle)


@pytest.mark.parametrize("dec", [-90.0, -89.9999, -89.9, 0.0, 66.0, 89.9, 89.9999, 90.0])
@pytest.mark.parametrize("ra", [0.0, 1e-5, 120.0, 359.99999])
@pytest.mark.parametrize("roll", [0.0, 300.0])
def test_a_pointing_error_moves_the_telescope_without_turning_it(references, ra, dec, roll):
    v = simulate_exposure.reference_point(references["WFI01"])
    attitudes, places = [], []
    for error in ((0.0, 0.0), (4.0, -3.0)):
        settings = dataclasses.replace(SETTINGS, ra=ra, dec=dec, roll=roll, pointing_error=error)
        header = ScienceRawModel.create_fake_data(shape=(8, 12, 128))
        fill_metadata(header.meta, settings, "r_uncal.asdf", *v, {})
        info = header.meta.wcsinfo
        assert 0 <= info.ra_ref < 360 and abs(info.dec_ref) <= 90 and 0 <= info.roll_ref < 360
        places.append((info.ra_ref, info.dec_ref))
        attitudes.append(attitude(*v, info.ra_ref, info.dec_ref, info.roll_ref))
    right, wrong = attitudes
    np.testing.assert_allclose(right, attitude(*v, ra, dec, roll), atol=1e-11)
    turned = Rotation.from_matrix(wrong @ right.T)
    # A rotation by 5 arcsec, about an axis across the direction of pointing: none about the pointing itself.
    assert np.degrees(turned.magnitude()) * 3600 == pytest.approx(5, abs=1e-5)
    assert abs(turned.as_rotvec() @ unit_vectors(*places[0])) < 1e-11
    if abs(dec) < 90:
        assert offset_between(*places) == pytest.approx((4, -3), abs=1e-5)


@pytest.mark.parametrize("ra, dec", [(0.0, 66.0), (359.9999, 0.0), (0.0, 89.9), (200.0, -89.9), (0.0, 90.0), (30.0, -90.0)])
def test_a_dither_moves_stars_by_the_same_pixels_everywhere(references, ra, dec):
    of = references["WFI01"]
    here = dataclasses.replace(SETTINGS, ra=ra, dec=dec, roll=25.0)
    there = dataclasses.replace(here, dither=(1.1, 2.2))
    x, y = np.meshgrid([10.0, 60.0, 110.0], [10.0, 60.0, 110.0])
    before, after = (simulate_exposure.make_projection(settings, of) for settings in (here, there))
    moved = np.subtract(after.to_pixel(*before.to_sky(x, y)), (x, y))
    # All by the length of the dither, without a turn.
    assert np.hypot(*moved) * 0.11 == pytest.approx(np.hypot(1.1, 2.2), rel=0.02)
    assert np.ptp(moved[0]) < 0.05 and np.ptp(moved[1]) < 0.05


@pytest.mark.parametrize("ra, dec", [(0.0, 0.0), (359.9999, 66.0), (0.0, 89.9), (200.0, -89.9), (0.0, 90.0), (30.0, -90.0)])
def test_the_wcs_of_the_header_puts_the_sources_where_they_are(references, ra, dec):
    of = references["WFI01"]
    sky = simulate_sky.make_sky(ra, dec, 0.003, 30, 20, seed=3)
    settings = dataclasses.replace(SETTINGS, ra=ra, dec=dec, roll=25.0)
    image, truth = render_sources((TRIMMED, TRIMMED), sky, simulate_exposure.make_projection(settings, of), None, 1e-3)
    assert len(truth) > 10 and np.isfinite(image).all() and image.sum() > 0
    header = ScienceRawModel.create_fake_data(shape=(8, 12, 128))
    fill_metadata(header.meta, settings, "r_uncal.asdf", *simulate_exposure.reference_point(of), {})
    info, scale = header.meta.wcsinfo, header.meta.velocity_aberration.scale_factor
    pointing = {name: info[name] for name in ("v2_ref", "v3_ref", "roll_ref", "ra_ref", "dec_ref")}
    wcs = build_wcs(of["distortion"].coordinate_distortion_transform, pointing, scale, (TRIMMED, TRIMMED))
    found = SkyCoord(*wcs(truth["x"], truth["y"]), unit="deg")
    # The inverse distortion of the references is known to 1e-4 pixel.
    assert found.separation(SkyCoord(truth["ra"], truth["dec"], unit="deg")).arcsec.max() < 1e-4


@pytest.mark.parametrize("dec", [-90.0, -89.9999, 66.0, 89.9999, 90.0])
def test_galaxies_lie_at_their_position_angle(dec):
    # V1 points at the galaxy, with V3 at the position angle 35: the galaxy's at 80 is 45 degrees from V3 (y) toward V2 (x).
    sky = Table({"ra": [0.0], "dec": [dec], "mag": [18.0], "type": ["galaxy"], "half_light_radius": [1.0]})
    sky["axis_ratio"], sky["position_angle"] = 0.3, 80.0
    matrix = attitude(0, 0, 0.0, dec, 35.0)
    projection = Projection(Shift(-60.5) & Shift(-60.5) | Scale(0.11) & Scale(0.11), 0, 0, matrix, 1.0)
    stamp = np.zeros((1, 41, 41))
    stamp[0, 20, 20] = 1
    spread = PointSpread(np.repeat(stamp, 4, axis=0), [0, 128, 0, 128], [0, 0, 128, 128], 4)
    image, _ = render_sources((121, 121), sky, projection, spread, 1.0)
    dy, dx = np.indices(image.shape) - 60.5
    xx, yy, xy = (np.sum(image * a * b) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    tilt = np.degrees(0.5 * np.arctan2(2 * xy, xx - yy))
    assert tilt == pytest.approx(45, abs=1)


def test_dither_moves_the_stars(references, sky, exposure):
    settings = dataclasses.replace(SETTINGS, dither=(1.1, 0.0))
    moved = simulate_exposure.simulate(settings, sky, references["WFI01"])[2]
    common = sorted(set(moved["id"]) & set(exposure[2]["id"]))
    before, after = (table[[list(table["id"]).index(i) for i in common]] for table in (exposure[2], moved))
    shift = np.hypot(after["x"] - before["x"], after["y"] - before["y"])
    assert np.median(shift) == pytest.approx(10, rel=0.02)


def test_transient_is_in_the_first_read_of_wfi18_alone(references):
    signal = electronics.wfi18_transient((SIZE, SIZE), 3.16247)
    settings = dataclasses.replace(SETTINGS, detector="WFI18", exposure_type="WFI_IM_DARK", cosmic_ray_flux=0, snowballs=0)
    arrays = simulate_exposure.simulate(settings, simulate_sky.make_sky(0, 0, 0.01, 1, 0, 1), references["WFI18"])[0]
    data = arrays["data"].astype(float)
    steps = np.median(data - data[3], axis=2)
    top, bottom = slice(4, 12), slice(-60, -4)
    assert signal[4, 100] > 40
    assert steps[0, top].mean() - steps[0, bottom].mean() > 15
    assert abs(steps[2, top].mean() - steps[2, bottom].mean()) < 15


def test_gaps_of_amplifier_33_are_those_of_all_resultants(exposure):
    missing = exposure[0]["amp33"] == 0
    assert missing.any() and (missing == missing[0]).all()


def test_reference_pixels_know_the_common_noise(references):
    # What the refpix reference's weights predict from amplifier 33 is in the channels.
    of = references["WFI01"]["refpix"]
    noise = electronics.CommonNoise((SIZE, SIZE), of.gamma + of.zeta + of.alpha)
    image, amp33 = noise.draw(np.random.default_rng(1), 1)
    assert amp33.std() == pytest.approx(electronics.COMMON_NOISE, rel=0.5)
    rows = image[4:-4, 4:124].mean(axis=1)
    assert np.corrcoef(rows, amp33[4:-4].mean(axis=1))[0, 1] > 0.9
    np.testing.assert_array_equal(image[:, :4], amp33[:, :4])


def test_converter_error_is_undone_by_the_correction(references):
    table = references["WFI01"]["integralnonlinearity"]
    correction = table.inl_table["science_channel_01"]["correction"]
    true = np.arange(0, 2**16 - 16, 16.0)
    written = true + electronics.converter_error(table.value, [correction], 16.0)[0][: len(true)]
    np.testing.assert_allclose(written + np.interp(written, table.value, correction), true, atol=1e-3)


def test_the_demo_has_every_type_of_exposure():
    import yaml

    config = yaml.safe_load((Path(simulate_exposure.__file__).parents[2] / "config/demo.yaml").read_text())
    exposures = config["demo"]["exposures"]
    assert {exposure["exposure-type"] for exposure in exposures} == set(simulate_references.EXPOSURE_TYPES)
    assert any(exposure.get("saturated") for exposure in exposures)
    assert {exposure["detector"] for exposure in exposures} == set(config["demo"]["detectors"]) == set(DETECTORS)
