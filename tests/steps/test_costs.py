"""Imported packages and peak memory of each step: no unneeded package, no unneeded copy of the ramp. No test asserts a time."""

import json
import os
import platform
import resource
import subprocess
import sys

import declarations
import numpy as np
import pytest
from simulator.simulate_references import MAKERS, make_cache, make_dust_map
from small_files import SCRIPTS, succeed, write_ramp, write_raw

from rampflow.chain import STEPS, chain_of, image_chain
from rampflow.files.parquet import read_table
from rampflow.workflow.environment import script_environment

pytestmark = pytest.mark.slow

HEAVY = {
    *("asdf", "asdf_astropy", "astropy", "crds", "gwcs", "matplotlib", "numba", "pandas", "photutils", "pyarrow", "rad"),
    *("roman_datamodels", "scipy", "snakemake", "tweakwcs"),
}
#: Those that a step may use. A step that is not listed may use none.
MAY_USE = {
    "refpix": "numba scipy",
    "wfi18_transient": "astropy scipy",
    "linearity": "numba scipy",
    "ramp_fitting": "numba scipy",
    "assign_wcs": "asdf asdf_astropy astropy gwcs rad roman_datamodels scipy",
    "source_catalog": "numba pyarrow rad scipy",
    "astrometric_catalog": "asdf asdf_astropy astropy pyarrow",
    "tweakreg": "asdf asdf_astropy astropy gwcs pyarrow rad roman_datamodels scipy tweakwcs",
    "finalize": "asdf asdf_astropy pyarrow rad",
}
#: The most that a step holds beside what its program takes, in float32 ramps of 9 resultants, with its references and blocks
#: of rows. Each is less than one ramp above what it is.
MOST_RAMPS = {
    "dq_init": 0.9,
    "saturation": 1.4,
    "refpix": 2.2,
    "dark_decay": 0.8,
    "wfi18_transient": 0.9,
    "linearity": 2.3,
    "ramp_fitting": 1.1,
}
SMALL, LARGE = 256, 1024
PATTERN = [[n] for n in range(1, 10)]
RAMP_REFERENCES = {reference.type for name in MOST_RAMPS for reference in declarations.steps()[name].references}

#: Run a script as a program, then tell what it has loaded and the most memory that it held (MB; the kernel's count).
PROBE = """
import json, re, runpy, sys, unittest.mock
sys.argv = sys.argv[1:]
try:
    with unittest.mock.patch("os._exit", sys.exit):
        runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    if end.code:
        raise
status = open("/proc/self/status").read()
print(json.dumps({"modules": sorted({name.partition(".")[0] for name in sys.modules}),
                  "peak": int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) / 1e3}))
"""


