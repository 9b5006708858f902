"""assign_wcs: positions compared with spherical trigonometry, velocity aberration, footprint, inverse, invalid input."""

import asdf
import assign_wcs
import numpy as np
import pytest
from assign_wcs import pointing_faults, usable_aberration_scale
from astropy.modeling.models import Identity, Mapping, Polynomial2D, Scale, Shift
from simulator.simulate_references import Detector, make_distortion
from small_files import META, image, meta_of, opened, refuse, run_here, succeed, write_image, write_reference

from rampflow.wcs.building import build_wcs, velocity_aberration
from rampflow.wcs.footprint import pixel_solid_angle, pixel_width

ROWS, COLUMNS = 248, 248
V2, V3 = META["wcsinfo.v2_ref"], META["wcsinfo.v3_ref"]
POINTING = {"v2_ref": V2, "v3_ref": V3, "roll_ref": 60.0, "ra_ref": 270.0, "dec_ref": 66.0}
CENTER = (COLUMNS - 1) / 2, (ROWS - 1) / 2
SCALE = 0.11
PIXEL = SCALE * np.sqrt(0.89)  #: width of a pixel of the model below, arcsec: the root of its determinant
PIXEL_AREA = np.radians(PIXEL / 3600) ** 2  #: sr
PIXELS = np.array([(-0.5, -0.5), (-0.5, 247.5), (247.5, 247.5), (247.5, -0.5), CENTER, (10, 200)])


def v2_v3(x, y):
    """A distorted plane: an affine map and a quadratic term."""
    u, w = x - CENTER[0], y - CENTER[1]
    return V2 + SCALE * (-0.5 * u + 0.8 * w) + 1e-6 * u * w, V3 + SCALE * (0.8 * u + 0.5 * w) + 2e-6 * u**2


def distortion_model():
    to_v2 = Polynomial2D(2, c1_0=-0.5 * SCALE, c0_1=0.8 * SCALE, c1_1=1e-6)
    to_v3 = Polynomial2D(2, c1_0=0.8 * SCALE, c0_1=0.5 * SCALE, c2_0=2e-6)
    return (Shift(-CENTER[0]) & Shift(-CENTER[1])) | Mapping((0, 1, 0, 1)) | (to_v2 & to_v3) | (Shift(V2) & Shift(V3))


def wcs_of(model, pointing, scale=1.0):
    """WCS of an image of the size of this module."""
    return build_wcs(model, pointing, scale, (ROWS, COLUMNS))


def on_sky(v2, v3, pointing, scale=1.0):
    """Position of (v2, v3): distance and bearing from the reference point, laid off on the sky at the position angle."""
    reference = np.radians(pointing["v2_ref"] / 3600), np.radians(pointing["v3_ref"] / 3600)
    v2 = pointing["v2_ref"] + scale * (np.asarray(v2) - pointing["v2_ref"])
    v3 = pointing["v3_ref"] + scale * (np.asarray(v3) - pointing["v3_ref"])
    a, d = np.radians(v2 / 3600), np.radians(v3 / 3600)
    east = np.cos(d) * np.sin(a - reference[0])
    north = np.cos(reference[1]) * np.sin(d) - np.sin(reference[1]) * np.cos(d) * np.cos(a - reference[0])
    distance, bearing = np.arcsin(np.hypot(east, north)), np.arctan2(east, north)
    angle, dec = bearing + np.radians(pointing["roll_ref"]), np.radians(pointing["dec_ref"])
    x = np.cos(dec) * np.cos(distance) - np.sin(dec) * np.sin(distance) * np.cos(angle)
    y = np.sin(angle) * np.sin(distance)
    z = np.sin(dec) * np.cos(distance) + np.cos(dec) * np.sin(distance) * np.cos(angle)
    return (pointing["ra_ref"] + np.degrees(np.arctan2(y, x))) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def separation(one, two):
    """Arcseconds between two positions."""
    ra, dec = one[0] - two[0], one[1] - two[1]
    ra = (ra + 180) % 360 - 180
    return 3600 * np.hypot(ra * np.cos(np.radians(two[1])), dec)


def write_distortion(path, model):
    asdf.AsdfFile({"roman": {"meta": {}, "coordinate_distortion_transform": model}}).write_to(path)
    return path


