"""source_catalog: stars of known position and flux; each part compared with photutils or astropy; parameters; empty images."""

import importlib
import importlib.metadata
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import source_catalog
from astropy.coordinates import SkyCoord
from astropy.io import fits
from photutils.aperture import CircularAperture
from simulator import simulate_references
from small_files import arrays_of, image, meta_of, opened, refuse, run_here, succeed, write_image
from star_field import (
    AREA,
    LEVEL,
    META,
    NOISE,
    OVERSAMPLING,
    SCALE,
    SIGMA,
    SIZE,
    STARS,
    UNIT,
    gaussian_stamps,
    sky_wcs,
    star_image,
    write_apcorr,
    write_epsf,
    write_sky,
)

from rampflow import SOFTWARE_NAME
from rampflow import dq as flags
from rampflow.catalog import (
    background,
    circles,
    columns,
    detection,
    dust,
    photometry,
    products,
    psf,
    psf_photometry,
    segments,
    smoothing,
)
from rampflow.catalog.background import Background, clipped_statistics
from rampflow.catalog.daofind import FWHM_TO_SIGMA, measure_daofind
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.yaml_tree import tagged
from rampflow.kernels import source_catalog as kernels
from rampflow.step.exposure import Exposure
from rampflow.step.program import run_step
from rampflow.wcs.conversion import tree_of_wcs


