"""The package: its wheel, an environment with it, and a small visit to process."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from repository import ROOT
from snakemake_runs import Workflow, crds_environment

SMALL_VISIT = Path(__file__).with_name("small_visit.yaml")


def build(folder, kind="wheel", source=ROOT):
    """Build the package from a clone or an unpacked source distribution; the path of the file."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return file


class Package:
    """An environment with the package alone; it sees the other packages of the environment that runs the tests.

    Attributes
    ----------
    bin : pathlib.Path
        Folder of its programs.
    library : pathlib.Path
        Folder of the installed library.
    """

    def __init__(self, folder):
        self.bin = folder / "bin"
        site = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        self.library = site / "rampflow"

    def install(self):
        """Make the environment, and install a wheel of this clone."""
        folder = self.bin.parent
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        wheel = build(folder)
        (self.library.parent / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--no-index", "--ignore-installed", wheel], check=True)

    def run(self, *words, program="rampflow", cwd, cache=None, prefix=(), **variables):
        """Run a program of the environment, with its output as text; `cache` is a CRDS cache, the only one that it finds."""
        environment = (crds_environment(cache) if cache else dict(os.environ)) | variables
        environment.pop("RAMPFLOW_VERSION", None)
        environment.pop("PYTHONPATH", None)
        command = [*prefix, self.bin / program, *words]
        return subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)


def names_in(wheel):
    """Names of the files of a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as file:
        return [name for name in file.namelist() if ".dist-info/" not in name]


def install_package(folder):
    """Make the environment in a folder."""
    Package(folder).install()


def simulate_small_visit(folder):
    """Simulate the small visit in a folder: ``demo/visit_asn.json`` and a CRDS cache."""
    done = Workflow(folder, folder / "demo" / "crds_cache").snakemake(
        "--configfile", str(SMALL_VISIT), snakefile="workflow/simulate.smk"
    )
    assert done.returncode == 0, done.stderr