def assign(folder, meta=None, model=None):
    write_image(folder / "in.asdf", image(ROWS, COLUMNS), meta)
    write_distortion(folder / "distortion.asdf", model or distortion_model())
    return run_here(assign_wcs, folder / "in.asdf", folder / "out.asdf", "--distortion", folder / "distortion.asdf")


# ------------------------------------------------------------------------------------------------------------ positions
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"roll_ref": 0.0},
        {"roll_ref": 275.0, "dec_ref": -30.0},
        {"ra_ref": 0.0, "dec_ref": 0.0},
        {"dec_ref": 89.999},
        {"v2_ref": V2 + 300, "v3_ref": V3 - 200},
    ],
)
def test_positions_are_those_of_spherical_trigonometry(changed):
    pointing = POINTING | changed
    wcs = wcs_of(distortion_model(), dict(pointing), 1.0)
    x, y = PIXELS.T
    ours, expected = wcs(x, y), on_sky(*v2_v3(x, y), pointing)
    assert separation(ours, expected).max() < 1e-7  # arcsec
    assert wcs.available_frames == ["detector", "v2v3", "v2v3vacorr", "world"]
    assert wcs.output_frame.reference_frame.name == "icrs"
    np.testing.assert_allclose(wcs.get_transform("detector", "v2v3")(x, y), v2_v3(x, y), rtol=1e-13)


def test_the_reference_point_is_where_the_pointing_says():
    wcs = wcs_of(distortion_model(), POINTING)
    np.testing.assert_allclose(wcs(*CENTER), (270, 66), rtol=1e-12)
    # V3 points to the position angle roll_ref, and V2 90° further east.
    to_sky = wcs.get_transform("v2v3vacorr", "world")
    for place, angle in (((V2, V3 + 1), 60), ((V2 + 1, V3), 150)):
        ra, dec = to_sky(*place)
        found = np.degrees(np.arctan2((ra - 270) * np.cos(np.radians(66)), dec - 66)) % 360
        assert found == pytest.approx(angle, abs=0.01)


def test_right_ascension_goes_from_0_to_360():
    wcs = wcs_of(distortion_model(), POINTING | {"ra_ref": 0.0, "dec_ref": 10.0}, 1.0)
    x, y = np.meshgrid(np.arange(0, 248.0, 10), np.arange(0, 248.0, 10))
    ra, _ = wcs(x, y)
    assert ra.min() >= 0 and ra.max() < 360
    assert (ra < 1).any() and (ra > 359).any()


# -------------------------------------------------------------------------------------------------- velocity aberration
def test_velocity_aberration_scales_about_the_reference_point():
    scale = 1.0001
    wcs = wcs_of(distortion_model(), dict(POINTING), scale)
    x, y = PIXELS.T
    assert separation(wcs(x, y), on_sky(*v2_v3(x, y), POINTING, scale)).max() < 1e-7
    assert separation(wcs(0, 0), on_sky(*v2_v3(0, 0), POINTING)) == pytest.approx(1e-4 * SCALE * 165, rel=0.1)


@pytest.mark.parametrize("scale", [None, 1, 1.0])
def test_without_aberration_nothing_is_scaled(scale, capfd):
    assert isinstance(velocity_aberration(usable_aberration_scale(scale), V2, V3), Identity)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("scale", [0.0, -1.0, -999999.0, np.nan, np.inf, 1e300, 1e-300])
def test_a_scale_that_is_impossible_is_replaced_by_one_with_a_warning(tmp_path, scale):
    said = assign(tmp_path, {"velocity_aberration.scale_factor": scale})
    assert "WARNING" in said and "scale_factor" in said
    with opened(tmp_path / "out.asdf") as model:
        x, y = PIXELS.T
        assert separation(model.meta.wcs(x, y), on_sky(*v2_v3(x, y), POINTING)).max() < 1e-7


@pytest.mark.parametrize("meta", [{"velocity_aberration": ...}, {"velocity_aberration.scale_factor": None}])
def test_an_absent_scale_is_one(tmp_path, meta):
    assert "WARNING" not in assign(tmp_path, meta)
    # The schema asks for the entry, so the file is not valid; it has its WCS all the same.
    with asdf.config_context() as config:
        config.validate_on_read = False
        file = asdf.open(tmp_path / "out.asdf", lazy_load=False, memmap=False)
    with file:
        assert separation(file["roman"]["meta"]["wcs"](0, 0), on_sky(*v2_v3(0, 0), POINTING)) < 1e-7


