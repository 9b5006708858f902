"""The installed package: what it holds, and that it does the same as the clone."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
import yaml
from package import build, names_in, simulate_small_visit
from products import arrays_of, assert_same_products
from repository import ROOT
from shared_folders import make_once
from small_files import assert_same_arrays, meta_of
from snakemake_runs import Workflow, planned_jobs

from rampflow import calibrate
from rampflow.chain import STEPS
from rampflow.command.parser import COMMANDS
from rampflow.errors import RampflowError

FIRST = "r0000101001001001001_0001_wfi01_f158"
RAW = f"demo/{FIRST}_uncal.asdf"
STARS = "astrometric_catalog=demo/astrometric.ecsv"
CRDS_ALONE = {"CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu"}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Folder of the small visit's simulated exposures, for reading."""
    return make_once(tmp_path_factory, "small_visit", simulate_small_visit)


@pytest.fixture
def working(simulated, tmp_path):
    """A working folder with the simulated exposures."""
    (tmp_path / "demo").symlink_to(simulated / "demo")
    return tmp_path


@pytest.fixture
def cache(simulated):
    """The CRDS cache of the small visit."""
    return simulated / "demo" / "crds_cache"


@pytest.fixture(scope="module")
def processed(simulated, package, tmp_path_factory):
    """A working folder in which the command has processed the small visit."""

    def process(folder):
        (folder / "demo").symlink_to(simulated / "demo")
        compiled = package.run("compile", cwd=folder)  # else each of the first jobs does it
        assert compiled.returncode == 0 and "loops of source_catalog: ready" in compiled.stdout, compiled.stderr
        done = package.run(
            *("run", "demo/visit_asn.json", "--results", "results", "--cores", "2"),
            *("--config", STARS, "job_per=exposure", "keep_intermediates=[dq_init]"),
            cwd=folder,
            cache=simulated / "demo" / "crds_cache",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "3 of 3 exposures have their products" in done.stderr

    return make_once(tmp_path_factory, "processed_by_package", process)


def in_repository(*folders):
    """Files that git knows in some folders of the clone."""
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not in a git repository")
    return listed.stdout.splitlines()


def environment_without_crds():
    """The environment without the variables that the crds package sets when it is imported."""
    others = {"CRDS_PATH", "CRDS_CONTEXT", "CRDS_SERVER_URL"}
    kept = [name for name in os.environ if name in others or not name.startswith(("CRDS_", "PASS_INVALID_VALUES"))]
    return {name: os.environ[name] for name in kept}


# ------------------------------------------------------------------------------------------------------------ what it holds
def test_the_wheel_has_every_file_of_a_run_once(package):
    (wheel,) = package.bin.parent.glob("*.whl")
    names = names_in(wheel)
    assert len(names) == len(set(names))
    library = [f"rampflow/{path.removeprefix('scripts/rampflow/')}" for path in in_repository("scripts/rampflow")]
    others = [path for path in in_repository("scripts", "workflow", "config") if not path.startswith("scripts/rampflow/")]
    plugin = [
        path.removeprefix("plugins/progress/") for path in in_repository("plugins/progress/snakemake_logger_plugin_progress")
    ]
    expected = {*library, *(f"rampflow/share/{path}" for path in others), *plugin, "rampflow/share/envs/rampflow.yaml"}
    assert set(names) == expected


def test_a_source_distribution_gives_the_same_wheel(package, tmp_path):
    archive = build(tmp_path, "sdist")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (wheel,) = package.bin.parent.glob("*.whl")
    again = build(tmp_path, source=source)
    assert (again.name, sorted(names_in(again))) == (wheel.name, sorted(names_in(wheel)))


def test_the_installed_version_is_that_of_the_clone(package, tmp_path):
    shown = package.run("--version", cwd=tmp_path).stdout.split()
    assert shown == ["rampflow", os.environ["RAMPFLOW_VERSION"]]
    done = package.run("-c", "import rampflow; print(rampflow.__version__, rampflow.__file__)", program="python", cwd=tmp_path)
    version, path = done.stdout.split()
    assert version == shown[1] and path == str(package.library / "__init__.py")


def test_the_package_has_the_fingerprints_of_the_clone(package, tmp_path):
    """So that products of the one are current for the other."""
    from rampflow.workflow.fingerprint import fingerprint

    code = "import sys; from rampflow.workflow.fingerprint import fingerprint; print(*map(fingerprint, sys.argv[1:]))"
    names = [*STEPS, "finalize", "process_exposure", "report"]
    done = package.run("-c", code, *names, program="python", cwd=tmp_path)
    assert done.stdout.split() == [fingerprint(name) for name in names], done.stderr


def test_no_script_is_a_module_of_the_environment(package, tmp_path):
    """Only the library and the plugin are: scripts have names such as report and watch."""
    site = package.library.parent
    added = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert added == {"rampflow", "snakemake_logger_plugin_progress", "others.pth"} | ({"__pycache__"} & added)
    done = package.run("-c", "import saturation", program="python", cwd=tmp_path)
    assert "No module named 'saturation'" in done.stderr


def test_the_dependencies_are_those_of_the_environment(package):
    """Each line of rampflow.in is a requirement of the package that its pin meets, and each extra one of another file."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    def listed(name):
        lines = [line.partition("#")[0].strip() for line in (ROOT / "envs" / name).read_text().splitlines()]
        return {canonicalize_name(Requirement(line).name) for line in lines if line}

    (path,) = package.library.parent.glob("rampflow-*.dist-info")
    requirements = [Requirement(text) for text in importlib.metadata.Distribution.at(path).requires]
    pins = {}
    for name in ("rampflow", "dev", "docs", "cluster", "watch", "fetch", "view"):
        for line in (ROOT / "envs" / f"{name}.txt").read_text().splitlines():
            if not line.startswith("#"):
                package_name, _, version = line.partition("==")
                pins[canonicalize_name(package_name)] = version
    for requirement in requirements:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
        assert "==" not in str(requirement.specifier) and str(requirement.specifier)
    required = {canonicalize_name(r.name) for r in requirements if not r.marker}
    assert required == listed("rampflow.in")
    for extra in ("cluster", "watch", "fetch", "view", "docs"):
        names = {canonicalize_name(r.name) for r in requirements if r.marker and r.marker.evaluate({"extra": extra})}
        assert names == listed(f"{extra}.in")


# ------------------------------------------------------------------------------------------------------- the same as a clone
@pytest.mark.workflow
def test_the_demonstration_of_the_package_has_the_products_of_the_clone(visit, package, tmp_path):
    """All exposure types, simulated and processed in an empty folder."""
    # A context for real exposures is none of its cache.
    done = package.run("demo", "--cores", "2", cwd=tmp_path, CRDS_CONTEXT="roman_9999.pmap")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 exposures in demo/results" in done.stdout
    assert_same_products(tmp_path / "demo" / "results", visit.results)


@pytest.mark.workflow
def test_an_exposure_of_the_demonstration_is_processed_as_the_page_says(visit, package, tmp_path):
    """In a shell, without a home folder and without variables of CRDS but those of the page."""
    (tmp_path / "demo").symlink_to(visit.inputs)
    page = (ROOT / "docs" / "how-to" / "install.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if block.startswith("rampflow demo\nexport "))
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CRDS_", "RAMPFLOW_VERSION", "PYTHONPATH"))
    }
    environment = kept | {"PATH": f"{package.bin}:{os.environ['PATH']}", "HOME": "/dev/null/home"}
    command = ["bash", "-ec", block.removeprefix("rampflow demo\n")]  # the fixture has made it
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    image = f"{FIRST}_cal.asdf"
    assert_same_arrays(tmp_path / "results" / image, visit.results / image, ("data", "err", "dq"))
    assert meta_of(tmp_path / "results" / image)["cal_step"]["tweakreg"] == "COMPLETE"


@pytest.mark.workflow
def test_the_clone_has_nothing_to_do_after_the_package(processed, cache):
    given = ["--config", "input=demo/visit_asn.json", STARS, "job_per=exposure", "keep_intermediates=[dq_init]"]
    assert Workflow(processed, cache).jobs(*given) == {}


@pytest.mark.workflow
def test_nothing_but_the_working_folder_is_written(package, working, cache):
    """Neither the installed package nor the home folder can be; numba's compiled loops and Snakemake's files need a place."""
    installed = package.library.parent
    before = {path: path.stat().st_mtime_ns for path in installed.rglob("*")}
    subprocess.run(["chmod", "-R", "a-w", installed], check=True)
    # Root may write everywhere, unless it gives that up.
    limited = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    try:
        done = package.run(
            *("run", RAW, "--config", STARS, "--until", "linearity", "--cores", "2", "--notemp"),
            cwd=working,
            cache=cache,
            prefix=limited,
            HOME="/dev/null/home",
        )
    finally:
        subprocess.run(["chmod", "-R", "u+w", installed], check=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (working / "results" / "intermediates" / f"{FIRST}_linearity.asdf").is_file()
    assert "the folder for caches" in done.stderr
    assert list((working / ".rampflow" / "cache").rglob("*.nbi"))
    assert {path: path.stat().st_mtime_ns for path in installed.rglob("*")} == before


@pytest.mark.workflow
def test_the_snakefile_of_the_package_has_the_jobs_of_the_clone(package, working, cache):
    given = ["--config", "input=demo/visit_asn.json", STARS]
    expected = Workflow(working, cache).jobs(*given)
    assert expected["ramp_fitting"] == 3
    snakefile = package.library / "share" / "workflow" / "Snakefile"
    done = package.run(
        *("-m", "snakemake", "--snakefile", snakefile, "--cores", "2", "--dry-run", *given),
        program="python",
        cwd=working,
        cache=cache,
    )
    counts = planned_jobs(done.stdout + done.stderr)
    assert {rule: n for rule, n in counts.items() if rule not in ("all", "total")} == expected, done.stderr


@pytest.mark.workflow
def test_a_module_of_the_package_has_the_jobs_of_the_clone(package, working, cache):
    snakefile = package.library / "share" / "workflow" / "Snakefile"
    (working / "Snakefile").write_text(
        f'module rampflow:\n    snakefile: "{snakefile}"\n    config: {{"input": "demo/visit_asn.json"}}\n\n'
        "use rule * from rampflow as rampflow_*\n\n"
        "rule mine:\n    default_target: True\n    input: rules.rampflow_all.input\n"
    )
    done = package.run("-m", "snakemake", "--cores", "2", "--dry-run", program="python", cwd=working, cache=cache)
    counts = planned_jobs(done.stdout + done.stderr)
    assert counts["rampflow_ramp_fitting"] == counts["rampflow_finalize"] + 1 == 3, done.stderr


# ------------------------------------------------------------------------------------------------------------- single steps
@pytest.mark.workflow
def test_a_step_takes_what_crds_has(processed, package, working, cache):
    """The file is that of the workflow: references, parameters and what is recorded of them."""
    done = package.run("step", "dq_init", RAW, "out.asdf", cwd=working, cache=cache)
    assert done.returncode == 0, done.stderr
    expected = processed / "results" / "intermediates" / f"{FIRST}_dqinit.asdf"
    ours, theirs = arrays_of(working / "out.asdf"), arrays_of(expected)
    ours, theirs = ({key.partition(".asdf")[2]: array.tobytes() for key, array in a.items()} for a in (ours, theirs))
    assert ours == theirs
    assert meta_of(working / "out.asdf")["ref_file"] == meta_of(expected)["ref_file"]
    assert meta_of(working / "out.asdf")["ref_file"]["crds"]["context"] == "roman_0001.pmap"


@pytest.mark.workflow
def test_a_step_takes_given_references_and_parameters_of_crds(package, processed, working, tmp_path, cache):
    from parameter_references import add_parameters

    own = tmp_path / "own_cache"
    shutil.copytree(cache, own)
    add_parameters(own, "0005", pars_saturationstep=("WFI_IMAGE", {"n_pix_grow_sat": 3}))
    exposure = processed / "results" / "intermediates" / f"{FIRST}_dqinit.asdf"
    words = ["step", "saturation", str(exposure), "out.asdf"]
    done = package.run(*words, cwd=working, cache=own, CRDS_CONTEXT="roman_0005.pmap")
    assert "n_pix_grow_sat=3" in done.stderr, done.stderr
    done = package.run(*words, "--n_pix_grow_sat", "2", cwd=working, cache=own, CRDS_CONTEXT="roman_0005.pmap")
    assert "n_pix_grow_sat=2" in done.stderr, done.stderr
    reference = next((own / "references" / "roman" / "wfi").glob("*_saturation_wfi01_*"))
    shutil.copy(reference, working / "mine.asdf")
    done = package.run(*words, "--saturation", "mine.asdf", cwd=working, cache=own)
    assert done.returncode == 0 and "mine.asdf" in done.stderr, done.stderr


def test_a_step_without_its_file_is_refused(package, tmp_path):
    done = package.run("step", "linearity", "nowhere.asdf", "out.asdf", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "rampflow step: nowhere.asdf: does not exist\n")


# ------------------------------------------------------------------------------------------------------------------- others
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(package, tmp_path, command):
    done = package.run(command, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: rampflow")
    assert "python scripts/" not in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.workflow
def test_a_commented_configuration_changes_nothing(package, working, cache):
    assert package.run("config", "my.yaml", cwd=working).returncode == 0
    assert yaml.safe_load((working / "my.yaml").read_text()) == {"results": "results"}
    given = ["run", RAW, "--dry-run", "--config", STARS]
    without = package.run(*given, cwd=working, cache=cache)
    done = package.run(*given, "--configfile", "my.yaml", cwd=working, cache=cache)
    assert planned_jobs(done.stdout + done.stderr) == planned_jobs(without.stdout + without.stderr) != {}, done.stderr


def test_the_completion_of_bash_knows_commands_and_steps(package, tmp_path):
    (tmp_path / "completion").write_text(package.run("completion", "bash", cwd=tmp_path).stdout)
    script = 'source completion; COMP_WORDS=({words}); COMP_CWORD={last}; _shtab_rampflow; echo "${{COMPREPLY[@]}}"'
    for words, expected in ((["rampflow", "aff"], "affected"), (["rampflow", "step", "ramp_f"], "ramp_fitting")):
        text = script.format(words=" ".join(words), last=len(words) - 1)
        done = subprocess.run(["bash", "-c", text], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.split() == [expected], done.stderr


# ------------------------------------------------------------------------------------------------------ interface for Python
@pytest.mark.workflow
def test_calibrate_has_the_products_of_a_run(package, working, cache, monkeypatch):
    """One imaging exposure, from the package in a process of its own, and from the clone in this one."""
    done = package.run(
        *("run", RAW, "--results", "run", "--cores", "2", "--config", STARS, "job_per=exposure"), cwd=working, cache=cache
    )
    assert done.returncode == 0, done.stderr
    code = (
        "import rampflow, sys\n"
        f"made = rampflow.calibrate({RAW!r}, results='package', overrides={{'astrometric_catalog': 'demo/astrometric.ecsv'}})\n"
        "assert 'saturation' not in sys.modules and 'snakemake' not in sys.modules\n"
        "print(*sorted(made.paths))\n"
    )
    done = package.run("-c", code, program="python", cwd=working, cache=cache)
    assert done.stdout.split() == ["cal", "cat", "qa", "segm", "tweakreg", "wcs"], done.stderr
    monkeypatch.chdir(working)
    monkeypatch.setenv("CRDS_PATH", "demo/crds_cache")
    monkeypatch.setenv("CRDS_CONTEXT", "roman_0001.pmap")
    monkeypatch.setenv("CRDS_SERVER_URL", CRDS_ALONE["CRDS_SERVER_URL"])

    before = environment_without_crds()
    made = calibrate(RAW, overrides={"astrometric_catalog": "demo/astrometric.ecsv"})
    assert (os.getcwd(), environment_without_crds()) == (str(working), before)
    assert not [path for path in working.iterdir() if path.name not in ("demo", "run", "package", ".rampflow", ".snakemake")
                and path.name not in ("logs", "benchmarks")]  # fmt: skip
    for paths in (made.paths, {path.stem.rpartition("_")[2]: path for path in (working / "package").iterdir()}):
        for kind, path in paths.items():
            ours, expected = arrays_of(path), arrays_of(working / "run" / path.name)
            assert ours.keys() == expected.keys() and kind in made.paths
            assert {k: a.tolist() if a.dtype.hasobject else a.tobytes() for k, a in ours.items()} == {
                k: a.tolist() if a.dtype.hasobject else a.tobytes() for k, a in expected.items()
            }
    assert made.stem == FIRST
    assert made.image.meta.cal_step.tweakreg == "COMPLETE"
    assert made.segmentation.data.max() == len(made.catalog) == made.qa["numbers"]["n_sources"]
    assert str(made.catalog["x_centroid"].unit) == "pix" and made.catalog["x_centroid"].description
    ra, dec = made.wcs(made.catalog["x_centroid"].value, made.catalog["y_centroid"].value)
    assert np.allclose(ra, made.catalog["ra_centroid"].value) and np.allclose(dec, made.catalog["dec_centroid"].value)
    assert f"step ramp_fitting: {FIRST}" in made.log


@pytest.mark.slow
def test_calibrate_refuses_what_the_workflow_refuses(simulated, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    raw = simulated / RAW
    with pytest.raises(RampflowError, match=r"unknown key 'steps\.refpix\.remove_ofset'; did you mean 'remove_offset'"):
        calibrate(raw, overrides={"steps": {"refpix": {"remove_ofset": False}}})
    with pytest.raises(RampflowError, match=r"overrides: job_per can't be set here"):
        calibrate(raw, overrides={"job_per": "step"})
    for malformed in ({"steps": 3}, {"steps": {"refpix": 3}}, {"overrides": ["x"]}, {"overrides": 3}, {"references": 3}):
        (key,) = malformed
        with pytest.raises(RampflowError, match=rf"configuration: {key}"):
            calibrate(raw, overrides=malformed)
    for threads in (0, "2"):
        with pytest.raises(RampflowError, match=f"threads is {threads!r}; it takes a positive number"):
            calibrate(raw, threads=threads)
    with pytest.raises(RampflowError, match=r"overrides is 'steps'; it takes keys"):
        calibrate(raw, overrides="steps")
    with pytest.raises(RampflowError, match=r"references\.override\.flat: .*/my_flat\.asdf does not exist"):
        calibrate(raw, overrides={"references": {"override": {"flat": "my_flat.asdf"}}})
    (tmp_path / "file").touch()
    with pytest.raises(RampflowError, match=r"results: .*/file: can't be written \(File exists\)"):
        calibrate(raw, "file")
    for given in (("s3://raw/x_uncal.asdf", "results"), (raw, "s3://raw/out")):
        with pytest.raises(RampflowError, match=r"is s3://raw/.*; it takes a path on the disk"):
            calibrate(*given)
    assert not (tmp_path / "s3:").exists()
    with pytest.raises(RampflowError, match=rf"nowhere_uncal\.asdf'.*\(relative names are taken from {tmp_path}\)"):
        calibrate("nowhere_uncal.asdf", "results")
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.workflow
def test_calibrate_without_a_step_and_with_the_error_of_another(simulated, monkeypatch, tmp_path):
    """A spectral exposure has no catalog. A failed step raises its message, and leaves no file."""
    monkeypatch.chdir(tmp_path)
    for name, value in CRDS_ALONE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CRDS_CONTEXT", "roman_0001.pmap")
    monkeypatch.setenv("CRDS_PATH", str(simulated / "demo" / "crds_cache"))
    raw = simulated / "demo" / "r0000101001001001001_0003_wfi01_grism_uncal.asdf"
    made = calibrate(raw, "out", {"steps": {"dark_decay": {"skip": True}}})
    assert sorted(made.paths) == ["cal", "qa", "wcs"]
    assert made.catalog is None and made.segmentation is None
    assert made.image.meta.cal_step.dark_decay == "SKIPPED"
    gain = next((simulated / "demo" / "crds_cache" / "references" / "roman" / "wfi").glob("*_gain_wfi01_*"))
    with pytest.raises(RampflowError, match=r"is a GAIN reference; give one of READNOISE|ramp_fitting: "):
        calibrate(raw, "failed", {"references": {"override": {"readnoise": str(gain)}}})
    assert list((tmp_path / "failed").iterdir()) == []


def test_functions_of_the_steps_are_those_of_the_scripts(package, tmp_path):
    code = "from rampflow.steps.ramp_fitting import fit_ramps; print(fit_ramps.__code__.co_filename, fit_ramps.__module__)"
    done = package.run("-c", code, program="python", cwd=tmp_path)
    assert done.stdout.split() == [str(package.library / "share/scripts/ramp_fitting.py"), "rampflow.steps.ramp_fitting"]
    from rampflow.steps.ramp_fitting import fit_ramps

    assert fit_ramps.__code__.co_filename == str(ROOT / "scripts" / "ramp_fitting.py")


def test_importing_the_library_imports_no_other_package(package, tmp_path):
    code = "import sys, rampflow.command.parser as p; p.command_parser(); print(*(m for m in sys.modules if '.' not in m))"
    done = package.run("-c", code, program="python", cwd=tmp_path)
    loaded = set(done.stdout.split())
    assert "rampflow" in loaded
    assert not loaded & {"numpy", "astropy", "asdf", "yaml", "snakemake", "subprocess", "importlib_metadata"}