class Catalogs:
    """Runs of the step in one folder."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.references = ("--epsf", write_epsf(folder / "epsf.asdf", gaussian_stamps()))
        self.references += ("--apcorr", write_apcorr(folder / "apcorr.asdf"))
        self.sky = write_sky(folder / "r_flat.asdf")

    def make(self, path=None, *options, references=None):
        """Names of the products for the image in `path`, by default that of the stars."""
        self.count += 1
        folder = self.folder / str(self.count)
        outputs = folder / "r_cat.parquet", folder / "r_segm.asdf"
        self.said = run_here(source_catalog, path or self.sky, *outputs, *(references or self.references), *options)
        return outputs

    def read(self, *arguments, **options):
        """The catalog as arrays by name, and the segmentation map."""
        catalog, segmentation = self.make(*arguments, **options)
        return read_catalog(catalog), arrays_of(segmentation)["data"]


def read_catalog(path):
    """Columns as arrays by name."""
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def validate(path, kind="ImageSourceCatalogModel"):
    """Check the catalog in a file against its schema, as a model made of it."""
    from astropy.table import Table
    from roman_datamodels import datamodels

    stored, model = pq.read_table(path), getattr(datamodels, kind).create_fake_data()
    metadata = {key.decode(): value.decode() for key, value in stored.schema.metadata.items()}
    assert metadata["roman.meta.model_type"] == kind
    table = Table({name: stored[name].to_numpy() for name in stored.column_names})
    for field in stored.schema:
        definition = model.get_column_definition(field.name)
        assert table[field.name].dtype == definition["datatype"], field.name
        unit = field.metadata[b"unit"].decode()
        assert (unit == "None") == (definition["unit"] == "none"), field.name
    assert [c["description"] for c in _described(metadata)] == [
        model.get_column_definition(n)["description"] for n in table.colnames
    ]
    model.source_catalog = table
    model.validate()
    return metadata


def _described(metadata):
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("", lambda loader, suffix, node: None)
    text = metadata["table_meta_yaml"]
    return yaml.load(text[: text.index("\nmeta:")], yaml.SafeLoader)["datatype"]


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory):
    return Catalogs(tmp_path_factory.mktemp("catalogs"))


@pytest.fixture(scope="module")
def plain(catalogs):
    """The catalog of the stars with the defaults: files, columns, segmentation map."""
    files = catalogs.make()
    return files, read_catalog(files[0]), arrays_of(files[1])


def by_star(catalog, stars=STARS, names=("x_centroid", "y_centroid")):
    """Index of the source at each star; each must be there."""
    distance = np.hypot(*(np.subtract.outer(stars[:, i], catalog[name]) for i, name in enumerate(names)))
    assert (distance.min(axis=1) < 1).all()
    return distance.argmin(axis=1)


# -------------------------------------------------------------------------------------------------------------- recovery
def test_stars_are_found_where_they_are(plain):
    _, catalog, arrays = plain
    assert len(catalog["label"]) == len(STARS)
    found = by_star(catalog)
    x, y, flux = STARS.T
    # Noise of a fitted position over a background: √(8 π) σ² · noise / flux; the pixel widens the PSF.
    accuracy = (8 * np.pi) ** 0.5 * (SIGMA**2 + 1 / 12) * NOISE / flux
    for name, truth in (("x_psf", x), ("y_psf", y)):
        pull = (catalog[name][found] - truth) / accuracy
        assert np.abs(pull).max() < 4, name
        assert np.allclose(catalog[f"{name}_err"][found], accuracy, rtol=0.2)
    for name in ("x_centroid", "y_centroid", "x_centroid_win", "y_centroid_win"):
        assert np.abs(catalog[name][found] - (x if name[0] == "x" else y)).max() < 0.05
    labels = arrays["data"][np.round(y).astype(int), np.round(x).astype(int)]
    assert (labels == catalog["label"][found]).all()


def test_fluxes_are_in_nanojansky(plain):
    _, catalog, _ = plain
    found, flux = by_star(catalog), STARS[:, 2] * UNIT
    # Noise of a fitted flux: √(4 π) σ · noise.
    noise = NOISE * UNIT * (4 * np.pi * (SIGMA**2 + 1 / 12)) ** 0.5
    assert np.abs(catalog["psf_flux"][found] - flux).max() < 5 * noise
    assert np.allclose(catalog["psf_flux_err"], noise, rtol=0.2)
    # 1.6 arcsec hold all of it, with the noise of 664 pixels and their background.
    assert np.abs(catalog["aper16_flux"][found] - flux).max() < 5 * NOISE * UNIT * 664**0.5
    for name in ("aper08_flux", "kron_flux", "segment_flux"):
        assert np.allclose(catalog[name][found], flux, rtol=0.1), name
    # A circle of 0.2 arcsec holds this part of a Gaussian; the pixel widens it, in the image and where the circle cuts it.
    part = 1 - np.exp(-0.5 * (0.2 / SCALE) ** 2 / (SIGMA**2 + 2 / 12))
    assert np.allclose(catalog["aper02_flux"][found], part * flux, rtol=0.03)
    assert np.allclose(catalog["kron_abmag"][found], 31.4 - 2.5 * np.log10(catalog["kron_flux"][found]), atol=1e-5)
    assert np.abs(catalog["aper_bkg_flux"]).max() < 5 * catalog["aper_bkg_flux_err"].max()


def test_shapes_are_those_of_the_smoothed_stars(plain):
    _, catalog, _ = plain
    side = np.degrees(AREA**0.5) * 3600
    smoothed = (SIGMA**2 + 1 / 12 + (2.0 * FWHM_TO_SIGMA) ** 2) ** 0.5 * side
    bright = by_star(catalog)[STARS[:, 2] > 200]
    assert np.allclose(catalog["semimajor"][bright], smoothed, rtol=0.1)
    assert (catalog["ellipticity"][bright] < 0.05).all()
    assert (catalog["segment_area"] >= 25 * side**2 * 0.999).all()


def test_the_sky_follows_the_wcs(plain):
    _, catalog, _ = plain
    for suffix in ("centroid", "centroid_win", "psf"):
        x, y = (catalog[f"{axis}_{suffix}"].astype(float) for axis in "xy")
        ra, dec = sky_wcs()(x, y)
        assert np.allclose(catalog[f"ra_{suffix}"], ra, rtol=0, atol=2e-8 / np.cos(np.radians(66)))
        assert np.allclose(catalog[f"dec_{suffix}"], dec, rtol=0, atol=1e-8)
    assert (catalog["ra"] == catalog["ra_centroid"]).all() and (catalog["dec"] == catalog["dec_centroid"]).all()


def test_north_and_scale_are_those_of_the_wcs():
    scale, north = photometry.scale_and_north(sky_wcs(), (SIZE, SIZE))
    assert scale == pytest.approx(SCALE, rel=1e-5)
    assert north == pytest.approx(90, abs=1e-6)


@pytest.mark.parametrize("north", [90, 118.2, -30])
@pytest.mark.parametrize("mirrored", [False, True])
def test_major_axes_have_their_position_angle_on_the_sky(catalogs, mirrored, north):
    wcs = sky_wcs(mirrored=mirrored, north=north)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    along, across = (x * np.cos(turn) + y * np.sin(turn) for turn in np.radians([25, 115]))
    galaxy = LEVEL + np.random.default_rng(5).normal(0, NOISE, x.shape) + 10 * np.exp(-(along**2) / 50 - across**2 / 8)
    sky = write_sky(
        catalogs.folder / f"galaxy_{mirrored}_{north}_flat.asdf", galaxy.astype(np.float32), meta={"wcs": tree_of_wcs(wcs)}
    )
    catalog = catalogs.read(sky)[0]
    brightest = catalog["segment_flux"].argmax()
    x, y, angle = (float(catalog[name][brightest]) for name in ("x_centroid", "y_centroid", "orientation_pix"))
    assert angle == pytest.approx(25, abs=1)
    ends = [
        SkyCoord(*wcs(x + 2 * side * np.cos(np.radians(25)), y + 2 * side * np.sin(np.radians(25))), unit="deg")
        for side in (-1, 1)
    ]
    difference = catalog["orientation_sky"][brightest] - ends[0].position_angle(ends[1]).deg
    assert abs((difference + 90) % 180 - 90) < 1


@pytest.mark.parametrize("dec", [0.0, 66.0, 90.0, -90.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mirrored_image_is_recognized_everywhere(mirrored, dec):
    from astropy.modeling.models import Pix2Sky_TAN, RotateNative2Celestial, Scale

    wcs = Scale(1e-5 if mirrored else -1e-5) & Scale(1e-5) | Pix2Sky_TAN() | RotateNative2Celestial(0.0, dec, 180.0)
    assert photometry.is_mirrored(wcs, (9, 9)) == mirrored


def test_neighbors_are_the_nearest_others(plain):
    _, catalog, _ = plain
    x, y = catalog["x_centroid"], catalog["y_centroid"]
    distance = np.hypot(np.subtract.outer(x, x), np.subtract.outer(y, y)) + np.diag(np.full(len(x), np.inf))
    assert (catalog["nn_label"] == catalog["label"][distance.argmin(axis=1)]).all()
    assert np.allclose(catalog["nn_distance"], distance.min(axis=1) * SCALE, rtol=1e-4)
    alone = photometry.find_neighbors(np.array([4]), np.array([1.0]), np.array([2.0]), 1.0)
    assert alone["nn_label"] == -1 and np.isnan(alone["nn_distance"])


def test_wide_sources_are_extended(catalogs, plain):
    assert not plain[1]["is_extended"].any()
    wide = write_sky(catalogs.folder / "wide_flat.asdf", star_image(STARS * (1, 1, 4), sigma=3))
    assert catalogs.read(wide)[0]["is_extended"].all()
    without = (*catalogs.references[:2], "--apcorr", "N/A")
    assert not catalogs.read(wide, references=without)[0]["is_extended"].any()


# -------------------------------------------------------------------------------------------------------------- products
def test_both_products_are_valid_and_named(catalogs, plain):
    (catalog, segmentation), columns_read, arrays = plain
    metadata = validate(catalog)
    assert metadata["roman.meta.filename"] == "r_cat.parquet"
    assert metadata["roman.meta.image.filename"] == "r_cal.asdf"
    assert metadata["roman.meta.calibration_software_name"] == SOFTWARE_NAME
    assert metadata["roman.meta.exposure.read_pattern.2.1"] == "4"
    assert metadata["roman.meta.ref_file.epsf"] == str(catalogs.references[1])
    assert metadata["source_catalog.status"] == "COMPLETE"
    assert metadata["source_catalog.aperture_radii.circle_arcsec"] == "[0.1 0.2 0.4 0.8 1.6]"
    assert list(columns_read) == columns.column_names(fit_psf=True)
    assert np.isnan(columns_read["dust_ebv"]).all()
    with opened(segmentation) as model:
        assert type(model).__name__ == "SegmentationMapModel"
        assert model.meta.filename == "r_segm.asdf" and model.meta.model_type == "SegmentationMapModel"
        assert model.meta.calibration_software_name == SOFTWARE_NAME
    assert arrays["data"].dtype == np.uint32 and arrays["detection_image"].dtype == np.float32
    assert not list(catalog.parent.glob(".*"))


def test_reddening_is_looked_up_in_the_map_of_the_hemisphere(catalogs):
    """The stars lie at a galactic latitude of 30 degrees: the southern map is not read."""
    for hemisphere in ("north", "south"):
        simulate_references.make_dust_map(catalogs.folder / f"{hemisphere}.fits", hemisphere, 1)
    maps = [f"--dustmap_{name}={catalogs.folder / name}.fits" for name in ("north", "south")]
    catalog, segmentation = catalogs.make(None, *maps)
    said, metadata, found = catalogs.said, validate(catalog), read_catalog(catalog)
    expected = dust.reddening(found["ra"], found["dec"], {"north": catalogs.folder / "north.fits"})
    assert (found["dust_ebv"] == expected).all() and (expected > 0).all() and "WARNING" not in said
    assert metadata["roman.meta.ref_file.dustmap_north"] == str(catalogs.folder / "north.fits")
    assert "roman.meta.ref_file.dustmap_south" not in metadata
    assert set(meta_of(segmentation)["ref_file"]) >= {"dustmap_north"}
    # Without the map: NaN and a warning.
    assert np.isnan(catalogs.read(None, maps[1])[0]["dust_ebv"]).all()
    assert catalogs.said.count("WARNING") == 1
    assert f"dust_ebv is NaN without dustmap_north ({len(found['ra'])} sources)" in catalogs.said


def test_a_dust_map_without_values_is_named(catalogs):
    path = catalogs.folder / "empty.fits"
    simulate_references.make_dust_map(path, "north", 1)
    with fits.open(path, mode="update") as file:
        file[0].data[:] = np.nan
    assert np.isnan(catalogs.read(None, f"--dustmap_north={path}")[0]["dust_ebv"]).all()
    assert catalogs.said.count("WARNING") == 1 and f"{path} has no value at " in catalogs.said


def test_parameters_of_crds_are_recorded(catalogs):
    given = "--parameters_from", "roman_wfi_pars-sourcecatalogstep_0001.asdf:npixels,deblend"
    catalog, segmentation = catalogs.make(None, *given)
    assert validate(catalog)["roman.meta.ref_file.pars-sourcecatalogstep"] == f"crds://{given[1].partition(':')[0]}"
    assert meta_of(segmentation)["ref_file"]["pars-sourcecatalogstep"] == f"crds://{given[1].partition(':')[0]}"
    assert "Parameters of CRDS: npixels, deblend from roman_wfi_pars-sourcecatalogstep_0001.asdf" in catalogs.said


def test_the_crds_context_is_recorded(catalogs):
    catalog, segmentation = catalogs.make(None, "--crds_context", "roman_0042.pmap")
    assert validate(catalog)["roman.meta.ref_file.crds.context"] == "roman_0042.pmap"
    assert meta_of(segmentation)["ref_file"]["crds"]["context"] == "roman_0042.pmap"


@pytest.mark.parametrize(("kind", "forced"), [("ImageSourceCatalogModel", False), ("ForcedImageSourceCatalogModel", True)])
def test_the_columns_are_those_of_the_schema(kind, forced):
    from roman_datamodels import datamodels

    names = columns.column_names(fit_psf=True, forced=forced)
    assert len(set(names)) == len(names)
    model = getattr(datamodels, kind).create_fake_data()
    assert all(model.get_column_definition(name) for name in names)
    required = {name.replace("aper00", "aper04") for name in model.create_empty_catalog().colnames}
    assert required <= set(names)
    assert [n for n in names if "psf" not in n] == columns.column_names(fit_psf=False, forced=forced)


def test_column_descriptions_match_roman_datamodels_and_astropy():
    from astropy.units import Unit
    from roman_datamodels import datamodels

    model = datamodels.ImageSourceCatalogModel.create_fake_data()
    for name in columns.column_names(fit_psf=True, forced=True):
        ours, theirs = columns.define(name), model.get_column_definition(name)
        assert (ours.dtype, ours.description) == (theirs["datatype"], theirs["description"])
        assert ours.unit == (None if theirs["unit"] == "none" else str(Unit(theirs["unit"])))
    with pytest.raises(KeyError):
        columns.define("radius")


@pytest.mark.parametrize("measured", [False, True])
def test_the_header_of_the_table_is_read_by_astropy(measured):
    from astropy.table.meta import get_header_from_yaml

    definitions = {name: columns.define(name) for name in columns.column_names(fit_psf=True)}
    meta = products.table_metadata("COMPLETE", **({"scale": 0.11, "energy": {0.1: 0.5, 0.2: 0.75}} if measured else {}))
    header = get_header_from_yaml(products.astropy_header(definitions, meta).splitlines())
    assert [column["name"] for column in header["datatype"]] == list(definitions)
    for column, definition in zip(header["datatype"], definitions.values(), strict=True):
        assert (column["datatype"], column["description"]) == (definition.dtype.name, definition.description)
        assert column.get("unit") == definition.unit
    assert header["meta"]["status"] == "COMPLETE" and header["meta"]["kron_params"] == (2.5, 1.4, 0.0)
    assert header["meta"].keys() == meta.keys()
    if measured:
        np.testing.assert_array_equal(header["meta"]["ee_fractions"], [0.5, 0.75])


@pytest.mark.parametrize("measured", [False, True])
def test_the_header_of_the_table_agrees_with_astropy(measured):
    from astropy.table import Column, Table
    from astropy.table.meta import get_yaml_from_table

    definitions = {name: columns.define(name) for name in columns.column_names(fit_psf=True, forced=measured)}
    meta = products.table_metadata("COMPLETE", **({"scale": 0.11, "energy": {0.1: 0.5, 0.2: np.nan}} if measured else {}))
    described = [Column(np.empty(0, d.dtype), name, description=d.description, unit=d.unit) for name, d in definitions.items()]
    assert products.astropy_header(definitions, meta).splitlines() == get_yaml_from_table(Table(described, meta=meta))


def test_the_metadata_equal_those_of_roman_datamodels(catalogs):
    from roman_datamodels import datamodels

    catalog, segmentation = catalogs.make()
    with opened(catalogs.sky) as image_model:
        model = datamodels.ImageSourceCatalogModel.create_minimal({"meta": image_model.meta})
        image_date = str(image_model.meta.file_date)
    written = {key.decode(): text.decode() for key, text in pq.read_schema(catalog).metadata.items()}
    ours = {key: text for key, text in written.items() if key.startswith("roman.")}
    theirs = {key: str(value) for key, value in model.to_flat_dict().items()}
    assert ours.pop("roman.meta.image.file_date") == image_date
    assert ours.pop("roman.meta.image.filename") == "r_cal.asdf"
    changed = {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}
    names = ("calibration_software_name", "calibration_software_version", "filename", "file_date", "model_type")
    assert changed <= {f"roman.meta.{name}" for name in (*names, "ref_file.epsf", "ref_file.apcorr")}
    nested = {name: dict(model.meta[name].items()) for name in ("exposure", "observation", "wcsinfo", "program")}
    assert {name: meta_of(segmentation)[name] for name in nested} == nested


def test_an_intermediate_image_has_the_name_of_the_final_one():
    assert products.final_image_name("r0001_wfi07_f158_flat.asdf") == "r0001_wfi07_f158_cal.asdf"


@pytest.mark.slow
def test_it_runs_as_a_program_and_writes_both_files_or_none(catalogs, tmp_path):
    outputs = tmp_path / "r_cat.parquet", tmp_path / "r_segm.asdf"
    succeed("source_catalog", catalogs.sky, *outputs, *catalogs.references, "--threads", 2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["r_cat.parquet", "r_segm.asdf"]
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "r_cat.parquet", tmp_path / "other" / "r_segm.asdf"
    missing = "--forced_segmentation", "no.asdf"
    assert "no.asdf" in refuse("source_catalog", other[0], catalogs.sky, *other, *catalogs.references, *missing)


def test_invalid_inputs_are_refused(catalogs, tmp_path, capsys):
    outputs = tmp_path / "r_cat.parquet", tmp_path / "r_segm.asdf"
    without_wcs = write_image(catalogs.folder / "no_wcs_flat.asdf", star_image(), META)
    small = write_image(catalogs.folder / "small_flat.asdf", star_image()[:200], META)
    wcs = tree_of_wcs(sky_wcs())
    frame = wcs["steps"][-1]["frame"]
    frame["reference_frame"] = tagged({"frame_attributes": {}}, frame["reference_frame"].tag.replace("icrs", "galactic"))
    galactic = write_sky(catalogs.folder / "galactic_flat.asdf", meta={"wcs": wcs})
    for arguments, expected in (
        ((without_wcs, *outputs, *catalogs.references), "assign_wcs"),
        ((galactic, *outputs, *catalogs.references), "galactic_flat.asdf: the frame world of its WCS (meta.wcs) is galactic"),
        ((catalogs.sky, outputs[0], catalogs.sky, *catalogs.references), "is both the input and the output"),
        ((catalogs.sky, *outputs, *catalogs.references, "--forced_segmentation", str(small)), "segmentation_map"),
    ):
        assert run_step(source_catalog.STEP, source_catalog.run, [str(a) for a in arguments]) == 1
        assert expected in capsys.readouterr().err
        assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        run_step(
            source_catalog.STEP,
            source_catalog.run,
            [str(a) for a in (catalogs.sky, *outputs, *catalogs.references, "--npixels", 0)],
        )
    assert "npixels" in capsys.readouterr().err


@pytest.mark.slow
def test_a_catalog_names_the_packages_that_measured_the_sources(catalogs, tmp_path):
    """In a process of its own, where nothing else has imported them."""
    outputs = tmp_path / "r_cat.parquet", tmp_path / "r_segm.asdf"
    # gwcs and astropy evaluate the tangent plane of this WCS, and are not named: another step may have imported them.
    succeed("source_catalog", catalogs.sky, *outputs, *catalogs.references)
    assert versions_named(outputs[0]) == {"Python", SOFTWARE_NAME, "numpy", "scipy", "numba"}
    succeed("source_catalog", catalogs.sky, *outputs, *catalogs.references, "--deblend", "true")
    assert versions_named(outputs[0]) == {"Python", SOFTWARE_NAME, "numpy", "scipy", "numba", "photutils"}


def versions_named(path):
    """Packages whose versions a catalog names."""
    start = b"source_catalog.versions."
    return {key.removeprefix(start).decode() for key in pq.read_schema(path).metadata if key.startswith(start)}


@pytest.mark.parametrize("option", [("--bkg_boxsize", 1), ("--snr_threshold", 0), ("--kernel_fwhm", 0), ("--npixels", 0)])
def test_contradictory_parameters_are_refused(catalogs, tmp_path, option):
    said = refuse("source_catalog", tmp_path / "c", catalogs.sky, tmp_path / "c", tmp_path / "s", *catalogs.references,
                  *option, status=2)  # fmt: skip
    assert option[0] in said and "takes no value below" in said


def test_a_kernel_as_wide_as_a_galaxy_cluster_is_refused(catalogs, tmp_path):
    options = (*catalogs.references, "--kernel_fwhm", 60)
    said = refuse("source_catalog", tmp_path / "c", catalogs.sky, tmp_path / "c", tmp_path / "s", *options, status=2)
    assert "kernel_fwhm: takes no value above 50, not '60'" in said


@pytest.mark.parametrize("option", [("--npixels", 10**9), ("--kernel_fwhm", 0.1, "--npixels", 5), ("--snr_threshold", 1e9)])
def test_parameters_at_the_end_of_their_range_do_what_they_say(catalogs, plain, option):
    catalog, _ = catalogs.read(None, *option)
    if option[0] == "--kernel_fwhm":  # nothing is smoothed: the stars are found all the same
        np.testing.assert_allclose(catalog["psf_flux"][by_star(catalog)], plain[1]["psf_flux"][by_star(plain[1])], rtol=1e-3)
    else:
        assert not catalog["label"].size


def test_a_background_without_noise_gives_a_warning(monkeypatch):
    flat = np.ones((64, 64), np.float32)
    flat[3, 4] = 2
    said = []
    monkeypatch.setattr(background.log, "warning", lambda text, *values: said.append(text % values))
    Background(flat, np.zeros(flat.shape, bool), 32)
    assert len(said) == 1 and said[0].startswith("The noise of the background is 0 in 4 of 4 boxes")


def test_threads_change_nothing(catalogs, plain):
    catalog, labels = catalogs.read(None, "--threads", 3)
    assert (labels == plain[2]["data"]).all()
    for name, values in catalog.items():
        np.testing.assert_array_equal(values, plain[1][name], err_msg=name)


# ------------------------------------------------------------------------------------------------------------ parameters
def test_boxes_follow_the_background(catalogs):
    gradient = star_image() + np.linspace(0, 1, SIZE, dtype=np.float32)
    sky = write_sky(catalogs.folder / "gradient_flat.asdf", gradient)
    whole, boxes = catalogs.read(sky)[0], catalogs.read(sky, "--bkg_boxsize", 31)[0]
    assert np.abs(boxes["aper_bkg_flux"][by_star(boxes)]).max() < 0.3 * np.abs(whole["aper_bkg_flux"]).max()


def test_a_wider_kernel_smooths_more(catalogs, plain):
    files = catalogs.make(None, "--kernel_fwhm", 4)
    wide, catalog = arrays_of(files[1])["detection_image"], read_catalog(files[0])
    assert wide.max() < plain[2]["detection_image"].max()
    assert (catalog["semimajor"][by_star(catalog)] > plain[1]["semimajor"][by_star(plain[1])]).all()
    assert not np.allclose(catalog["sharpness"], plain[1]["sharpness"])


def test_a_higher_threshold_makes_smaller_segments_and_fewer_sources(catalogs, plain):
    catalog, labels = catalogs.read(None, "--snr_threshold", 60)
    assert 0 < len(catalog["label"]) < len(STARS)
    assert 0 < np.count_nonzero(labels) < np.count_nonzero(plain[2]["data"])


def test_sources_have_at_least_npixels(catalogs, plain):
    areas = np.bincount(plain[2]["data"].ravel())[1:]
    least = int(np.median(areas)) + 1
    catalog, labels = catalogs.read(None, "--npixels", least)
    assert len(catalog["label"]) == np.count_nonzero(areas >= least)
    assert (np.bincount(labels.ravel())[1:] >= least).all()


@pytest.mark.slow
def test_without_psf_fits_their_columns_are_absent(catalogs):
    for options, references in ((("--fit_psf", "false"), None), ((), ("--epsf", "N/A", *catalogs.references[2:]))):
        files = catalogs.make(None, *options, references=references)
        catalog = read_catalog(files[0])
        assert list(catalog) == columns.column_names(fit_psf=False) and len(catalog["label"]) == len(STARS)
        validate(files[0])


def test_deblending_separates_neighbors(catalogs):
    pytest.importorskip("skimage")
    pair = np.array([[100.2, 100.4, 3000], [108.2, 100.1, 2500]])
    sky = write_sky(catalogs.folder / "pair_flat.asdf", star_image(pair))
    assert len(catalogs.read(sky)[0]["label"]) == 1
    catalog, labels = catalogs.read(sky, "--deblend", "true")
    found = by_star(catalog, pair)
    assert len(catalog["label"]) == 2 and labels.max() == 2
    assert np.abs(catalog["psf_flux"][found] / (pair[:, 2] * UNIT) - 1).max() < 0.01


def test_given_sources_are_measured_where_they_were(catalogs, plain):
    (_, segmentation), reference, arrays = plain
    half = write_sky(catalogs.folder / "half_flat.asdf", star_image(STARS * (1, 1, 0.5)), dq=np.zeros((SIZE, SIZE), np.uint32))
    files = catalogs.make(half, "--forced_segmentation", segmentation)
    catalog = read_catalog(files[0])
    metadata = validate(files[0], "ForcedImageSourceCatalogModel")
    assert metadata["roman.meta.image.forced_segmentation"] == str(segmentation)
    assert list(catalog) == columns.column_names(fit_psf=True, forced=True)
    assert (catalog["label"] == reference["label"]).all()
    for name in ("x_centroid", "semimajor", "orientation_pix", "kron_radius", "bbox_xmin"):
        np.testing.assert_allclose(catalog[name], reference[name], rtol=1e-5)
    for name in ("psf_flux", "segment_flux", "kron_flux", "aper04_flux"):
        np.testing.assert_allclose(catalog[f"forced_{name}"], reference[name] / 2, rtol=0.05)
    assert not np.allclose(catalog["forced_x_centroid"], catalog["x_centroid"], atol=1e-6)
    np.testing.assert_allclose(catalog["forced_x_centroid"], catalog["x_centroid"], atol=0.2)
    forced = arrays_of(files[1])
    assert (forced["data"] == arrays["data"]).all() and (forced["detection_image"] == arrays["detection_image"]).all()


def footprint(north=0.0):
    """A footprint, displaced to the north by some arcsec."""
    south, end = (66.0 + (north + side) / 3600 for side in (0, 27))
    return f"POLYGON ICRS  270.0 {south:.9f} 270.01 {south:.9f} 270.01 {end:.9f} 270.0 {end:.9f}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"wcsinfo.s_region": footprint()}, ""),
        ({"wcsinfo.s_region": footprint(0.08)}, ""),
        ({"wcsinfo.s_region": footprint(3.9)}, "lies 3.90 arcsec (35.5 pixels) from the image"),
        ({"wcsinfo.s_region": footprint(-12)}, "refused: lies 12.00 arcsec (109.1 pixels) from the image"),
        ({"wcsinfo.s_region": "?"}, "can't be compared"),
        ({"wcsinfo.s_region": footprint(), "instrument.detector": "WFI08"}, "refused: is of WFI07, and the image of WFI08"),
    ],
)
def test_a_map_of_another_field_gives_a_warning_or_is_refused(catalogs, tmp_path, changed, message):
    unknown = {"wcsinfo.ra_ref": -999999.0}  # the pointing would count before the footprint
    here = write_sky(tmp_path / "here_flat.asdf", meta=unknown | {"wcsinfo.s_region": footprint()})
    _, segmentation = catalogs.make(here)
    there = write_sky(tmp_path / "there_flat.asdf", meta=unknown | changed)
    if message.startswith("refused"):
        outputs = tmp_path / "out/r_cat.parquet", tmp_path / "out/r_segm.asdf"
        (tmp_path / "out").mkdir()
        options = (*catalogs.references, "--forced_segmentation", segmentation)
        said = refuse("source_catalog", outputs[0], there, *outputs, *options)
        assert f"{segmentation}: this forced_segmentation {message.removeprefix('refused: ')}" in said
    else:
        catalogs.make(there, "--forced_segmentation", segmentation)
        warnings = [line for line in catalogs.said.splitlines() if "WARNING" in line and "dust" not in line]
        assert bool(warnings) == bool(message) and message in catalogs.said


def test_given_sources_that_are_masked_are_left_out(catalogs, plain):
    (_, segmentation), _, arrays = plain
    dq = np.where(arrays["data"] == 3, flags.DO_NOT_USE, 0).astype(np.uint32)
    sky = write_sky(catalogs.folder / "hidden_flat.asdf", dq=dq)
    catalog, labels = catalogs.read(sky, "--forced_segmentation", segmentation)
    assert 3 not in catalog["label"] and 3 not in labels and len(catalog["label"]) == len(STARS) - 1
    hidden = write_sky(
        catalogs.folder / "all_hidden_flat.asdf", dq=np.where(arrays["data"], flags.DO_NOT_USE, 0).astype(np.uint32)
    )
    files = catalogs.make(hidden, "--forced_segmentation", segmentation)
    assert not read_catalog(files[0])["label"].size
    validate(files[0], "ForcedImageSourceCatalogModel")


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        ("instrument.detector", "WFI02", "this forced_segmentation is of WFI07, and the image of WFI02"),
        ("wcsinfo.dec_ref", 66 + 3.9 / 3600, r"lies 3.90 arcsec \(35.5 pixels\) from the image .* beside the sources"),
        ("wcsinfo.ra_ref", float(270 - 3.9 / 3600 / np.cos(np.radians(66))), "lies 3.90 arcsec"),
        ("wcsinfo.roll_ref", 66.0, "lies 2.02 arcsec"),
    ],
)
def test_a_map_of_another_field_is_refused(catalogs, plain, tmp_path, capsys, entry, value, says):
    (_, segmentation), _, _ = plain
    other = write_sky(catalogs.folder / "other_flat.asdf", meta={entry: value})
    outputs = tmp_path / "r_cat.parquet", tmp_path / "r_segm.asdf"
    arguments = (other, *outputs, *catalogs.references, "--forced_segmentation", segmentation)
    assert run_step(source_catalog.STEP, source_catalog.run, [str(a) for a in arguments]) == 1
    assert re.search(says, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        ("wcsinfo.dec_ref", 66 + 0.3 / 3600, "lies 0.30 arcsec (2.7 pixels) from the image"),
        ("wcsinfo.dec_ref", 66 + 0.05 / 3600, None),
    ],
)
def test_a_map_of_nearly_the_same_field_is_taken(catalogs, plain, entry, value, says):
    (_, segmentation), _, _ = plain
    other = write_sky(catalogs.folder / "near_flat.asdf", meta={entry: value})
    catalogs.make(other, "--forced_segmentation", segmentation)
    warnings = [line for line in catalogs.said.splitlines() if "WARNING" in line and "segm.asdf" in line]
    assert bool(warnings) == (says is not None) and all(says in line for line in warnings)


# ----------------------------------------------------------------------------------------------------- nothing to measure
@pytest.mark.slow
def test_an_image_without_sources_has_an_empty_catalog(catalogs):
    sky = write_sky(catalogs.folder / "blank_flat.asdf", image(SIZE, SIZE), err=0.3)
    check_empty(catalogs.make(sky), "COMPLETE")


@pytest.mark.parametrize("how", ["flagged", "not finite", "no error"])
@pytest.mark.slow
def test_a_masked_image_has_an_empty_catalog(catalogs, how):
    arrays = {"dq": np.full((SIZE, SIZE), flags.DO_NOT_USE, np.uint32)} if how == "flagged" else {}
    data = np.full((SIZE, SIZE), np.nan, np.float32) if how == "not finite" else None
    sky = write_sky(catalogs.folder / "masked_flat.asdf", data, err=0 if how == "no error" else NOISE, **arrays)
    check_empty(catalogs.make(sky), "SKIPPED")
    assert "masked" in catalogs.said


@pytest.mark.slow
def test_a_fully_saturated_exposure_has_an_empty_catalog(catalogs, tmp_path):
    skipped = {"cal_step.ramp_fit": "SKIPPED", "cal_step.source_catalog": "SKIPPED"}
    sky = write_image(tmp_path / "r_flat.asdf", np.zeros((SIZE, SIZE)), skipped)
    outputs = tmp_path / "r_cat.parquet", tmp_path / "r_segm.asdf"
    succeed("source_catalog", sky, *outputs, *catalogs.references)
    check_empty(outputs, "SKIPPED")


def check_empty(files, status):
    metadata = validate(files[0])
    assert metadata["source_catalog.status"] == status
    catalog = read_catalog(files[0])
    assert list(catalog) == columns.column_names(fit_psf=True) and not len(catalog["label"])
    with opened(files[1]) as model:
        assert model.data.shape == (SIZE, SIZE) and not np.any(model.data)


def test_a_single_source_is_a_catalog(catalogs):
    sky = write_sky(catalogs.folder / "one_flat.asdf", star_image(STARS[:1]))
    catalog, _ = catalogs.read(sky)
    assert len(catalog["label"]) == 1 and catalog["nn_label"][0] == -1 and np.isnan(catalog["nn_distance"][0])


# ------------------------------------------------------------------------------------------------------------------ masks
def test_pixels_not_to_be_used_are_in_no_source(catalogs, plain):
    dq = np.zeros((SIZE, SIZE), np.uint32)
    dq[30:70, 20:60], dq[35:45, 80:100] = flags.DO_NOT_USE, flags.JUMP_DET
    data = star_image()
    data[30:70, 20:60] = 1e6
    catalog, labels = catalogs.read(write_sky(catalogs.folder / "bad_flat.asdf", data, dq=dq))
    assert len(catalog["label"]) == len(STARS) - 1
    assert not labels[30:70, 20:60].any() and labels[35:45, 80:100].any()
    kept = by_star(catalog, STARS[1:])
    np.testing.assert_allclose(catalog["psf_flux"][kept], plain[1]["psf_flux"][by_star(plain[1])[1:]], rtol=1e-3)


def test_a_flagged_centroid_is_flagged(catalogs, plain):
    star = 8  # near the center of its pixel
    x, y = (int(round(value)) for value in STARS[star, :2])
    dq = np.zeros((SIZE, SIZE), np.uint32)
    dq[y, x] = flags.DO_NOT_USE | flags.SATURATED
    catalog, _ = catalogs.read(write_sky(catalogs.folder / "core_flat.asdf", dq=dq))
    expected = np.zeros(len(STARS), int)
    expected[star] = flags.DO_NOT_USE | flags.OTHER_BAD_PIXEL | flags.UNRELIABLE_ERROR
    found = by_star(catalog)
    assert (catalog["warning_flags"][found] == expected).all()
    assert catalog["psf_flags"][found[star]] == psf_photometry.FLAGS["n_pixels_fit_partial"]
    assert catalog["psf_flux"][found[star]] == pytest.approx(STARS[star, 2] * UNIT, rel=0.01)
    masked, unreliable = np.array([[False, True, True, False], [False, False, True, False]])
    found = photometry.flag_sources(dq, np.array([np.nan, -3, 9, 9]), np.array([4.0, 4, 9, 9]), masked, unreliable)
    bits = flags.DO_NOT_USE, flags.DO_NOT_USE | flags.OTHER_BAD_PIXEL, flags.OTHER_BAD_PIXEL | flags.UNRELIABLE_ERROR, 0
    assert found.tolist() == list(bits)


@pytest.mark.parametrize(("half", "lost"), [(0, 0.01), (1, 0.1), (2, 0.3)])
@pytest.mark.parametrize("how", ["flagged", "not finite"])
def test_stars_with_masked_cores_are_flagged_and_kept_for_the_alignment(catalogs, plain, half, lost, how):
    """Cores of 1 to 25 masked pixels beside the centroid, which may itself lie on a good one: the flux is too low."""
    dq, data = np.zeros((SIZE, SIZE), np.uint32), star_image()
    hidden = STARS[:, 2] >= 150  # of fainter ones too little is left
    for x, y, _ in STARS[hidden]:
        row, column = int(round(y)), int(round(x)) + half + 1  # the pixel of the star is not masked, or at the edge of what is
        core = np.s_[row - half : row + half + 1, column - half : column + half + 1]
        if how == "flagged":
            dq[core] = flags.DO_NOT_USE
        else:
            data[core] = np.nan
    catalog, _ = catalogs.read(write_sky(catalogs.folder / f"cores_{half}_{how[0]}_flat.asdf", data, dq=dq))
    nearest = np.hypot(*(np.subtract.outer(STARS[:, i], catalog[n]) for i, n in enumerate(("x_centroid", "y_centroid"))))
    assert (nearest.min(axis=1) < 4).all()
    found = nearest.argmin(axis=1)
    for flag in (flags.OTHER_BAD_PIXEL, flags.UNRELIABLE_ERROR):
        assert (((catalog["warning_flags"][found] & flag) != 0) == hidden).all()
    kron, whole = catalog["kron_flux"][found], plain[1]["kron_flux"][by_star(plain[1])]
    assert (np.abs(kron[~hidden] / whole[~hidden] - 1) < 1e-3).all() and (1 - kron[hidden] / whole[hidden]).max() > lost
    # tweakreg leaves out what is DO_NOT_USE alone: a centroid on a bad pixel.
    column, row = (np.round(catalog[name][found]).astype(int) for name in ("x_centroid", "y_centroid"))
    bad = dq[row, column] & flags.DO_NOT_USE
    assert ((catalog["warning_flags"][found] & flags.DO_NOT_USE) == bad).all()


def test_missing_light_is_compared_with_the_error_of_the_flux():
    y, x = np.indices((41, 41))
    light = (100 * np.exp(-0.5 * ((x - 20) ** 2 + (y - 20) ** 2) / 2**2)).astype(np.float32)
    labels, circle = (light > 1).astype(np.int32), np.array([[20.0], [20.0], [9.0], [9.0], [0.0]])
    mask, label, err = np.zeros(light.shape, bool), np.array([1], np.int32), np.ones_like(light)

    def flags_for(row, column, flux_err, hole=False):
        mask[:] = False
        mask[row, column] = True
        smooth = np.where(mask, np.float32(np.nan), light) if hole else light
        (flux, _, seen, lost), masked = kernels.sum_ellipses(light, err, smooth, mask, labels, label, circle)
        return [bool(masked[0]), bool(masked[0] and segments.light_is_missing(seen, lost, flux, np.array([flux_err]))[0])]

    assert flags_for(20, 20, 1e3) == [True, True]  # 4 % of the light
    assert flags_for(20, 26, 10.0) == [True, False]  # 1.1 of 2513
    assert flags_for(20, 26, 1.0) == [True, True]
    assert flags_for(20, 26, 10.0, hole=True) == [True, True]  # nobody knows
    assert flags_for(2, 2, 1e-3) == [False, False]
    labels[20, 26] = 2  # another source's pixel is no light of this one
    assert flags_for(20, 26, 1.0) == [False, False]


def test_a_masked_pixel_far_from_all_sources_flags_none(catalogs):
    dq = np.zeros((SIZE, SIZE), np.uint32)
    dq[90:95, 100:105] = flags.DO_NOT_USE
    assert not catalogs.read(write_sky(catalogs.folder / "far_flat.asdf", dq=dq))[0]["warning_flags"].any()


def test_touching_counts_diagonal_neighbors_and_the_segment_itself():
    labels = np.zeros((8, 9), np.int32)
    labels[2, 2], labels[5:7, 5], labels[0, 8] = 1, 2, 3
    mask = np.zeros(labels.shape, bool)
    mask[3, 3], mask[7, 8] = True, True
    assert segments.touches_masked(mask, labels).tolist() == [True, True, False, False]
    mask[6, 5] = True
    assert segments.touches_masked(mask, labels).tolist() == [True, True, True, False]


# ---------------------------------------------------------------------------------------------------- no place on the sky
def test_without_a_pointing_positions_on_the_sky_are_nan_and_the_rest_is_there(catalogs, plain):
    sky = write_sky(catalogs.folder / "nowhere_flat.asdf", meta={"wcs": None, "cal_step.assign_wcs": "SKIPPED"})
    files = catalogs.make(sky)
    catalog = read_catalog(files[0])
    validate(files[0])
    assert catalogs.said.count("has no WCS") == 1 and "the pixel scale is taken as 0.1091 arcsec" in catalogs.said
    on_sky = [name for name in catalog if name.startswith(("ra", "dec")) and not name.endswith("_err")]
    assert {"ra", "dec", "ra_centroid", "dec_centroid_win", "ra_psf"} <= set(on_sky)
    for name in (*on_sky, "orientation_sky"):
        assert np.isnan(catalog[name]).all(), name
    for name in ("x_psf", "psf_flux", "kron_flux", "segment_flux", "semimajor", "fwhm", "warning_flags", "is_extended"):
        np.testing.assert_array_equal(catalog[name], plain[1][name])
    assert np.isfinite(catalog["aper04_flux"]).all() and np.isfinite(catalog["nn_distance"]).all()


def test_without_photometry_fluxes_are_nan_and_the_rest_is_there(catalogs, plain):
    sky = write_sky(
        catalogs.folder / "raw_flat.asdf", meta={"photometry.conversion_megajanskys": None, "photometry.pixel_area": None}
    )
    catalog, _ = catalogs.read(sky)
    assert "meta.photometry.conversion_megajanskys is missing" in catalogs.said
    assert all(np.isnan(catalog[name]).all() for name in ("psf_flux", "psf_flux_err", "kron_flux", "aper04_flux", "kron_abmag"))
    np.testing.assert_allclose(catalog["x_psf"], plain[1]["x_psf"], atol=1e-3)
    # The pixel's area is then that of the WCS.
    np.testing.assert_allclose(catalog["semimajor"] / plain[1]["semimajor"], SCALE / (np.degrees(AREA**0.5) * 3600), rtol=1e-4)


# -------------------------------------------------------------------------------------------- in place of other packages
STANDING_FOR_OTHERS = (
    *("background", "smoothing", "detection", "segments", "circles", "daofind", "local_background", "psf_photometry"),
)


@pytest.mark.parametrize("name", STANDING_FOR_OTHERS)
def test_modules_in_place_of_other_packages_name_the_installed_version_and_their_tests(name):
    text = importlib.import_module(f"rampflow.catalog.{name}").__doc__
    package, version = re.search(r"Stands for\n    (\w+) (\d[\d.]*),", text).groups()
    assert version == importlib.metadata.version(package), f"measure {name} anew with {package}, and say so"
    tests = re.search(r"Tests\n    (.*)", text)[1].split(", ")
    assert all(callable(globals()[test]) for test in tests)


# -------------------------------------------------------------------------------------------------------- detection parts
@pytest.mark.parametrize("count", [1, 2, 3, 1000, 1001])
def test_clipping_agrees_with_astropy(count):
    from astropy.stats import SigmaClip

    rng = np.random.default_rng(count)
    values = np.concatenate([rng.normal(5, 2, count), rng.exponential(30, count // 5)]).astype(np.float32)
    kept = SigmaClip(3.0, stdfunc="mad_std")(values, masked=False)
    median, std, number = clipped_statistics(values)
    assert number == kept.size
    assert median == pytest.approx(np.median(kept), rel=1e-6) and std == pytest.approx(
        kept.std(dtype=float), rel=1e-6, abs=1e-6
    )
    assert clipped_statistics(values[:0])[2] == 0


@pytest.mark.parametrize("box", [40, 62, 1000])
def test_the_background_agrees_with_photutils(box):
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, MedianBackground

    sky = star_image() + np.add.outer(np.linspace(0, 2, SIZE) ** 2, np.linspace(0, 1, SIZE)).astype(np.float32)
    mask = np.zeros(sky.shape, bool)
    if box < SIZE:
        mask[100:150, 70:130] = True  # a box with too few good pixels
    clip = SigmaClip(3.0, stdfunc="mad_std")
    expected = Background2D(sky, box, mask=mask, sigma_clip=clip, bkg_estimator=MedianBackground())
    found = Background(sky, mask, box)
    np.testing.assert_allclose(found.level(0, SIZE), expected.background, rtol=1e-4)
    np.testing.assert_allclose(found.rms(0, SIZE), expected.background_rms, rtol=1e-4)
    np.testing.assert_array_equal(found.level(30, 50), found.level(0, SIZE)[30:50])


def test_the_background_of_a_few_good_pixels_is_their_own():
    mask = np.ones((60, 60), bool)
    mask[:10, :10] = False
    found = Background(np.where(mask, 1e9, 7.0).astype(np.float32), mask, 20)
    assert (found.level(0, 60) == 7).all() and (found.rms(0, 60) == 0).all()


@pytest.mark.parametrize("fwhm", [1.0, 2.0, 3.7])
def test_smoothing_agrees_with_astropy(fwhm):
    import math

    from astropy.convolution import convolve
    from photutils.segmentation import make_2dgaussian_kernel

    sky = star_image()[:90, :70] - np.float32(LEVEL)
    mask = np.random.default_rng(2).random(sky.shape) < 0.1
    mask[40:60, 30:50] = mask[:2, :5] = True
    size = math.ceil(3 * fwhm)
    kernel = make_2dgaussian_kernel(fwhm, size + 1 - size % 2)
    expected = convolve(np.where(mask, np.nan, sky), kernel)
    for threads in (1, 2):
        found = smoothing.smooth(np.where(mask, np.nan, sky), mask, fwhm, threads=threads)
        assert (np.isnan(found) == np.isnan(expected)).all() and np.isnan(found[50, 40])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fwhm", [0.1, 1.0, 2.0, 3.7, 50.0])
def test_the_profile_of_the_kernel_agrees_with_photutils(fwhm):
    import math

    from photutils.segmentation import make_2dgaussian_kernel

    size = math.ceil(3 * fwhm)
    kernel = make_2dgaussian_kernel(fwhm, size + 1 - size % 2).array
    profile = smoothing.gaussian_profile(fwhm)
    np.testing.assert_allclose(np.outer(profile, profile), kernel, rtol=1e-12, atol=1e-16)


# ----------------------------------------------------------------------------------------------------- photometry parts
def test_ring_clipping_agrees_with_astropy():
    from astropy.stats import SigmaClip
    from photutils.aperture import CircularAnnulus

    sky = star_image()
    sky[100:103, 100:110] = np.nan
    x, y = np.array([100.3, 5.2, 240.9, -1000.0]), np.array([90.8, 7.7, 130.1, -1000.0])
    median, std, count = kernels.clip_rings(sky, x, y, 21.8, 25.4)
    for i in range(3):
        values = CircularAnnulus((x[i], y[i]), 21.8, 25.4).to_mask(method="center").get_values(sky)
        kept = SigmaClip(3.0)(values[np.isfinite(values)].astype(float), masked=False)
        assert count[i] == kept.size
        assert (median[i], std[i]) == pytest.approx((np.median(kept), kept.std()), rel=1e-9)
    assert count[3] == 0 and np.isnan(median[3])


def crowded_field(seed):
    """Blended, elongated, faint and thin sources, some at the edges, some masked in part; labels with gaps."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:150, :170]
    sky = np.zeros(rows.shape)
    for x, y, flux, wide, narrow, angle in zip(
        rng.uniform(-1, 170, 60), rng.uniform(-1, 150, 60), 10 ** rng.uniform(0.3, 3, 60), rng.uniform(1, 5, 60),
        rng.uniform(0.7, 2, 60), rng.uniform(0, np.pi, 60), strict=True,
    ):  # fmt: skip
        along, across = (
            (cols - x) * np.cos(angle) + (rows - y) * np.sin(angle),
            (rows - y) * np.cos(angle) - (cols - x) * np.sin(angle),
        )
        sky += flux * np.exp(-0.5 * ((along / wide) ** 2 + (across / narrow) ** 2)) / (2 * np.pi * wide * narrow)
    err = rng.uniform(0.05, 0.15, sky.shape).astype(np.float32)
    image = (sky + rng.normal(0, 0.1, sky.shape)).astype(np.float32)
    mask = rng.random(sky.shape) < 0.02
    image[rng.random(sky.shape) < 0.005] = np.nan
    mask |= np.isnan(image)
    background = SimpleNamespace(rms=lambda start, stop: np.full((stop - start, sky.shape[1]), 0.1))
    smooth = smoothing.smooth(image, mask, 2.0)
    labels = detection.find_segments(smooth, background, mask, snr_threshold=2.0, npixels=5, deblend=False)
    labels[rows == 75] = np.where(mask[75], 0, 900)  # thin, through everything
    labels[20:24, 30:33] = 950  # of noise, or in the middle of another
    smooth[20:24, 30:33] = -1
    labels[100:103, 100:103] = 951
    image[98:105, 98:105] = -5
    labels[mask & (rng.random(sky.shape) < 0.5)] = 0
    return image, err, mask, labels, smooth


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_segments_are_measured_from_their_own_good_pixels(seed):
    image, err, mask, labels, smooth = crowded_field(seed)
    found = segments.segment_properties(image, err, mask, labels, smooth)
    rows, columns = np.indices(labels.shape)
    assert found["label"].tolist() == sorted(set(labels.ravel().tolist()) - {0}) and len(found["label"]) > 20
    for i, label in enumerate(found["label"]):
        segment = labels == label
        y, x = rows[segment], columns[segment]
        assert found["boxes"][i].tolist() == [y.min(), y.max() + 1, x.min(), x.max() + 1]
        good = segment & ~mask
        np.testing.assert_allclose(found["area"][i], good.sum() or np.nan)
        np.testing.assert_allclose(found["flux"][i], image[good].sum(dtype=float) if good.any() else np.nan, rtol=2e-5)
        variance = (err[good].astype(float) ** 2).sum()
        np.testing.assert_allclose(found["flux_err"][i], np.sqrt(variance) if good.any() else np.nan, rtol=2e-6)
        weight = np.where(good, smooth, 0).clip(0).astype(float)
        centroid = [(weight * axis).sum() / weight.sum() if weight.any() else np.nan for axis in (columns, rows)]
        np.testing.assert_allclose([found["x"][i], found["y"][i]], centroid, rtol=1e-9)
    # Kron apertures reach beyond the segments, and leave out other sources and masked pixels.
    measured = np.isfinite(found["kron_flux"])
    assert measured.sum() > 15
    darker = np.where(mask, 1e9, image).astype(np.float32)
    again = segments.segment_properties(darker, err, mask, labels, smooth)
    np.testing.assert_array_equal(again["kron_flux"], found["kron_flux"])