# ---------------------------------------------------------------------------------------------------------- the product
def test_the_product_has_its_wcs_and_footprint(tmp_path):
    assign(tmp_path, {"velocity_aberration.scale_factor": 0.9999})
    with opened(tmp_path / "out.asdf") as model:
        corners = PIXELS[:4].T
        wcs = model.meta.wcs
        expected = np.transpose(on_sky(*v2_v3(*corners), POINTING, 0.9999))
        assert separation(wcs(*corners), expected.T).max() < 1e-7
        name, frame, *numbers = model.meta.wcsinfo.s_region.split()
        assert (name, frame) == ("POLYGON", "ICRS")
        np.testing.assert_allclose(np.array(numbers, float).reshape(4, 2), expected, atol=2e-9)
        assert wcs.bounding_box.bounding_box(order="F") == ((-0.5, 247.5), (-0.5, 247.5))
        assert model.meta.cal_step.assign_wcs == "COMPLETE"
        np.testing.assert_array_equal(model.data, image(ROWS, COLUMNS))


def test_right_ascensions_of_the_footprint_are_not_negative(tmp_path):
    assign(tmp_path, {"wcsinfo.ra_ref": 0.0, "wcsinfo.dec_ref": 0.0})
    ra = np.array(meta_of(tmp_path / "out.asdf")["wcsinfo"]["s_region"].split()[2::2], float)
    assert (ra >= 0).all() and (ra > 359).any() and (ra < 1).any()


def test_a_footprint_that_is_not_finite_is_left_alone(tmp_path):
    nowhere = Shift(0.5) / Shift(0.5)  # 1, and NaN at the left edge
    u = Shift(-CENTER[0]) * nowhere
    to_v2, to_v3 = Polynomial2D(1, c1_0=-0.5 * SCALE, c0_1=0.8 * SCALE), Polynomial2D(1, c1_0=0.8 * SCALE, c0_1=0.5 * SCALE)
    model = (u & Shift(-CENTER[1])) | Mapping((0, 1, 0, 1)) | (to_v2 & to_v3) | (Shift(V2) & Shift(V3))
    said = assign(tmp_path, {"wcsinfo.s_region": "POLYGON ICRS old"}, model)
    assert "WARNING" in said and "not finite" in said
    assert meta_of(tmp_path / "out.asdf")["wcsinfo"]["s_region"] == "POLYGON ICRS old"


