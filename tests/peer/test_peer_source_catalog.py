"""Compare source_catalog with romancal's step on a small image: the same sources, columns and numbers."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import source_catalog
from astropy.coordinates import SkyCoord
from simulator import simulate_references
from small_files import arrays_of, run_here
from star_field import SIZE, STARS, gaussian_stamps, star_image, write_epsf, write_sky

from rampflow import dq as flags
from rampflow.catalog import dust

romancal_source_catalog = pytest.importorskip("romancal.source_catalog")

pytestmark = pytest.mark.peer

#: Columns in which this project differs on purpose.
ON_PURPOSE = {
    "is_extended",  # romancal reads the encircled energy at radii in arcsec from a table of radii in pixels
}
#: romancal leaves this one without its unit.
UNIT_IN_RAD_ALONE = {"dust_ebv"}


def write_apcorr_model(path):
    from roman_datamodels import datamodels

    model = datamodels.ApcorrRefModel.create_fake_data()
    model.meta.instrument.detector = "WFI07"
    radii = np.linspace(0.05, 16, 60)
    entry = {"ap_corrections": radii, "ee_fractions": 1 - np.exp(-(radii**2)), "ee_radii": radii}
    model.data = {"F158": {**entry, "sky_background_rin": 2.4, "sky_background_rout": 2.8}}
    model.save(path)
    return path


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """An image with stars, a galaxy, a close pair, a source at the edge, bad pixels; its references; a shallower one."""
    folder = tmp_path_factory.mktemp("peer")
    others = [(150.2, 160.8, 400), (153.9, 162.0, 300), (1.3, 180.0, 200), (100.0, 100.0, 300)]
    stars = np.concatenate([STARS, others])
    data = star_image(stars) + star_image([(90.0, 170.0, 3000)], sigma=4, noise=0) + np.linspace(0, 1, SIZE)
    dq = np.zeros((SIZE, SIZE), np.uint32)
    dq[49:52, 43:45] = dq[210, 131] = dq[:, 240] = flags.DO_NOT_USE
    sky = write_sky(
        folder / "r0001_flat.asdf", data, dq=dq, meta={"guide_star.jitter_major": 14.0, "filename": "r0001_flat.asdf"}
    )
    shallow = write_sky(
        folder / "r0002_flat.asdf", star_image(stars * (1, 1, 0.3)), dq=dq, meta={"filename": "r0002_flat.asdf"}
    )
    stamps = gaussian_stamps(widths=(0.75, 0.8, 0.85, 0.9), old_format=True)
    return folder, sky, shallow, write_epsf(folder / "epsf.asdf", stamps), write_apcorr_model(folder / "apcorr.asdf")


def run_romancal(folder, path, epsf, apcorr, monkeypatch, **parameters):
    """romancal's step without a CRDS server: the references are given, and there is no dust map."""
    step = romancal_source_catalog.SourceCatalogStep(**parameters)
    given = {"epsf": str(epsf), "apcorr": str(apcorr)}
    monkeypatch.setattr(step, "get_reference_file", lambda model, reftype: given[reftype])
    monkeypatch.setattr(step, "finalize_result", lambda *arguments: None)
    # Without a cache, CRDS ends the process instead of raising an error.
    monkeypatch.setattr("romancal.source_catalog._source_catalog.getreferences", lambda *a, **k: {})
    catalog, segmentation = step.process(str(path))
    folder.mkdir(parents=True, exist_ok=True)
    catalog.to_parquet(folder / "peer_cat.parquet")
    segmentation.to_asdf(folder / "peer_segm.asdf")
    return folder / "peer_cat.parquet", folder / "peer_segm.asdf"