def expected_of_photutils(image, err, mask, labels, smooth):
    """Each quantity of `segment_properties` by photutils, its flags for missing light by the apertures of photutils."""
    from photutils.segmentation import SegmentationImage, SourceCatalog

    with warnings.catch_warnings():  # of sources without light
        warnings.simplefilter("ignore", RuntimeWarning)
        theirs = SourceCatalog(
            image, SegmentationImage(labels), convolved_data=smooth, error=err, mask=mask,
            aperture_mask_method=segments.NEIGHBORS, kron_params=segments.KRON_PARAMETERS,
        )  # fmt: skip
        expected = {
            "x": theirs.x_centroid, "y": theirs.y_centroid, "area": theirs.area.value, "flux": theirs.segment_flux,
            "semimajor": theirs.semimajor_axis.value, "semiminor": theirs.semiminor_axis.value, "cxx": theirs.ellipse_cxx.value,
            "cxy": theirs.ellipse_cxy.value, "cyy": theirs.ellipse_cyy.value, "angle": theirs.orientation.to_value("rad"),
            "flux_err": theirs.segment_flux_err, "kron_radius": theirs.kron_radius.value, "kron_flux": theirs.kron_flux,
            "kron_flux_err": theirs.kron_flux_err, "half_light_radius": theirs.flux_radius(0.5).value,
            "x_window": theirs.x_centroid_win, "y_window": theirs.y_centroid_win, "label": theirs.labels,
            "boxes": np.transpose([theirs.bbox_ymin, theirs.bbox_ymax + 1, theirs.bbox_xmin, theirs.bbox_xmax + 1]),
        }  # fmt: skip
    masked, unreliable = np.zeros((2, len(theirs.labels)), bool)
    for i, (label, aperture) in enumerate(zip(theirs.labels, theirs.kron_aperture, strict=True)):
        if aperture is None:
            continue
        weights = aperture.to_mask(method="exact")
        there, here = weights.get_overlap_slices(mask.shape)
        own = (weights.data[here] > 0) & np.isin(labels[there], (0, label))
        lost, light = mask[there][own], smooth[there][own] * weights.data[here][own]
        masked[i] = lost.any()
        share = light[lost].sum() / light[~lost].sum() if light[~lost].sum() > 0 else np.nan
        allowed = share <= segments.MISSING_LIGHT and share * theirs.kron_flux[i] <= theirs.kron_flux_err[i]
        unreliable[i] = masked[i] and not allowed
    return expected | {"masked": masked | segments.touches_masked(mask, labels)[theirs.labels], "unreliable": unreliable}