@pytest.mark.slow
def test_a_distortion_that_is_nan_is_refused(tmp_path):
    write_image(tmp_path / "in.asdf", image(ROWS, COLUMNS))
    path = write_distortion(tmp_path / "distortion.asdf", distortion_model() | (Shift(np.nan) & Shift(0)))
    said = refuse("assign_wcs", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--distortion", path)
    assert "distortion.asdf: width of a pixel in the middle of the detector (coordinate_distortion_transform) is nan" in said
    assert "give a sound distortion reference" in said


OWN = {"wcsinfo.aperture_name": "WFI07_FULL"}  #: of the exposure's detector


@pytest.mark.parametrize(
    ("change", "v2", "v3", "distance"),
    [
        (Shift(1000.0) & Shift(0.0), "2546.0", "-892.0", "1000"),
        (Mapping((1, 0)), "-892.0", "1546.0", "3448"),  # swapped
        (Scale(-1.0) & Scale(1.0), "-1546.0", "-892.0", "3092"),  # mirrored
        (Scale(-1.0) & Scale(-1.0), "-1546.0", "892.0", "3570"),
    ],
)
def test_a_distortion_for_another_part_of_the_focal_plane_gives_a_warning(tmp_path, change, v2, v3, distance):
    said = assign(tmp_path, OWN, distortion_model() | change)
    (line,) = [line for line in said.splitlines() if "WARNING" in line]
    assert "distortion.asdf: coordinate_distortion_transform" in line and f"v2, v3 = {v2}, {v3} arcsec" in line
    assert f"{distance} arcsec from its reference point" in line and "v2_ref, v3_ref = 1546.0, -892.0" in line
    assert meta_of(tmp_path / "out.asdf")["cal_step"]["assign_wcs"] == "COMPLETE"


@pytest.mark.parametrize(
    ("meta", "offset"),
    [
        (OWN, 0.7),
        (OWN, 59.0),
        ({"wcsinfo.aperture_name": "WFI_CEN"}, 1000.0),  # the reference point of the whole focal plane
        ({"wcsinfo.aperture_name": ...}, 1000.0),
        ({"wcsinfo.aperture_name": "WFI01_FULL"}, 1000.0),  # what empty models say
    ],
)
def test_plausible_reference_points_give_no_warning(tmp_path, meta, offset):
    assert "WARNING" not in assign(tmp_path, meta, distortion_model() | (Shift(offset) & Shift(0.0)))


@pytest.mark.parametrize(("unit", "width"), [(1 / 3600, "2.88"), (1 / 0.11, "0.94"), (2, "0.2")])
@pytest.mark.slow
def test_a_distortion_in_another_unit_is_refused(tmp_path, unit, width):
    """Degrees, pixels, pixels half as wide: without this check only fluxes, positions and shapes would be wrong."""
    write_image(tmp_path / "in.asdf", image(ROWS, COLUMNS))
    path = write_distortion(tmp_path / "distortion.asdf", distortion_model() | (Scale(unit) & Scale(unit)))
    said = refuse("assign_wcs", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--distortion", path)
    assert f"width of a pixel in the middle of the detector (coordinate_distortion_transform) is {width}" in said
    assert "distortion.asdf: " in said and "0.08 to 0.14 arcsec is plausible" in said


@pytest.mark.parametrize(("scale", "warned"), [(1.0001, False), (0.99985, False), (1.01, True), (0.99, True)])
def test_an_implausible_aberration_scale_is_reported(tmp_path, scale, warned):
    said = assign(tmp_path, {"velocity_aberration.scale_factor": scale})
    lines = [line for line in said.splitlines() if "WARNING" in line]
    assert len(lines) == warned and all("scale_factor is" in line and f"{scale:g}" in line for line in lines)
    with opened(tmp_path / "out.asdf") as model:  # it is used all the same
        assert pixel_solid_angle(model.meta.wcs, (ROWS, COLUMNS)) == pytest.approx(PIXEL_AREA * scale**2, rel=1e-4)


def test_pixel_sizes_of_a_wcs(tmp_path):
    """A plane's pixel width, and the same on the sky: at a pole, across ra = 0."""
    assert pixel_width(distortion_model(), (ROWS, COLUMNS)) == pytest.approx(PIXEL, rel=1e-4)
    for pointing in ({"ra_ref": 0.0, "dec_ref": 0.0}, {"dec_ref": 90.0}, {"dec_ref": -89.9999, "ra_ref": 359.9999}):
        wcs = wcs_of(distortion_model(), POINTING | pointing)
        assert pixel_solid_angle(wcs, (ROWS, COLUMNS)) == pytest.approx(PIXEL_AREA, rel=1e-4)


def test_the_bounding_box_of_the_reference_is_kept(tmp_path):
    model = distortion_model()
    model.bounding_box = ((-10.5, 200.5), (-0.5, 100.5))  # y, x
    assign(tmp_path, model=model)
    with opened(tmp_path / "out.asdf") as product:
        wcs = product.meta.wcs
        assert wcs.bounding_box.bounding_box(order="F") == ((-0.5, 100.5), (-10.5, 200.5))
        assert np.isnan(wcs(150, 50)).all() and np.isfinite(wcs(50, 150)).all()


@pytest.mark.parametrize(
    "box", [((-1e7, 1e7), (-1e7, 1e7)), ((-0.5, 1e7), (-0.5, 247.5)), ((-np.inf, np.inf), (0.0, 9.0))], ids=str
)
def test_an_impossible_bounding_box_of_the_reference_becomes_that_of_the_image(tmp_path, box):
    """Its corners would be the footprint of the image, and the stars of a large part of the sky would be asked for."""
    model = distortion_model()
    model.bounding_box = box
    said = assign(tmp_path, model=model)
    assert "WARNING" in said and "distortion.asdf: the bounding box of coordinate_distortion_transform is" in said
    assign(tmp_path, model=distortion_model())
    with opened(tmp_path / "out.asdf") as model:
        expected = model.meta.wcsinfo.s_region
        assert model.meta.wcs.bounding_box.bounding_box(order="F") == ((-0.5, 247.5), (-0.5, 247.5))
    assert f"S_REGION: {expected}" in said


def test_pixel_coordinates_make_a_round_trip(tmp_path):
    transform = next(iter(make_distortion(Detector("WFI07", 256, 1)).values())).coordinate_distortion_transform
    assign(tmp_path, {"velocity_aberration.scale_factor": 1.00005}, transform.copy())
    with opened(tmp_path / "out.asdf") as model:
        wcs = model.meta.wcs
        x, y = np.meshgrid(np.linspace(0, 247, 11), np.linspace(0, 247, 11))
        np.testing.assert_allclose(wcs.numerical_inverse(*wcs(x, y), tolerance=1e-8), (x, y), atol=1e-6)
        # All but the reference's own inverse polynomial goes back exactly.
        v2, v3 = wcs.get_transform("detector", "v2v3")(x, y)
        back = wcs.get_transform("world", "v2v3")(*wcs.get_transform("v2v3", "world")(v2, v3))
        np.testing.assert_allclose(back, (v2, v3), atol=1e-6 * SCALE)
        np.testing.assert_allclose(wcs.invert(*wcs(x, y)), transform.inverse(v2, v3), atol=1e-6)


# -------------------------------------------------------------------------------------------------------- what is wrong
def test_without_a_reference_the_step_is_skipped(tmp_path):
    write_image(tmp_path / "in.asdf", image())
    assert "WARNING" in succeed("assign_wcs", tmp_path / "in.asdf", tmp_path / "o.asdf", "--distortion", "N/A").stderr
    with opened(tmp_path / "o.asdf") as model:
        assert model.meta.cal_step.assign_wcs == "SKIPPED" and model.meta.wcs is None


@pytest.mark.parametrize("content", [{}, {"coordinate_distortion_transform": 5}])
def test_a_reference_without_a_transform_is_refused(tmp_path, content):
    write_image(tmp_path / "in.asdf", image())
    path = write_reference(tmp_path / "distortion.asdf", **content)
    said = refuse("assign_wcs", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--distortion", path)
    assert "distortion.asdf: coordinate_distortion_transform" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, -999999) for name in POINTING] + [("dec_ref", 91.0), ("ra_ref", 360.5), ("roll_ref", np.nan), ("v2_ref", np.inf)],
)
def test_an_impossible_pointing_gives_no_wcs(tmp_path, name, value):
    said = assign(tmp_path, {f"wcsinfo.{name}": value, "wcsinfo.s_region": "POLYGON ICRS old"})
    assert said.count("WARNING") == 1
    assert f"{name} is {value}" in said and "roman_set_telescope_pointing" in said
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.wcs is None and model.meta.cal_step.assign_wcs == "SKIPPED"
        assert model.meta.wcsinfo.s_region == "POLYGON ICRS old"
        np.testing.assert_array_equal(model.data, image(ROWS, COLUMNS))


