"""The products opened with asdf, roman_datamodels, gwcs, astropy, photutils and pyarrow."""

import warnings

import asdf
import numpy as np
import pytest
import roman_datamodels
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.nddata import NDDataRef, StdDevUncertainty
from astropy.table import Table
from photutils.segmentation import SegmentationImage
from pyarrow import parquet
from roman_datamodels.datamodels import ImageModel, SegmentationMapModel, WfiWcsModel

pytestmark = pytest.mark.workflow

MODELS = {"cal": ImageModel, "segm": SegmentationMapModel, "wcs": WfiWcsModel}
FIRST = "r0000101001001001001_0001_wfi01_f158"


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def products(visit, suffix):
    return sorted(visit.results.glob(f"*_{suffix}"))


@pytest.mark.parametrize("suffix", MODELS)
def test_asdf_and_roman_datamodels_open_every_product(visit, suffix):
    paths = products(visit, f"{suffix}.asdf")
    assert len(paths) == (5 if suffix == "segm" else 10)
    for path in paths:
        with asdf.open(path) as file:
            assert file["roman"]["meta"]["filename"] == path.name
            file.validate()
            if suffix != "wcs":
                assert file["roman"]["data"].shape == (504, 504)
        with roman_datamodels.open(path) as model:
            assert isinstance(model, MODELS[suffix])
            model.validate()


def test_viewers_find_planes_of_one_shape_and_a_wcs(visit):
    """Planes of one shape, a WCS with the interface for viewers (APE 14), and there and back to the pixel."""
    for path in products(visit, "cal.asdf"):
        with roman_datamodels.open(path) as image:
            planes = {name: np.asarray(image[name]) for name in ("data", "dq", "err", "var_poisson")}
            assert {plane.shape for plane in planes.values()} == {(504, 504)}
            wcs = image.meta.wcs
            if wcs is None:  # the fully saturated exposure
                assert image.meta.cal_step.assign_wcs == "SKIPPED"
                continue
            assert wcs.pixel_n_dim == wcs.world_n_dim == 2
            sky = wcs.pixel_to_world([0, 100.5, 503], [0, 200.25, 503])
            assert isinstance(sky, SkyCoord) and sky.frame.name == "icrs"
            np.testing.assert_allclose(wcs.world_to_pixel(sky), [[0, 100.5, 503], [0, 200.25, 503]], atol=1e-4)
            assert wcs.footprint().shape == (4, 2)
            data = NDDataRef(planes["data"], unit="DN/s", uncertainty=StdDevUncertainty(planes["err"]), wcs=wcs)
            assert data[100:200, 100:200].wcs.pixel_to_world(0, 0).separation(wcs.pixel_to_world(100, 100)).mas < 0.01


def test_catalog_and_segmentation_map_match_the_image(visit):
    table = Table.read(visit.results / f"{FIRST}_cat.parquet")
    arrow = parquet.read_table(visit.results / f"{FIRST}_cat.parquet")
    assert arrow.column_names == table.colnames
    np.testing.assert_array_equal(arrow["psf_flux"].to_numpy(), table["psf_flux"])
    assert table["psf_flux"].unit == units.nJy and table["ra"].unit == units.deg
    with (
        roman_datamodels.open(visit.results / f"{FIRST}_segm.asdf") as segmentation,
        roman_datamodels.open(visit.results / f"{FIRST}_cal.asdf") as image,
    ):
        segments = SegmentationImage(np.asarray(segmentation.data).astype(int))
        assert list(segments.labels) == sorted(table["label"])
        on_image = image.meta.wcs.world_to_pixel(SkyCoord(table["ra"], table["dec"]))
        np.testing.assert_allclose(on_image, [table["x_centroid"], table["y_centroid"]], atol=1e-3)