def check_against_photutils(*arrays):
    """Compare all quantities; return those of `segment_properties`."""
    ours, expected = segments.segment_properties(*arrays), expected_of_photutils(*arrays)
    assert ours.keys() == expected.keys()
    for name in ("label", "boxes", "masked", "unreliable"):
        np.testing.assert_array_equal(ours[name], expected[name], err_msg=name)
    for name in ours.keys() - {"flux_err"}:
        np.testing.assert_allclose(ours[name], expected[name], rtol=1e-9, atol=1e-9, err_msg=name)
    # Of a segment without a good pixel, photutils makes a value of double precision, and so of all others.
    np.testing.assert_allclose(ours["flux_err"], expected["flux_err"], rtol=3e-7)
    return ours


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_segments_agree_with_photutils(seed):
    """Blends, edges, masked pixels, NaN, negative light, segments without light, without a good pixel and of one pixel."""
    image, err, mask, labels, smooth = crowded_field(seed)
    for label, (row, column) in enumerate([(0, 0), (149, 169), (37, 60), (120, 11)], 960):
        labels[row, column] = label
    mask[37, 60] = True
    labels[130:133, 140:143], smooth[130:133, 140:143], image[131, 141] = 970, np.nan, -50
    found = check_against_photutils(image, err, mask, labels, smooth)
    assert len(found["label"]) > 24 and np.isfinite(found["kron_flux"]).sum() > 15
    assert {False, True} == set(found["masked"].tolist()) == set(found["unreliable"].tolist())
    assert np.isnan(found["area"]).any() and np.isnan(found["x"]).sum() >= 3 and np.isnan(found["half_light_radius"]).any()
    assert (found["area"] == 1).any() and (found["boxes"][:, 0] == 0).any() and (found["kron_flux"] < 0).any()
    moved = (found["x_window"] != found["x"]) & np.isfinite(found["x"])
    assert moved.any() and not moved[np.isfinite(found["x"])].all()  # some windows left their source