def compare(ours, theirs):
    """Compare two catalogs: columns and, source by source, every number."""
    ours, theirs = pq.read_table(ours), pq.read_table(theirs)
    assert ours.column_names == theirs.column_names
    assert ours.num_rows == theirs.num_rows > 0
    for mine, other in zip(ours.schema, theirs.schema, strict=True):
        assert mine.type == other.type, mine.name
        if mine.name not in UNIT_IN_RAD_ALONE:
            assert mine.metadata == other.metadata, mine.name
        if mine.name.removeprefix("forced_") in ON_PURPOSE:
            continue
        a, b = (table[mine.name].to_numpy() for table in (ours, theirs))
        if mine.name.endswith("warning_flags"):
            a = a & flags.DO_NOT_USE  # that masked pixels touch a source is said by another bit, and by ours alone
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, err_msg=mine.name)
            continue
        # Positions are pixels and degrees; romancal rounds those of the PSF to single precision before it goes to the sky.
        position = mine.name.removeprefix("forced_")[:3] in ("x_c", "y_c", "x_p", "y_p")
        rtol, atol = (0, 1e-3) if position else (1e-9, 0) if a.dtype == np.float64 else (1e-3, 1e-3)
        if mine.name.removeprefix("forced_") in ("x_psf", "y_psf", "ra_psf", "dec_psf"):
            # romancal ends the fits of a galaxy and of a pair in one segment before the minimum of χ²; 0.01
            # pixels are 8e-7 degrees of right ascension here.
            prefix = "forced_" if mine.name.startswith("forced_") else ""
            gof = [table[prefix + "psf_gof"].to_numpy() for table in (ours, theirs)]
            early = gof[1] > 1e5
            assert early.sum() <= 2 and (gof[0][early] <= gof[1][early] * (1 + 1e-6)).all()
            np.testing.assert_allclose(a[early], b[early], rtol=0, atol=1e-6 if rtol else 0.01, err_msg=mine.name)
            a, b = a[~early], b[~early]
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=mine.name)
    metadata = [{key: value for key, value in table.schema.metadata.items()} for table in (ours, theirs)]
    missing = set(metadata[1]) - set(metadata[0])
    # Packages that ours does without.
    assert missing - {f"source_catalog.versions.{name}".encode() for name in ("astropy", "photutils", "gwcs")} == {
        b"source_catalog.versions.romancal"
    }


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"bkg_boxsize": 60, "kernel_fwhm": 2.7, "snr_threshold": 5.0, "npixels": 12},
        {"fit_psf": False},
        {"deblend": True, "npixels": 10},
    ],
)
def test_catalog_and_map_equal_those_of_romancal(sky, tmp_path, monkeypatch, parameters):
    if parameters.get("deblend"):
        pytest.importorskip("skimage")
    _, path, _, epsf, apcorr = sky
    theirs = run_romancal(tmp_path / "peer", path, epsf, apcorr, monkeypatch, **parameters)
    ours = tmp_path / "r_cat.parquet", tmp_path / "r_segm.asdf"
    options = [f"--{name}={str(value).lower()}" for name, value in parameters.items()]
    run_here(source_catalog, path, *ours, "--epsf", epsf, "--apcorr", apcorr, *options)
    compare(ours[0], theirs[0])
    mine, other = arrays_of(ours[1]), arrays_of(theirs[1])
    np.testing.assert_array_equal(mine["data"], other["data"])
    np.testing.assert_allclose(mine["detection_image"], other["detection_image"], rtol=1e-4, atol=0.01)


def test_given_sources_are_measured_as_romancal_does(sky, tmp_path, monkeypatch):
    _, path, shallow, epsf, apcorr = sky
    given = tmp_path / "r_cat.parquet", tmp_path / "r_segm.asdf"
    run_here(source_catalog, path, *given, "--epsf", epsf, "--apcorr", apcorr)
    theirs = run_romancal(tmp_path / "peer", shallow, epsf, apcorr, monkeypatch, forced_segmentation=str(given[1]))
    ours = tmp_path / "f_cat.parquet", tmp_path / "f_segm.asdf"
    run_here(source_catalog, shallow, *ours, "--epsf", epsf, "--apcorr", apcorr, "--forced_segmentation", given[1])
    tables = [pq.read_table(files[0]) for files in (ours, theirs)]
    assert tables[0].column_names == tables[1].column_names
    for name in (
        "label",
        "x_centroid",
        "semimajor",
        "forced_x_centroid",
        "forced_semimajor",
        "forced_kron_flux",
        "forced_aper04_flux",
    ):
        a, b = (table[name].to_numpy() for table in tables)
        np.testing.assert_allclose(a, b, rtol=1e-3, err_msg=name)
    for name in ("forced_x_psf", "forced_y_psf"):
        a, b = (table[name].to_numpy() for table in tables)
        np.testing.assert_allclose(a, b, atol=1e-3, err_msg=name)


def test_reddening_is_that_of_romancal(tmp_path):
    """All over the sky, with positions near the galactic equator and poles, to 10⁻⁵ mag and better."""
    from romancal.source_catalog._source_catalog import RomanSourceCatalog

    paths = {name: tmp_path / f"{name}.fits" for name in ("north", "south")}
    for name, path in paths.items():
        simulate_references.make_dust_map(path, name, 1)
    rng = np.random.default_rng(3)
    latitude = np.concatenate([rng.uniform(-90, 90, 500), rng.normal(0, 1e-3, 500), [90, -90], 90 - rng.uniform(0, 1, 100)])
    sky = SkyCoord(rng.uniform(0, 360, len(latitude)), latitude, unit="deg", frame="galactic").icrs
    catalog = RomanSourceCatalog.__new__(RomanSourceCatalog)  # the method needs no image
    theirs = {catalog.north_galactic_pole_id: paths["north"], catalog.south_galactic_pole_id: paths["south"]}
    expected = catalog._get_dust_ebv(sky.ra.deg, sky.dec.deg, theirs)
    found = dust.reddening(sky.ra.deg, sky.dec.deg, paths)
    assert np.isfinite(expected).all() and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