def test_a_pointing_of_zeros_is_a_placeholder():
    assert pointing_faults(dict.fromkeys(POINTING, 0.0)) == ["all of v2_ref, v3_ref, roll_ref, ra_ref, dec_ref are 0"]
    assert pointing_faults(dict.fromkeys(POINTING, 0.0) | {"v2_ref": 1546.0}) == []


@pytest.mark.parametrize("changed", [{"ra_ref": 360.0, "dec_ref": 90.0, "roll_ref": 360.0}, {"ra_ref": 0, "dec_ref": -90}])
def test_a_pointing_at_the_end_of_its_range_is_valid(changed):
    assert pointing_faults(POINTING | changed) == []


@pytest.mark.parametrize(("scale", "warned"), [(1.0001, False), (0.9999, False), (1.01, True), (0.5, True)])
def test_an_aberration_faster_than_the_telescope_gives_a_warning(tmp_path, scale, warned):
    said = assign(tmp_path, {"velocity_aberration.scale_factor": scale})
    assert ("WARNING" in said and f"scale_factor is {scale}" in said) == warned
    with opened(tmp_path / "out.asdf") as model:  # it is applied all the same
        assert separation(model.meta.wcs(0, 0), on_sky(*v2_v3(0, 0), POINTING, scale)) < 1e-7


def test_a_pointing_that_is_missing_is_named(tmp_path):
    write_image(tmp_path / "in.asdf", image(), {"wcsinfo.roll_ref": ...})
    path = write_distortion(tmp_path / "distortion.asdf", distortion_model())
    said = refuse("assign_wcs", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--distortion", path)
    assert "in.asdf: meta.wcsinfo.roll_ref is missing" in said