def test_straight_lines_of_pixels_have_a_shape():
    """Their covariance is singular, and its determinant may be rounded below zero."""
    labels = np.zeros((200, 200), np.int32)
    corners = labels[::4, ::4]
    corners[:] = np.arange(1, corners.size + 1).reshape(corners.shape)
    labels[1::4, 3::4] = corners
    labels[::4, 2::4], labels[::4, ::4] = corners, 0
    image = np.random.default_rng(3).uniform(1, 2, labels.shape).astype(np.float32)
    for flipped, angle in ((np.s_[:, :], np.pi / 4), (np.s_[:, ::-1], 7 * np.pi / 4)):
        arrays = (image, np.ones_like(image), np.zeros(labels.shape, bool), labels, image)
        found = segments.segment_properties(*(np.ascontiguousarray(array[flipped]) for array in arrays))
        first, second = image[::4, 2::4].astype(float), image[1::4, 3::4].astype(float)
        variance = (first * second / (first + second) ** 2).ravel()  # along either axis, and so is the covariance
        order = found["label"] - 1
        np.testing.assert_allclose(found["semimajor"], np.sqrt(2 * variance[order] + 1 / 12), rtol=1e-9)
        np.testing.assert_allclose(found["semiminor"], np.sqrt(1 / 12), rtol=1e-6)
        np.testing.assert_allclose(found["angle"], angle, rtol=1e-9)
        assert np.isfinite(found["kron_flux"]).all()


