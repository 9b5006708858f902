"""photom: the calibration of the optical element is recorded, and the pixels stay."""

import numpy as np
import pytest
from astropy.modeling.models import Scale, Shift
from photom import photometry_of
from small_files import (
    IMAGE_ARRAYS,
    assert_same_arrays,
    image,
    meta_of,
    opened,
    refuse,
    succeed,
    write_image,
    write_reference,
)

from rampflow.wcs.building import build_wcs
from rampflow.wcs.conversion import tree_of_wcs

TABLE = {
    "F158": {"photmjsr": 0.5, "uncertainty": 0.01, "pixelareasr": 2.8e-13, "wavelength": None},
    "GRISM": {"photmjsr": None, "uncertainty": None, "pixelareasr": None},
    "F062": {"photmjsr": 1, "uncertainty": None, "pixelareasr": 3e-13},
}


def calibrate(folder, element, table=TABLE):
    write_image(folder / "in.asdf", image(), {"instrument.optical_element": element})
    write_reference(folder / "photom.asdf", phot_table=table)
    return succeed("photom", folder / "in.asdf", folder / "out.asdf", "--photom", folder / "photom.asdf")


@pytest.mark.parametrize(("element", "values"), [("F158", (0.5, 0.01, 2.8e-13)), ("GRISM", (None, None, None)),
                                                 ("F062", (1.0, None, 3e-13))])  # fmt: skip
def test_the_calibration_of_the_optical_element_is_recorded(tmp_path, element, values):
    calibrate(tmp_path, element)
    with opened(tmp_path / "out.asdf") as model:
        names = ("conversion_megajanskys", "conversion_megajanskys_uncertainty", "pixel_area")
        assert tuple(model.meta.photometry[name] for name in names) == values
        assert model.meta.cal_step.photom == "COMPLETE"
    assert_same_arrays(tmp_path / "in.asdf", tmp_path / "out.asdf", IMAGE_ARRAYS)


def test_an_unknown_optical_element_changes_nothing(tmp_path):
    said = calibrate(tmp_path, "F213").stderr
    assert "WARNING" in said and "F213" in said
    before = meta_of(tmp_path / "in.asdf")["photometry"]
    with opened(tmp_path / "out.asdf") as model:
        assert dict(model.meta.photometry.items()) == before
    assert_same_arrays(tmp_path / "in.asdf", tmp_path / "out.asdf", IMAGE_ARRAYS)


@pytest.mark.parametrize(
    "row", [{"photmjsr": 0.5}, {**TABLE["F158"], "photmjsr": float("nan")}, {**TABLE["F158"], "uncertainty": "much"}]
)
def test_a_damaged_table_is_refused(tmp_path, row):
    write_image(tmp_path / "in.asdf", image())
    path = write_reference(tmp_path / "photom.asdf", phot_table={"F158": row})
    said = refuse("photom", tmp_path / "o.asdf", tmp_path / "in.asdf", tmp_path / "o.asdf", "--photom", path)
    assert "photom.asdf: phot_table.F158 is damaged" in said


@pytest.mark.parametrize(("scale", "warned"), [(0.11, False), (0.112, False), (0.12, True), (0.1, True)])
@pytest.mark.slow
def test_a_pixel_area_that_differs_from_the_wcs_gives_a_warning(tmp_path, scale, warned):
    """A WCS with pixels of `scale` arcsec, and a reference with those of 0.11."""
    pixels = (Scale(scale) & Scale(scale)) | (Shift(1546) & Shift(-892))
    pointing = {"v2_ref": 1546.0, "v3_ref": -892.0, "roll_ref": 60.0, "ra_ref": 270.0, "dec_ref": 66.0}
    wcs = tree_of_wcs(build_wcs(pixels, pointing, 1.0, image().shape))
    write_image(tmp_path / "in.asdf", image(), {"wcs": wcs})
    area = float(np.radians(0.11 / 3600) ** 2)
    write_reference(tmp_path / "photom.asdf", phot_table={"F158": {**TABLE["F158"], "pixelareasr": area}})
    done = succeed("photom", tmp_path / "in.asdf", tmp_path / "out.asdf", "--photom", tmp_path / "photom.asdf")
    lines = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(lines) == warned
    for line in lines:
        assert f"phot_table.F158.pixelareasr is {area:.4g} sr" in line
        assert f"{np.radians(scale / 3600) ** 2:.3g}"[:4] in line and "meta.wcs" in line
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.photometry.pixel_area == area


def test_names_of_elements_are_read_in_capitals():
    assert photometry_of(TABLE, "f158")["pixel_area"] == 2.8e-13
    assert photometry_of(TABLE, "PRISM") is None