def probe(script, *arguments):
    """Run a script that must succeed; return the modules that it loaded, and its peak memory in MB."""
    command = [sys.executable, "-c", PROBE, SCRIPTS / f"{script}.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([os.fspath(a) for a in command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def reference_options(step, references):
    """Options for a step's references, from the folder of a cache."""
    options = []
    for reference in declarations.steps()[step].references:
        found = sorted(references.glob(f"roman_wfi_{reference.type}_*0001.*")) or ["N/A"]  # no dust maps
        mine = [f for f in found if "_wfi18_0001" in str(f) or "_wfi18_f158_" in str(f)]
        options += [f"--{reference.type}", (mine or found)[0]]
    return options


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Folders with references, by detector size."""
    caches = {size: tmp_path_factory.mktemp("caches") / str(size) for size in (SMALL, LARGE)}
    make_cache(caches[SMALL], ("WFI18",), SMALL, seed=1)
    make_cache(caches[LARGE], ("WFI18",), LARGE, seed=1, new=tuple(t for t in MAKERS if t in RAMP_REFERENCES))
    return {size: cache / "references/roman/wfi" for size, cache in caches.items()}


# -------------------------------------------------------------------------------------------------------------- imports
@pytest.fixture(scope="module")
def loaded(tmp_path_factory, references):
    """The heavy packages that each step has loaded when it ends, on an exposure that goes through all of them."""
    folder = tmp_path_factory.mktemp("exposure")
    cache = references[SMALL].parents[2]
    sky, stars = folder / "sky.ecsv", folder / "stars.ecsv"
    succeed("simulator/simulate_sky", sky, "--astrometric", stars, "--radius", 0.006, "--stars", 60, "--galaxies", 20)
    exposure = folder / "e_uncal.asdf"
    options = ("--sky", sky, "--cache", cache, "--detector", "WFI18", "--ma-table", "short")
    succeed("simulator/simulate_exposure", exposure, *options)
    result = {}

    def run(name, *arguments):
        result[name] = HEAVY.intersection(probe(name, *arguments)["modules"])

    for name in image_chain(chain_of("WFI_IMAGE", "WFI18")):
        output = folder / f"e_{STEPS[name].suffix}.asdf"
        run(name, exposure, output, *reference_options(name, references[SMALL]))
        exposure = output
    catalog, segmentation, solutions, found = (folder / n for n in ("e_cat.parquet", "e_segm.asdf", "o.asdf", "s.parquet"))
    options = reference_options("source_catalog", references[SMALL])
    for hemisphere in ("north", "south"):
        make_dust_map(folder / f"{hemisphere}.fits", hemisphere, 1)
        options += [f"--dustmap_{hemisphere}", folder / f"{hemisphere}.fits"]
    run("source_catalog", exposure, catalog, segmentation, *options)
    assert np.isfinite(read_table(catalog, ["dust_ebv"])["dust_ebv"].to_numpy()).all()
    run("astrometric_catalog", found, "--images", exposure, "--astrometric_catalog", stars)
    run("tweakreg", solutions, folder / "o.json", "--images", exposure, "--catalogs", catalog, "--astrometric_catalog", found)
    assert json.loads((folder / "o.json").read_text())["exposures"]
    products = folder / "products"
    products.mkdir()
    options = ["--solutions", solutions, "--catalog", catalog, products / catalog.name]
    options += ["--segmentation", segmentation, products / segmentation.name]
    run("finalize", exposure, products / "e_cal.asdf", products / "e_wcs.asdf", *options)
    return result


@pytest.mark.parametrize("name", [*STEPS, "astrometric_catalog", "finalize"])
def test_a_step_imports_only_the_heavy_packages_that_it_needs(loaded, name):
    assert loaded[name] <= set(MAY_USE.get(name, "").split())


# --------------------------------------------------------------------------------------------------------------- memory
def write_input(path, step, size):
    """An exposure with noise on it, and a few cosmic rays, as the step takes it."""
    rng = np.random.default_rng(1)
    data = rng.normal(6000, 5, (len(PATTERN), size, size)).astype(np.float32)
    data += 20 * np.arange(len(PATTERN), dtype=np.float32)[:, None, None]
    data[4:, ::50, ::50] += 500
    write = write_raw if STEPS[step].takes == "wfi_science_raw" else write_ramp
    return write(path, data, {"instrument.detector": "WFI18"}, PATTERN)


@pytest.mark.parametrize("name", MOST_RAMPS)
def test_a_step_holds_few_ramps_in_memory(tmp_path, references, name):
    def peak(size):
        options = [*reference_options(name, references[size]), "--threads", "2"]
        return probe(name, write_input(tmp_path / f"{size}.asdf", name, size), tmp_path / "o.asdf", *options)["peak"]

    peak(SMALL)  # compiles the loops where that has not happened yet, which takes memory too
    ramp = 4 * len(PATTERN) * (LARGE**2 - SMALL**2) / 1e6
    assert (peak(LARGE) - peak(SMALL)) / ramp < MOST_RAMPS[name]


#: Take and free three arrays of 20 MB, again and again, and tell the pages of memory that the system has cleared for it.
TAKE_AND_FREE = """
import resource
for _ in range(10):
    arrays = [bytearray(20_000_000) for _ in range(3)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_freed_memory_is_kept_for_reuse():
    def pages(environment):
        command = [sys.executable, "-c", TAKE_AND_FREE]
        return int(subprocess.run(command, capture_output=True, check=True, env=os.environ | environment).stdout)

    once = 60_000_000 / resource.getpagesize()
    assert pages(script_environment(None)) < 2 * once < 5 * once < pages({})