def test_segments_agree_with_photutils_bit_by_bit_in_the_precision_of_the_catalog(plain):
    (catalog, segmentation), found, arrays = plain
    sky, err = star_image(), np.full((SIZE, SIZE), NOISE, np.float32)
    mask = np.zeros(sky.shape, bool)
    sky -= Background(sky, mask, 1000).level(0, SIZE).astype(np.float32)
    labels, smooth = arrays["data"].astype(np.int32), arrays["detection_image"]
    expected = expected_of_photutils(sky, err, mask, labels, smooth)
    ours = segments.segment_properties(sky, err, mask, labels, smooth)
    assert ours["flux_err"].dtype == expected["flux_err"].dtype == np.float32  # as in romancal
    np.testing.assert_array_equal(ours["flux_err"], expected["flux_err"])
    np.testing.assert_array_equal(ours["flux"], expected["flux"])


@pytest.mark.parametrize("length", [40, 400])
def test_sources_as_large_as_the_image_agree_with_photutils(length):
    """It measures nothing in a box that is larger than the image and a million pixels."""
    rows, columns = np.mgrid[:500, :500] - 250
    along, across = rows + 0.9 * columns, columns - 0.9 * rows
    image = (50 * np.exp(-0.5 * ((along / length) ** 2 + (across / 15) ** 2))).astype(np.float32)
    labels, mask = (image > 5).astype(np.int32), np.zeros(image.shape, bool)
    labels[10:14, 10:19] = 2
    mask[255, 255] = True
    err = np.ones_like(image)
    found = check_against_photutils(image, err, mask, labels, image)
    assert np.isfinite(found["kron_flux"][0]) == np.isfinite(found["half_light_radius"][0]) == (length == 40)
    ellipses = np.array([[250.0, 250], [250, 250], [700, 300], [700, 300], [0, 0]])
    (flux, _, seen, _), _ = kernels.sum_ellipses(image, err, image, mask, labels, np.array([1, 1], np.int32), ellipses)
    assert np.isnan(flux).tolist() == [True, False] and np.isfinite(seen).all()


def test_a_map_of_a_single_source_is_measured():
    sky = star_image(STARS[:1]) - np.float32(LEVEL)
    labels = np.zeros(sky.shape, np.int32)
    labels[45:56, 35:46] = 7
    found = check_against_photutils(sky, np.full_like(sky, NOISE), np.zeros(sky.shape, bool), labels, sky)
    assert found["label"].tolist() == [7] and found["label"].dtype == np.int32


APERTURES = [(3.0, 3.0, 0.0), (0.3, 0.3, 0.0), (7.5, 1.2, 0.7), (4.0, 0.2, 2.5), (12.0, 11.0, 5.0), (0.01, 0.01, 0.0)]


def places_and_image():
    """Positions in, at and beyond the edges of an image, on corners and centers of pixels; the image, its error, a mask."""
    rng = np.random.default_rng(5)
    image, err = rng.normal(1, 1, (2, 40, 50)).astype(np.float32)
    x, y = rng.uniform(-6, 56, 200), rng.uniform(-6, 46, 200)
    x[:5], y[:5] = [10, 10.5, 10.5, -500, 49.5], [10, 10.5, 10, -500, 39.5]
    image[10:13, 20:23] = np.nan
    return x, y, image, np.abs(err), rng.random(image.shape) < 0.1


@pytest.mark.parametrize(("major", "minor", "angle"), APERTURES)
def test_ellipses_agree_with_photutils(major, minor, angle):
    from photutils.aperture import EllipticalAperture

    x, y, image, err, mask = places_and_image()
    mask |= np.isnan(image)
    labels, label = np.zeros(image.shape, np.int32), np.ones(x.size, np.int32)
    apertures = EllipticalAperture(np.transpose([x, y]), major, minor, theta=angle)
    expected = np.array(apertures.do_photometry(image, error=err, mask=mask))
    ellipses = np.array([x, y, *(np.full(x.size, value) for value in (major, minor, angle))])
    sums, masked = kernels.sum_ellipses(image, err, image, mask, labels, label, ellipses)
    good = np.isfinite(sums[0])
    np.testing.assert_allclose(sums[:2, good], expected[:, good], rtol=1e-9, atol=1e-9)
    assert np.nan_to_num(expected[:, ~good]).max() == 0  # photutils gives 0 where all pixels are masked
    seen, lost = (apertures.do_photometry(np.nan_to_num(image) * part)[0] for part in (~mask, mask))
    inside = np.isfinite(seen)
    np.testing.assert_allclose(sums[2, inside], seen[inside], rtol=1e-9, atol=1e-9)
    whole = inside & np.isfinite(sums[3])  # no NaN in it
    np.testing.assert_allclose(sums[3, whole], lost[whole], rtol=1e-9, atol=1e-9)
    touched = np.zeros(x.size, bool)
    for i, weights in enumerate(apertures.to_mask(method="exact")):
        there, here = weights.get_overlap_slices(mask.shape)
        touched[i] = there is not None and np.any(mask[there] & (weights.data[here] > 0))
    np.testing.assert_array_equal(masked > 0, touched)


@pytest.mark.parametrize("radius", [0.01, 0.3, 0.91, 3.0, 5, 14.5])
def test_circles_agree_with_photutils(radius):
    x, y, image, err, mask = places_and_image()
    kind, positions = CircularAperture(np.transpose([x, y]), radius), np.transpose([x, y])
    # Without a mask, a NaN counts.
    found = circles.sum_in_circles(image, err, positions, radius)
    np.testing.assert_allclose(found, kind.do_photometry(image, error=err), rtol=1e-9, atol=1e-9)
    assert np.isnan(found[0]).any() and np.isfinite(found[0]).any()
    mask |= np.isnan(image)
    found = circles.sum_in_circles(image, err, positions, radius, mask)
    np.testing.assert_allclose(found, kind.do_photometry(image, error=err, mask=mask), rtol=1e-9, atol=1e-9)
    alone = circles.sum_in_circles(image, err, positions[5:6], radius, mask)
    np.testing.assert_array_equal(alone, np.array(found)[:, 5:6])


