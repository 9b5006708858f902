"""Compiled loops: where they are cached, what is said while they are compiled, and that it can be done beforehand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "scripts"
RUN = """
from rampflow.kernels.refpix import combine
import numba
import numpy as np
spectrum = np.empty(8, np.complex64)
combine((np.full((1, 5), 2j),) * 3, np.ones((1, 3, 5), np.complex64), (0, 0), (0, 0), spectrum)
print(spectrum[1].imag, numba.config.CACHE_DIR)
"""


def run(**environment):
    # Neither the folder of the source nor the user's is tried, as if they couldn't be written.
    environment["NUMBA_CACHE_LOCATOR_CLASSES"] = "UserProvidedCacheLocator"
    inherited = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, "-c", RUN],
        env={**inherited, "PYTHONPATH": str(SCRIPTS), **environment},
        capture_output=True,
        text=True,
    )


def test_kernels_run_where_nothing_can_be_cached(tmp_path):
    done = run(TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    result, folder = done.stdout.split()
    assert result == "6.0"
    assert "NUMBA_CACHE_DIR" in done.stderr
    assert folder.startswith(str(tmp_path)) and not list(tmp_path.iterdir())  # gone at the end


def test_a_given_folder_takes_the_cache(tmp_path):
    done = run(NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0
    assert list(tmp_path.rglob("refpix.combine*.nbc"))


def test_a_compilation_is_announced_once_and_only_when_it_happens(tmp_path):
    first, second = (run(NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert first.stdout == second.stdout
    # `combine` calls another compiled function of its module.
    assert first.stderr.count("compiling the loops of refpix for this kind of processor") == 1
    assert not second.stderr


#: Calls the functions of the steps after compile_kernels, and prints the loops that were compiled for other types meanwhile.
CALLS = """
import numpy as np
import compile_kernels
from linearity import correct_linearity
from ramp_fitting import fit_ramps
from refpix import SAMPLES, correct_reference_pixels
from rampflow.catalog.circles import sum_in_circles
from rampflow.catalog.local_background import measure_local_background
from rampflow.catalog.psf_photometry import GriddedPSF, fit_psf
from rampflow.catalog.segments import segment_properties
from rampflow.catalog.smoothing import smooth
from rampflow.kernels import float16, linearity, ramp_fitting, refpix, source_catalog

def compiled():
    modules = float16, linearity, ramp_fitting, refpix, source_catalog
    loops = {f"{m.__name__}.{n}": f for m in modules for n, f in vars(m).items() if hasattr(f, "signatures")}
    return {(name, str(signature)) for name, loop in loops.items() for signature in loop.signatures}

assert compile_kernels.main([]) == 0
before = compiled()
rng = np.random.default_rng(1)
frame, pattern = (16, 128), [[1], [2, 3], [4], [5, 6]]
ramp = rng.normal(1000, 5, (4, *frame)).astype("f4")
groupdq, pixeldq, ones = np.zeros(ramp.shape, "u1"), np.zeros(frame, "u4"), np.ones(frame, "f4")
identity = np.stack([0 * ones, ones])
correct_linearity(ramp, groupdq, pixeldq, identity, pixeldq, identity, pattern)
fit_ramps(ramp, groupdq, ones, ones, pattern, 3.0)
float16.to_float16(ramp)
response = np.ones((1, 16 * SAMPLES // 2 + 1), "c8")
correct_reference_pixels(ramp, ramp[:, :, :128].astype("u2"), pixeldq, [response] * 3)
image = rng.normal(0, 1, (40, 40)).astype("f4")
smooth(image, np.zeros(image.shape, bool), 2.0)
stamps = np.exp(-0.5 * np.sum((np.mgrid[-8:9, -8:9] / 3.0) ** 2, axis=0))[None].repeat(4, axis=0)
psf = GriddedPSF(stamps, np.array([0.0, 40, 0, 40]), np.array([0.0, 0, 40, 40]), 2)
for number in (1, 3):
    x = np.linspace(10.0, 30, number)
    image[10:12, 10:12] += 50
    fit_psf(psf, image, np.ones_like(image), np.zeros(image.shape, bool), x, x)
    measure_local_background(image, np.column_stack([x, x]), 3.0, 6.0)
    sum_in_circles(image, np.ones_like(image), np.column_stack([x, x]), 3.0)
    labels = np.zeros(image.shape, "i4")
    labels[10:15, 10:15] = 1
    labels[30:34, 5:9] = number
    segment_properties(image, np.ones_like(image), np.zeros(image.shape, bool), labels, image)
print(sorted(compiled() - before))
"""


def test_compile_kernels_compiles_for_the_types_that_the_steps_have():
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", CALLS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("ready after") == 5
