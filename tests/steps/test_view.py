"""view.py: exposures as FITS files, regions, in ds9, as a notebook and as a picture of the focal plane."""

import contextlib
import logging
import os
import re
import shlex
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pytest
import view
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from focal_plane_images import EXPOSURE, SIDE, stem, wavy_wcs, write_detector
from PIL import Image
from regions import Regions
from repository import ROOT
from small_files import succeed, write_image

from rampflow import dq
from rampflow.files.parquet import write_table
from rampflow.wcs.conversion import tree_of_wcs

STEM = stem(1)


def run(*words, status=0):
    """Run the program in this process, which saves the time of its imports."""
    try:
        assert view.main([str(word) for word in words]) == status
    finally:
        logging.captureWarnings(False)


def write_catalog(folder, wcs):
    """Catalog of the image of STEM: two extended sources and a star."""
    x, y = np.array([20.25, 60.5, 100.0]), np.array([30.0, 99.75, 12.5])
    ra, dec = wcs(x, y)
    columns = {"label": np.array([1, 2, 3], np.int32), "x_centroid": x.astype(np.float32), "y_centroid": y.astype(np.float32)}
    columns |= {"ra_centroid": ra, "dec_centroid": dec, "fwhm": np.full(3, 9, np.float32)}
    columns |= {"semimajor": np.full(3, 9, np.float32), "semiminor": np.full(3, 4, np.float32)}
    columns |= {"orientation_pix": np.array([10, 100, 0], np.float32), "is_extended": np.array([True, True, False])}
    write_table(pa.table(columns), folder / f"{STEM}_cat.parquet")
    return x, y


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two detectors of an exposure, the first with flags and a catalog."""
    folder = tmp_path_factory.mktemp("results")
    flags = np.zeros((SIDE, SIDE), np.uint32)
    flags[40:43, 60:64] = dq.SATURATED | dq.DO_NOT_USE
    flags[5, 7] = dq.JUMP_DET
    flags[90, 90] = 1 << 31  # the highest bit
    _, wcs = write_detector(folder, 1, dq=flags)
    write_detector(folder, 18)
    write_catalog(folder, wcs)
    return folder, wcs


@pytest.mark.slow
def test_a_fits_file_has_the_arrays_the_header_and_the_wcs(results, tmp_path, capsys):
    folder, wcs = results
    succeed("view", STEM, "--results", folder, "--output", tmp_path, "--fits")
    with fits.open(tmp_path / f"{STEM}_cal.fits", checksum=True) as file:
        file.verify("exception")
        assert [hdu.name for hdu in file] == ["PRIMARY", "SCI", "DQ", "ERR", "VAR_POISSON"]
        from rampflow.files.asdf_reader import AsdfFile

        with AsdfFile(folder / f"{STEM}_cal.asdf") as image:
            roman = image.tree["roman"]
            for name, extension in {"data": "SCI", "dq": "DQ", "err": "ERR", "var_poisson": "VAR_POISSON"}.items():
                np.testing.assert_array_equal(file[extension].data, roman[name].read())
            meta = roman["meta"]
        assert file["DQ"].data.dtype == np.uint32
        for hdu in file[:2]:
            header = hdu.header
            assert (header["DETECTOR"], header["FILTER"], header["TIMESYS"]) == ("WFI01", "F158", "UTC")
            assert header["DATE-OBS"] == str(meta["exposure"]["start_time"])
            assert header["PHOTMJSR"] == 0.5 and header["PIXAR_SR"] == 2.8e-10
        assert [hdu.header.get("BUNIT") for hdu in file] == [None, "DN/s", None, "DN/s", "(DN/s)**2"]
        x, y = np.random.default_rng(1).uniform(-0.5, SIDE - 0.5, (2, 1000))
        for hdu in file[1:]:
            assert hdu.header["CTYPE1"] == "RA---TAN-SIP"
            sky = WCS(hdu.header).pixel_to_world(x, y)
            assert sky.separation(SkyCoord(*wcs(x, y), unit="deg")).mas.max() < 0.1
            assert hdu.header["SIPERMAS"] < 0.1


def test_an_image_without_a_wcs_is_written_without_one(tmp_path, capsys):
    write_image(tmp_path / f"{STEM}_cal.asdf", np.ones((16, 20)), {"exposure.exposure_time": None})
    run(tmp_path / f"{STEM}_cal.asdf", "--output", tmp_path, "--fits", "--regions", "--coordinates", "sky", "--jdaviz")
    out = capsys.readouterr()
    assert "has no WCS" in out.err and "without a WCS" in out.out and "are in pixels" in out.err and "no catalog" in out.err
    header = fits.getheader(tmp_path / f"{STEM}_cal.fits", "SCI")
    assert "CTYPE1" not in header and "CRVAL1" not in header and "EXPTIME" not in header
    assert list(Regions.read(tmp_path / f"{STEM}_flags.reg", format="ds9")) == []
    run(tmp_path / f"{STEM}_cal.asdf", "--output", tmp_path, "--mosaic", status=1)
    assert "no image of the exposure has a WCS" in capsys.readouterr().err


@pytest.mark.slow
def test_a_wcs_that_fits_keywords_do_not_follow_is_refused(tmp_path, capsys):
    shape = (2048, 2048)
    image = tmp_path / f"{STEM}_cal.asdf"
    write_image(image, np.ones(shape), {"wcs": tree_of_wcs(wavy_wcs(shape))})
    run(image, "--output", tmp_path, "--fits", status=1)
    error = capsys.readouterr().err
    assert "mas" in error and "more than --max_error 0.05 pixels" in error
    assert not (tmp_path / f"{STEM}_cal.fits").exists()
    run(image, "--output", tmp_path, "--fits", "--max_error", 0.5)
    assert 0.05 < fits.getheader(tmp_path / f"{STEM}_cal.fits", 1)["SIPERPIX"] < 0.5


def test_regions_are_read_back_at_the_sources_and_flags(results, tmp_path, capsys):
    folder, _ = results
    run(STEM, "--results", folder, "--output", tmp_path, "--regions", "--flags", "SATURATED", "JUMP_DET")
    sources = Regions.read(tmp_path / f"{STEM}_sources.reg", format="ds9")
    assert [(s.center.x, s.center.y) for s in sources] == [(20.25, 30), (60.5, 99.75), (100, 12.5)]
    side = np.degrees(np.sqrt(2.8e-10)) * 3600
    assert (sources[0].width, sources[0].height) == pytest.approx((54 / side, 24 / side))
    polygon, point = Regions.read(tmp_path / f"{STEM}_flags.reg", format="ds9")
    assert (point.center.x, point.center.y) == (7, 5) and point.meta["tag"] == ["JUMP_DET"]
    assert (polygon.vertices.x.min(), polygon.vertices.x.max()) == (59.5, 63.5)
    assert (polygon.vertices.y.min(), polygon.vertices.y.max()) == (39.5, 42.5)
    assert "3 sources" in (said := capsys.readouterr().out) and "SATURATED: 12 pixels in 1 region" in said


def test_a_notebook_opens_several_exposures(results, tmp_path):
    import nbformat

    folder, _ = results
    run(STEM, stem(18), "--results", folder, "--output", tmp_path, "--jdaviz")
    notebook = nbformat.read(tmp_path / f"{STEM}_imviz.ipynb", as_version=4)
    code = notebook.cells[1].source
    assert str(folder / f"{STEM}_cal.asdf") in code and str(folder / f"{stem(18)}_cal.asdf") in code
    assert str(tmp_path / f"{STEM}_sources.ecsv") in notebook.cells[2].source


def test_the_picture_of_the_focal_plane_has_all_detectors(results, tmp_path, capsys):
    folder, _ = results
    run(stem(18), "--results", folder, "--output", tmp_path, "--mosaic", "--mosaic_size", 300)
    with Image.open(tmp_path / f"{EXPOSURE}_f158_focal_plane.png") as picture:
        assert max(picture.size) in (300, 301)
        assert 0.05 < (np.asarray(picture) > 0).mean() < 0.2
    said = capsys.readouterr().out
    assert "2 detectors, without WFI02, WFI03," in said and "WFI18" not in said.partition("without")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((STEM,), "nothing to do"),
        ((STEM, "--fits", "--max_error", "0"), "--max_error must be above 0"),
        ((STEM, "--regions", "--flags", "BAD"), "invalid choice: 'BAD'"),
    ],
)
def test_a_wrong_command_line_is_refused(words, message, capsys):
    with pytest.raises(SystemExit) as error:
        view.main(list(words))
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_an_exposure_that_is_not_there_is_named(tmp_path, capsys):
    run("r1_wfi01_f158", "--results", tmp_path, "--fits", status=1)
    assert f"{tmp_path / 'r1_wfi01_f158_cal.asdf'}: there is no such image" in capsys.readouterr().err
    run("r1_wfi01_f158", "--results", tmp_path / "nowhere", "--output", tmp_path / "out", "--fits", status=1)
    assert f"{tmp_path / 'nowhere'}: is not a folder; give the folder of the products: --results" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------------ ds9
def test_without_ds9_its_command_is_printed(results, tmp_path, capsys, monkeypatch):
    folder, _ = results
    monkeypatch.setenv("PATH", str(tmp_path))
    run(STEM, "--results", folder, "--output", tmp_path, "--ds9", "--", "-zoom", "4")
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("There is no ds9 on the PATH")
    words = shlex.split(line.partition(": ")[2])
    assert words[:2] == ["ds9", f"{tmp_path / STEM}_cal.fits[SCI]"] and words[-2:] == ["-zoom", "4"]
    files = [words[i + 2] for i, word in enumerate(words) if word == "-regions"]
    assert files == [f"{tmp_path / STEM}_sources.reg", f"{tmp_path / STEM}_flags.reg"]
    assert all(os.path.exists(path) for path in files)


def test_an_error_of_ds9_is_reported(results, tmp_path, capsys, monkeypatch):
    folder, _ = results
    program = tmp_path / "ds9"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    run(STEM, "--results", folder, "--output", tmp_path, "--ds9", status=1)
    assert "ds9 ended with exit status 3" in capsys.readouterr().err


@contextlib.contextmanager
def display():
    """A display without a screen."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x800x24"], pass_fds=[write], stderr=subprocess.DEVNULL
    )
    os.close(write)
    try:
        with open(read) as numbers:
            yield f":{numbers.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize("coordinates", ["image", "sky"])