@pytest.mark.parametrize("npixels", [1, 2, 5, 30])
def test_detection_agrees_with_photutils(npixels):
    from photutils.segmentation import detect_sources

    rng = np.random.default_rng(7)
    image = rng.normal(0, 1, (600, 300)).astype(np.float32)
    image[50:60, 40:70] = np.nan
    mask = rng.random(image.shape) < 0.01
    noise = np.full(image.shape, 0.5)
    background = SimpleNamespace(rms=lambda start, stop: noise[start:stop])
    found = detection.find_segments(image, background, mask, snr_threshold=0.6, npixels=npixels, deblend=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = detect_sources((image > 0.3) & ~mask, 0, npixels)
    assert found.dtype == np.int32 and found.max() == expected.n_labels > 10
    np.testing.assert_array_equal(found, expected.data)


@pytest.mark.parametrize("npixels", [1, 5, 30])
def test_sources_are_connected_pixels_above_the_threshold(npixels):
    from scipy.ndimage import label

    image = np.random.default_rng(2).normal(0, 1, (600, 300)).astype(np.float32)
    mask = np.random.default_rng(3).random(image.shape) < 0.01
    background = SimpleNamespace(rms=lambda start, stop: np.ones((stop - start, image.shape[1])))
    ours = detection.find_segments(image, background, mask, snr_threshold=0.3, npixels=npixels, deblend=False)
    connected, _ = label((image > 0.3) & ~mask, np.ones((3, 3)))
    large = np.bincount(connected.ravel()) >= npixels
    large[0] = False
    assert ours.dtype == np.int32
    np.testing.assert_array_equal(ours, np.where(large, large.cumsum(), 0)[connected])
    assert detection.find_segments(image, background, mask, snr_threshold=9.0, npixels=1, deblend=False) is None


def test_sharpness_and_roundness_tell_shapes_apart():
    sky = np.zeros((60, 60), np.float32)
    offsets = np.arange(-10, 11)
    sky[5:26, 5:26] = np.exp(-np.add.outer(offsets**2, offsets**2) / 2 / 0.85**2)  # as wide as the kernel
    sky[40, 15] = 1
    sky[30:51, 30:51] = np.exp(-np.add.outer(offsets**2 / 4, offsets**2 / 0.5) / 2)  # upright
    found = measure_daofind(sky, np.array([15.0, 15.0, 40.0, np.nan]), np.array([15.0, 40.0, 40.0, 1.0]), 2.0)
    gaussian, spike, bar, nowhere = found["sharpness"]
    assert 0.2 < gaussian < 1 < spike and np.isnan(nowhere)
    assert found["roundness1"][:2] == pytest.approx([0, 0], abs=1e-6) and abs(found["roundness1"][2]) > 0.5
    turned = measure_daofind(sky.T.copy(), np.array([40.0]), np.array([40.0]), 2.0)
    assert turned["roundness1"][0] == pytest.approx(-found["roundness1"][2], rel=1e-5)
    assert bar == pytest.approx(turned["sharpness"][0], rel=1e-5)


def test_a_nan_beyond_the_circle_of_daofind_does_not_count():
    """romancal convolves with `scipy.ndimage`, which leaves out the pixels whose weight is zero."""
    rng = np.random.default_rng(9)
    row, column = np.mgrid[:41, :41]
    sky = 50 * np.exp(-((row - 20) ** 2 + (column - 20) ** 2) / 4) + rng.normal(0, 1, (41, 41))
    place = np.array([20.0])
    whole = measure_daofind(sky, place, place, 2.0)
    for dy, dx, counts in ((4, 4, False), (-4, 3, False), (4, 2, True), (0, 3, True)):
        damaged = sky.copy()
        damaged[20 + dy, 20 + dx] = np.nan
        found = measure_daofind(damaged, place, place, 2.0)
        assert np.isnan(found["roundness1"][0]) == counts, (dy, dx)
        assert counts or found["roundness1"] == pytest.approx(whole["roundness1"], rel=1e-12)
        assert found["sharpness"] == pytest.approx(whole["sharpness"], rel=1e-12)  # its 5 x 5 pixels are whole


def test_sharpness_and_roundness_agree_with_photutils():
    from photutils.detection import DAOStarFinder

    sky, positions = star_image() - np.float32(LEVEL), np.rint(STARS[:, :2])
    expected = DAOStarFinder(threshold=0, fwhm=2.0, xycoords=positions)(sky)
    found = measure_daofind(sky, *positions.T, 2.0)
    assert len(expected) == len(STARS)
    for name in ("sharpness", "roundness1"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6)


def test_encircled_energy_is_read_at_radii_in_pixels():
    energy = photometry.encircled_energy([1, 2, 4, 8, 20], [0.1, 0.2, 0.4, 0.8, 1.0], 0.1)
    assert energy[0.2] == pytest.approx(0.2) and energy[0.8] == pytest.approx(0.8)


@pytest.mark.parametrize("seed", range(20))
def test_encircled_energy_neither_falls_nor_exceeds_one(seed):
    rng = np.random.default_rng(seed)
    radii = np.cumsum(rng.exponential(1.5, 18))  # steep and flat parts, beside each other
    fractions = np.sort(rng.beta(0.3, 0.3, 18))
    values = np.array(list(photometry.encircled_energy(radii, fractions, 1.7 / radii[-1]).values()))
    assert np.isfinite(values).all() and values[0] >= 0 and values[-1] <= fractions[-1] and (np.diff(values) >= 0).all()


def test_encircled_energy_beyond_the_reference_is_nan():
    radii = np.array([0.5, 1, 2, 3, 5])
    energy = photometry.encircled_energy(radii, [0.3, 0.6, 0.8, 0.85, 0.9], 0.1)
    known = {radius: value for radius, value in energy.items() if np.isfinite(value)}
    assert list(known) == [0.1, 0.2, 0.4] and known[0.1] == 0.6 and 0.85 < known[0.4] < 0.9


@pytest.mark.parametrize(
    ("radii", "fractions", "message"),
    [
        ([1, 2, 2], [0.1, 0.5, 0.9], "increase"),
        ([-1, 2, 3], [0.1, 0.5, 0.9], "increase"),
        ([1, 2, 3], [0.1, 0.9, 0.5], "not decrease"),
        ([1, 2, 3], [0.1, 0.5, 1.2], "within 0 and 1"),
        ([1, 2, 3], [0.1, np.nan, 0.9], "not decrease"),
        ([1, 2], [0.1, 0.5, 0.9], "shape"),
    ],
)
def test_impossible_encircled_energies_are_refused(radii, fractions, message):
    with pytest.raises(ValueError, match=message):
        photometry.encircled_energy(radii, fractions, 0.11)


def test_the_radius_of_a_fraction_is_interpolated():
    assert photometry.radius_of(0.9, [1, 2, 3], [0.8, 1.0, 1.0]) == pytest.approx(1.5)
    assert photometry.radius_of(0.9, [2.0, 4.0], [1.0, 1.0]) == pytest.approx(1.8)  # from zero on
    assert photometry.radius_of(0.9, [0.0, 2.0], [0.0, 0.9]) == 2
    assert np.isnan(photometry.radius_of(0.9, [1, 2], [0.5, 0.89]))


@pytest.mark.parametrize(
    ("unit", "energies", "message"),
    [
        (1, slice(None), None),
        (1, slice(None, 11), None),  # ends at 60 % of the light
        (0.11, slice(None), "radius of 90 % of the light of a PSF (data.F158) is 0.18"),  # arcsec
        (110, slice(None), "radius of 90 % of the light of a PSF (data.F158) is 188.8"),  # mas
        (110, slice(None, 11), "radius of 90 % of the light of a PSF (data.F158) is 119"),
        (1, slice(None, 7), "last of data.F158.ee_fractions is 0.4"),
    ],
)
def test_encircled_energies_not_normalized_to_one_are_refused(unit, energies, message):
    from rampflow.errors import RampflowError

    fractions = np.linspace(0.1, 0.95, 18)
    radii = SIGMA * np.sqrt(-2 * np.log(1 - fractions)) * unit
    if message is None:
        photometry.check_energy("a.asdf", "data.F158", radii[energies], fractions[energies])
        return
    with pytest.raises(RampflowError, match=re.escape(f"a.asdf: the {message}")):
        photometry.check_energy("a.asdf", "data.F158", radii[energies], fractions[energies])


def test_without_encircled_energies_no_source_is_extended(catalogs, tmp_path):
    path = write_apcorr(tmp_path / "short.asdf", radii=np.linspace(0.2, 3, 20))  # 0.4 arcsec are 3.6 pixels
    references = (*catalogs.references[:2], "--apcorr", path)
    files = catalogs.make(references=references)
    assert catalogs.said.count("apcorr reference ends at a radius of 0.33 arcsec") == 1
    assert "within 0.4, 0.8, 1.6 arcsec is not known" in catalogs.said
    assert not read_catalog(files[0])["is_extended"].any()


def test_an_apcorr_reference_without_the_optical_element_is_named(catalogs):
    other = write_sky(catalogs.folder / "f129_flat.asdf", meta={"instrument.optical_element": "F129"})
    catalog, _ = catalogs.read(other, "--fit_psf", "false")
    assert "apcorr.asdf: data.F129 is missing or empty" in catalogs.said and not catalog["is_extended"].any()


@pytest.mark.slow
def test_an_invalid_apcorr_reference_is_named(catalogs, tmp_path):
    path = write_apcorr(tmp_path / "falls.asdf", fractions=np.linspace(0.9, 0.5, 60))
    outputs = tmp_path / "out/r_cat.parquet", tmp_path / "out/r_segm.asdf"
    (tmp_path / "out").mkdir()
    said = refuse("source_catalog", outputs[0], catalogs.sky, *outputs, *catalogs.references[:2], "--apcorr", path)
    assert "falls.asdf: data.F158" in said and "ee_fractions" in said


def check_contradiction(warning, share, factor):
    """A warning has the names of both references, and the numbers of both."""
    assert "WARNING" in warning
    theirs = share * (1 - np.exp(-0.5 * (0.2 / SCALE / factor / SIGMA) ** 2))
    numbers = [float(number) for number in re.findall(r"\b0\.\d{3}\b", warning)]
    assert "other.asdf and epsf.asdf contradict each other" in warning and "within 0.2 arcsec" in warning
    assert numbers[0] == pytest.approx(theirs, abs=0.002)
    assert numbers[1] == pytest.approx(1 - np.exp(-0.5 * (0.2 / SCALE) ** 2 / (SIGMA**2 + 1 / 12)), abs=0.02)


@pytest.mark.parametrize(("factor", "share"), [(1, 1), (1, 0.8), (1.8, 1)])
def test_an_apcorr_reference_that_contradicts_the_epsf_is_named(catalogs, plain, tmp_path, factor, share):
    """As with light that is missing, or radii of another PSF. No number changes but what follows from them."""
    radii = np.linspace(0.2, 16, 60)
    fractions = share * (1 - np.exp(-0.5 * (radii / factor / SIGMA) ** 2))
    path = write_apcorr(tmp_path / "other.asdf", radii=radii, fractions=fractions)
    catalog, _ = catalogs.read(references=(*catalogs.references[:2], "--apcorr", path))
    warnings = [line for line in catalogs.said.splitlines() if "contradict" in line]
    assert len(warnings) == ((factor, share) != (1, 1))
    for warning in warnings:
        check_contradiction(warning, share, factor)
    for name in catalog.keys() - {"is_extended"}:
        np.testing.assert_array_equal(catalog[name], plain[1][name], err_msg=name)


@pytest.mark.parametrize("element", ["F062", "F158", "F213"])
def test_the_encircled_energy_of_a_psf_is_that_of_the_optics(element):
    """Integrated over the pixel once, as the stamps are, or twice, as the light of an aperture is."""
    from simulator.optics import enclosed_fraction
    from simulator.simulate_references import diffraction_psf

    stamp = diffraction_psf(psf.wavelength_of(element), OVERSAMPLING, 20)
    grid = psf_photometry.GriddedPSF(psf.integrate_over_pixel(stamp[None], OVERSAMPLING), [0], [0], OVERSAMPLING)
    for radius in psf.COMPARED_RADII:
        twice = enclosed_fraction(stamp, OVERSAMPLING, np.array([radius / SCALE]))[0]
        assert psf.energy_within(grid, radius / SCALE) == pytest.approx(twice, abs=0.025)
    assert np.isnan(psf.energy_within(grid, 21))


# -------------------------------------------------------------------------------------------------------------- PSF parts
def psf_of(folder, stamps, jitter=8.0, guide_star=None):
    with AsdfFile(write_epsf(folder / "epsf.asdf", stamps, jitter=jitter)) as file:
        return psf.read_psf(Exposure(file), guide_star or {})


def values_of(grid, x, y, columns, rows):
    value, slope_x, slope_y = (np.empty(len(columns)) for _ in range(3))
    kernels.evaluate_psf(columns, rows, x, y, grid.coefficients, grid.x, grid.y, grid.oversampling, value, slope_x, slope_y)
    return value, slope_x, slope_y


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda stamp: 0.7 * stamp, "sum of a stamp"), (lambda stamp: np.roll(stamp, 2, axis=1), "centroid from its middle")],
)
def test_one_stamp_that_is_no_psf_is_refused(tmp_path, change, message):
    stamps = gaussian_stamps()
    psf_of(tmp_path, stamps)
    stamps[2] = change(stamps[2])
    with pytest.raises(RampflowError, match=message):
        psf_of(tmp_path, stamps)


def photutils_model(stamps):
    from astropy.nddata import NDData
    from photutils.psf import GriddedPSFModel

    corners = [(x, y) for y in (0.0, SIZE - 1.0) for x in (0.0, SIZE - 1.0)]
    return GriddedPSFModel(NDData(stamps, meta={"grid_xypos": corners, "oversampling": OVERSAMPLING}))


@pytest.mark.parametrize(("x", "y"), [(100.3, 120.7), (0.4, 240.2), (-1.5, 30.0), (247.9, 247.9)])
def test_the_psf_agrees_with_photutils(tmp_path, x, y):
    stamps = gaussian_stamps(widths=(0.7, 0.8, 0.9, 1.1)).astype(np.float32).astype(float)
    grid, model = psf_of(tmp_path, stamps), photutils_model(stamps)
    rows, cols = (axis.ravel() + 0.0 for axis in np.mgrid[-6:7, -6:7])
    cols, rows = cols + np.round(x), rows + np.round(y)
    value, slope_x, slope_y = values_of(grid, x, y, cols, rows)
    np.testing.assert_allclose(value, model.evaluate(cols, rows, 1.0, x, y), atol=1e-9)
    step = 1e-5
    for slope, (dx, dy) in ((slope_x, (step, 0)), (slope_y, (0, step))):
        ahead, behind = (values_of(grid, x + sign * dx, y + sign * dy, cols, rows)[0] for sign in (1, -1))
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), atol=1e-8)
    assert values_of(grid, x, y, np.array([x + 30]), np.array([y]))[0] == 0


def test_psf_fits_agree_with_photutils(tmp_path):
    from astropy.table import Table
    from photutils.psf import PSFPhotometry, SourceGrouper

    close = np.array([[100.0, 160.0, 200], [103.6, 161.5, 150], [0.2, 90.0, 150], [170.0, 246.9, 90]])  # a pair; two at edges
    stars = np.concatenate([STARS, close])
    data, err = star_image(stars) - np.float32(LEVEL), np.full((SIZE, SIZE), NOISE, np.float32)
    mask = np.zeros(data.shape, bool)
    mask[50, 40] = mask[37:44, 87:95] = True  # one pixel of a star; another star as a whole
    mask[59:64, 148:153] = True
    mask[60, 149:151] = False  # two pixels are too few
    x, y = stars[:, 0] + 0.15, stars[:, 1] - 0.1
    stamps = gaussian_stamps(widths=(0.75, 0.8, 0.8, 0.85)).astype(np.float32).astype(float)
    found = psf_photometry.fit_psf(psf_of(tmp_path, stamps), data, err, mask, x, y)
    fitter = PSFPhotometry(photutils_model(stamps), (5, 5), grouper=SourceGrouper(5), aperture_radius=5)
    expected = fitter(data, mask=mask, error=err, init_params=Table({"x_init": x, "y_init": y}))
    assert (found["psf_flags"] == expected["flags"]).all()
    assert {1, 1 + 16 + 128 + 512 + 1024, 1 + 16 + 256 + 512 + 1024} <= set(found["psf_flags"])
    for ours, theirs, atol in (("x_psf", "x_fit", 1e-5), ("y_psf", "y_fit", 1e-5), ("psf_flux", "flux_fit", 1e-3)):
        np.testing.assert_allclose(found[ours], expected[theirs], atol=atol, rtol=1e-6)
        np.testing.assert_allclose(found[f"{ours}_err"], expected[theirs.replace("fit", "err")], rtol=1e-3)
    np.testing.assert_allclose(found["psf_gof"], expected["reduced_chi2"], rtol=1e-5)
    assert np.allclose(found["psf_flux"][10:12], close[:2, 2], rtol=0.02)


@pytest.mark.parametrize("unit", [1.0, 115.0, 1e-3])
@pytest.mark.parametrize(("dx", "dy"), [(1.4, -1.1), (-2.0, -1.5), (-1.7, 2.7)])
def test_a_fit_that_begins_pixels_away_reaches_the_minimum(tmp_path, dx, dy, unit):
    """The centroid of two stars in one segment. A trust region in nJy and pixels ends far from the star."""
    flux, place = 4e5, np.array([[80.3, 120.7]])
    data = star_image(np.array([[*place[0], flux]])) - np.float32(LEVEL)
    err = np.sqrt(NOISE**2 + 0.01 * np.abs(data)).astype(np.float32)
    grid = psf_of(tmp_path, gaussian_stamps(widths=(0.8, 0.8, 0.8, 0.8)))
    found = psf_photometry.fit_psf(grid, data, err, data > 1e9, place[:, 0] + dx, place[:, 1] + dy, unit=unit)
    assert found["psf_flux"][0] == pytest.approx(flux * unit, rel=0.02)
    assert np.hypot(found["x_psf"] - place[:, 0], found["y_psf"] - place[:, 1])[0] < 0.01
    assert found["psf_gof"][0] < 20 and found["psf_flags"][0] == 0


def test_stars_with_a_masked_core_are_fitted_at_the_star():
    """Their aperture flux lacks the core. Of the fits that begin with it, one in fifteen ends away from the star."""
    from simulator.simulate_references import diffraction_psf

    stamp = diffraction_psf(psf.wavelength_of("F158"), OVERSAMPLING, 20)
    grid = psf_photometry.GriddedPSF(psf.integrate_over_pixel(stamp[None], OVERSAMPLING), [0], [0], OVERSAMPLING)
    rng = np.random.default_rng(1)
    places = np.array([(column, row) for row in range(12, SIZE - 12, 20) for column in range(12, SIZE - 12, 20)])
    stars = places + rng.uniform(-0.5, 0.5, places.shape)
    flux = 20000.0
    data, mask = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE), bool)
    for (column, row), (x, y) in zip(places, stars, strict=True):
        rows, columns = np.mgrid[row - 9 : row + 10, column - 9 : column + 10].reshape(2, -1)
        data[rows, columns] += flux * values_of(grid, x, y, columns + 0.0, rows + 0.0)[0]
        core_x, core_y = round(x), round(y)
        mask[core_y - 1 : core_y + 2, core_x - 1 : core_x + 2] = True
    err = np.sqrt(0.25 + 0.02 * data)
    data += rng.normal(0, err)
    x, y = (stars + rng.normal(0, 0.3, places.shape)).T
    found = psf_photometry.fit_psf(grid, data, err, mask, x, y)
    assert (found["psf_flags"] == psf_photometry.FLAGS["n_pixels_fit_partial"]).all()
    for name, truth in (("x_psf", stars[:, 0]), ("y_psf", stars[:, 1]), ("psf_flux", flux)):
        assert (np.abs(found[name] - truth) < 5 * found[f"{name}_err"]).all(), name
    assert np.abs(found["psf_flux"] / flux - 1).max() < 0.05


def test_fits_of_galaxies_end_at_the_minimum(tmp_path):
    """Two sources in a galaxy that no PSF describes: the steps to the minimum are many and small."""
    from scipy.optimize import least_squares

    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIZE, :SIZE]
    places = np.array([(column, row) for row in range(15, SIZE - 15, 30) for column in range(15, SIZE - 15, 30)])
    data = rng.normal(0, NOISE, (SIZE, SIZE))
    for column, row in places:
        data += 10 ** rng.uniform(1.5, 4) * np.exp(-np.hypot(x - column, (y - row) / rng.uniform(0.2, 1)) / rng.uniform(1, 6))
    err = np.sqrt(NOISE**2 + 0.01 * np.abs(data)).astype(np.float32)
    data = data.astype(np.float32)
    first, second = places + rng.normal(0, 0.5, places.shape), places + rng.normal(0, 2, places.shape)
    grid = psf_of(tmp_path, gaussian_stamps(widths=(0.8, 0.8, 0.8, 0.8)))
    found = psf_photometry.fit_psf(grid, data, err, np.zeros(data.shape, bool), *np.concatenate([first, second]).T)
    assert np.count_nonzero(found["psf_flags"] & psf_photometry.FLAGS["no_convergence"]) <= 2  # a tenth after 100 evaluations

    def residuals(parameters):
        model = sum(flux * values_of(grid, *place, columns, rows)[0] for flux, *place in parameters.reshape(-1, 3))
        return (model - values) / deviations

    for i in range(0, len(places), 7):
        members = [i, i + len(places)]
        start = np.concatenate([first, second])[members]
        if np.hypot(*(start[0] - start[1])) >= psf_photometry.GROUP_SEPARATION:
            continue
        width = psf_photometry.FIT_WIDTH
        corners = np.ceil(start - width / 2).astype(int)
        pixels = [np.mgrid[b : b + width, a : a + width].reshape(2, -1) for a, b in corners]
        rows, columns = np.concatenate(pixels, axis=1)
        values, deviations = data[rows, columns].astype(float), err[rows, columns].astype(float)
        rows, columns = rows + 0.0, columns + 0.0
        best = np.column_stack([found[name][members] for name in ("psf_flux", "x_psf", "y_psf")]).ravel()
        further = least_squares(residuals, best, x_scale="jac", ftol=1e-12, xtol=1e-12, gtol=1e-12)
        assert (residuals(best) ** 2).sum() == pytest.approx(2 * further.cost, rel=1e-4)


def test_a_source_outside_the_image_is_not_fitted(tmp_path):
    grid, data = psf_of(tmp_path, gaussian_stamps()), star_image()
    nowhere = psf_photometry.fit_psf(
        grid, data, np.ones_like(data), np.zeros(data.shape, bool), np.array([np.nan, 500.0]), np.array([1.0, 1.0])
    )
    assert np.isnan(nowhere["psf_flux"]).all() and np.isnan(nowhere["psf_gof"]).all()
    missing = sum(
        psf_photometry.FLAGS[name]
        for name in ("non_finite_position", "non_finite_flux", "no_covariance", "n_pixels_fit_partial")
    )
    assert nowhere["psf_flags"].tolist() == [missing, missing | psf_photometry.FLAGS["no_overlap"]]
    assert psf_photometry.fit_psf(grid, data, data, data > 0, np.empty(0), np.empty(0))["x_psf"].shape == (0,)


def test_groups_agree_with_photutils():
    from photutils.psf import SourceGrouper

    x, y = np.random.default_rng(6).uniform(0, 200, (2, 300))
    expected = SourceGrouper(5)(x, y)
    found = psf_photometry.group_sources(x, y, 5)
    assert 50 < len(found) == expected.max() < 250
    assert all(len(set(expected[members])) == 1 for members in found)


def test_chains_of_neighbors_are_one_group():
    x = np.array([10.0, 50, 14, 18, 90, 51])
    groups = psf_photometry.group_sources(x, np.zeros(6), 5)
    assert sorted(map(tuple, groups)) == [(0, 2, 3), (1, 5), (4,)]
    assert psf_photometry.group_sources(x[:0], x[:0], 5) == []


def test_both_reference_formats_give_the_same_psf(tmp_path, catalogs, plain):
    # Sampled and integrated over four samples by the trapezoidal rule: a little wider than integrated exactly.
    old, new = psf_of(tmp_path, gaussian_stamps(old_format=True)), psf_of(tmp_path, gaussian_stamps())
    assert np.abs(old.coefficients - new.coefficients).max() < 0.02 * new.coefficients.max()
    references = ("--epsf", write_epsf(tmp_path / "old.asdf", gaussian_stamps(old_format=True)), *catalogs.references[2:])
    catalog, _ = catalogs.read(references=references)
    assert "integrating them over the pixel" in catalogs.said
    np.testing.assert_allclose(catalog["psf_flux"], plain[1]["psf_flux"], rtol=0.02)


@pytest.mark.parametrize("element", ["F062", "F158", "F213"])
@pytest.mark.parametrize("integrated", [False, True])
def test_the_width_of_a_psf_follows_from_its_wavelength(element, integrated):
    """Diffraction, with charge diffusion and without: a factor of two would be a wrong oversampling."""
    from simulator.simulate_references import diffraction_psf

    from rampflow.errors import RampflowError

    wavelength = psf.wavelength_of(element)
    assert wavelength == int(element[1:]) / 100
    stamps = diffraction_psf(wavelength, OVERSAMPLING, 20)[None]
    if integrated:
        stamps = psf.integrate_over_pixel(stamps, OVERSAMPLING)
    psf.check_width("e.asdf", stamps, OVERSAMPLING, wavelength, integrated=integrated)
    for wrong in (OVERSAMPLING // 2, 2 * OVERSAMPLING):
        with pytest.raises(RampflowError, match=f"e.asdf: the FWHM of the PSF.*meta.oversample {wrong}.*plausible"):
            psf.check_width("e.asdf", stamps, wrong, wavelength, integrated=integrated)


def test_the_width_of_a_gaussian_is_recovered():
    for sigma in (0.4, SIGMA, 1.1):
        stamp = gaussian_stamps(widths=(sigma,), old_format=True)[0]
        assert psf.full_width(stamp, OVERSAMPLING) == pytest.approx(2.3548 * sigma, rel=0.02)


def test_spectral_elements_have_no_filter_wavelength():
    assert [psf.wavelength_of(name) for name in ("GRISM", "PRISM", "DARK", "F1", "", "F1580")] == [None] * 6


def test_integration_over_the_pixel_is_that_of_a_box():
    from astropy.convolution import Box2DKernel, convolve

    for oversampling in (3, 4):
        stamps = gaussian_stamps(old_format=True)[:1]
        expected = convolve(stamps[0], Box2DKernel(oversampling)) * oversampling**2
        np.testing.assert_allclose(psf.integrate_over_pixel(stamps, oversampling)[0], expected, atol=1e-9)


def test_jitter_adds_its_variance_along_its_axes():
    stamp, scale = gaussian_stamps(old_format=True)[:1], 0.11 / OVERSAMPLING
    offsets = (np.arange(81) - 40) * scale

    def moments(stamps):
        s = stamps[0] / stamps[0].sum()
        return np.array([(s * offsets**2).sum(), (s * offsets[:, None] ** 2).sum(), (s * np.outer(offsets, offsets)).sum()])

    before = moments(stamp)
    # The position angle of the major axis runs from +y to +x: at 90 degrees it lies along x.
    for angle, (xx, yy, xy) in ((0, (4, 9, 0)), (90, (9, 4, 0)), (45, (6.5, 6.5, 2.5))):
        change = moments(psf.change_jitter(stamp, (0.0, 0.0, 0.0), (30.0, 20.0, angle), scale)) - before
        np.testing.assert_allclose(change, np.array([xx, yy, xy]) * 1e-4, atol=1e-7)
    there = psf.change_jitter(stamp, (8.0, 8.0, 0.0), (30.0, 20.0, 45.0), scale)
    np.testing.assert_allclose(psf.change_jitter(there, (30.0, 20.0, 45.0), (8.0, 8.0, 0.0), scale), stamp, atol=1e-7)


def test_missing_jitter_takes_the_default():
    assert psf.jitter({}) == (8.0, 8.0, 0.0)
    assert psf.jitter({"jitter_major": -999999, "jitter_minor": None, "jitter_position_angle": -999999}) == (8.0, 8.0, 0.0)
    assert psf.jitter({"jitter_major": 12, "jitter_minor": 5.0, "jitter_position_angle": 30}) == (12, 5, 30)


def test_the_jitter_of_the_exposure_widens_the_psf(catalogs, plain):
    jittered = {"guide_star.jitter_major": 40.0, "guide_star.jitter_minor": 40.0}
    catalog, _ = catalogs.read(write_sky(catalogs.folder / "jitter_flat.asdf", meta=jittered))
    assert "jitter" in catalogs.said
    # A wider model takes more flux; the variance grows by (40² − 8²) mas² = 0.127 pixel².
    assert (catalog["psf_flux"] > 1.03 * plain[1]["psf_flux"]).all()
    wider = star_image(sigma=(SIGMA**2 + (40**2 - 8**2) / 110**2) ** 0.5)
    catalog, _ = catalogs.read(write_sky(catalogs.folder / "jittered_flat.asdf", wider, meta=jittered))
    np.testing.assert_allclose(
        catalog["psf_flux"][by_star(catalog)], STARS[:, 2] * UNIT, rtol=0.01, atol=40 * NOISE * UNIT / 10
    )


def test_a_reference_of_another_shape_is_refused(tmp_path):
    from rampflow.errors import RampflowError

    with create_asdf(tmp_path / "x.asdf", {"roman": {"meta": {"oversample": 4}, "psf": np.zeros((1, 1, 4, 9, 9), np.float32)}}):
        pass
    with AsdfFile(tmp_path / "x.asdf") as file, pytest.raises(RampflowError, match="spectral type"):
        psf.read_psf(Exposure(file), {})