@pytest.mark.slow
def test_ds9_places_the_regions_where_the_catalog_has_the_sources(results, tmp_path, monkeypatch, coordinates):
    """ds9 reads the FITS file and the regions, and writes the regions in pixels by its own WCS."""
    if not (shutil.which("ds9") and shutil.which("Xvfb")):
        absent = pytest.fail if os.environ.get("RAMPFLOW_DS9") == "required" else pytest.skip
        absent("ds9 or Xvfb is not installed; on Debian: apt-get install saods9 xvfb")
    folder, _ = results
    saved = tmp_path / "saved.reg"
    options = ["-regions", "system", "image", "-regions", "save", str(saved), "-exit"]
    with display() as name:
        monkeypatch.setenv("DISPLAY", name)
        monkeypatch.setenv("HOME", str(tmp_path))
        run(STEM, "--results", folder, "--output", tmp_path, "--coordinates", coordinates, "--ds9", "--", *options)
    read = Regions.read(saved, format="ds9")
    sources = [region for region in read if region.meta["tag"][0] in ("extended", "point")]
    places = [(region.center.x, region.center.y) for region in sources]
    np.testing.assert_allclose(places, [(20.25, 30), (60.5, 99.75), (100, 12.5)], atol=0.01)
    angles = [region.angle.to_value("deg") % 180 for region in sources[:2]]
    np.testing.assert_allclose(angles, [10, 100], atol=0.5)
    assert [region.meta["tag"] for region in read[3:]] == [["SATURATED"], ["JUMP_DET"], ["DO_NOT_USE"]]


@pytest.mark.slow
def test_the_commands_of_the_page_run(results, tmp_path, capsys, monkeypatch):
    """Those of docs/how-to/other-tools.md, in a working folder with results, where there is no ds9."""
    page = (ROOT / "docs" / "how-to" / "other-tools.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page.replace("STEM", STEM), re.MULTILINE | re.DOTALL)
    commands = [line for language, text in blocks if language == "bash" for line in text.splitlines()]
    programs = [shlex.split(line)[2:] for line in commands if line.startswith("python scripts/view.py ")]
    assert len(programs) == 4
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "results").symlink_to(results[0])
    for words in programs:
        run(*words)
    files = {path.name.replace(STEM, "STEM").replace(EXPOSURE, "EXPOSURE") for path in (tmp_path / "view").iterdir()}
    assert files >= {"STEM_cal.fits", "STEM_sources.reg", "STEM_flags.reg", "STEM_imviz.ipynb"}
    assert files <= set(re.findall(r"\bSTEM_\w+\.\w+", page)) | {"STEM_sources.ecsv", "EXPOSURE_f158_focal_plane.png"}
    names = {}
    for language, text in blocks:
        if language == "python":
            exec(text, names)
    assert np.isfinite(names["position"].ra.deg)
