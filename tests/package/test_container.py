"""The container recipes: their steps, in a new root of Debian, and a run of what they install.

It needs root, debootstrap, and a network or mirror for Debian's and pip's packages: `make test-container`.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from package import simulate_small_visit
from repository import ROOT

pytestmark = pytest.mark.container

FIRST = "r0000101001001001001_0001_wfi01_f158"
DOCKERFILE, DEFINITION = (ROOT / "envs" / name for name in ("Dockerfile", "rampflow.def"))
#: What a machine behind a proxy or mirror knows of its network; the certificates under a name that Debian does not write to.
NETWORK_FILES = {
    "/etc/resolv.conf": "etc/resolv.conf",
    "/etc/hosts": "etc/hosts",
    "/etc/ssl/certs/ca-certificates.crt": "root/certificates.crt",
}


def steps_of(recipe):
    """The shell commands of a recipe."""
    text = recipe.read_text()
    if recipe == DOCKERFILE:
        return " && ".join(re.findall(r"^RUN (.*)$", text, re.MULTILINE))
    section = re.search(r"^%post\n((?:    .*\n)+)", text, re.MULTILINE)[1]
    return " && ".join(line.strip() for line in section.splitlines())


def test_both_recipes_have_the_same_base_and_steps():
    assert steps_of(DOCKERFILE) == steps_of(DEFINITION)
    base = re.search(r"^FROM (.*)$", DOCKERFILE.read_text(), re.MULTILINE)[1]
    assert base == re.search(r"^From: (.*)$", DEFINITION.read_text(), re.MULTILINE)[1]
    assert base == "debian:trixie-slim"
    assert 'ENTRYPOINT ["rampflow"]' in DOCKERFILE.read_text() and 'exec rampflow "$@"' in DEFINITION.read_text()


@pytest.fixture
def root(tmp_path):
    """A new root of Debian with the files of this clone that git knows in /src; runs a shell command in it."""
    if os.geteuid() or not shutil.which("debootstrap"):
        (pytest.fail if os.environ.get("RAMPFLOW_CONTAINER") == "required" else pytest.skip)("needs root and debootstrap")
    folder = tmp_path / "root"
    mirror = "http://deb.debian.org/debian"
    subprocess.run(["debootstrap", "--variant=minbase", "trixie", folder, mirror], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["git", "clone", "--quiet", ROOT, folder / "src"], check=True)
    inherited = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy") or k == "PIP_INDEX_URL"}
    for path, there in NETWORK_FILES.items():
        if Path(path).exists():
            shutil.copy(path, folder / there)
            inherited |= {"PIP_CERT": f"/{there}"} if there.endswith(".crt") else {}

    def shell(text, **variables):
        environment = inherited | {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"} | variables
        separate = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={folder}/proc"]
        command = [*separate, "chroot", folder, "/bin/sh", "-ec", text]
        return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)

    shell.folder = folder
    yield shell
    shutil.rmtree(folder, ignore_errors=True)


def test_the_steps_of_the_recipes_give_a_command_that_runs(root):
    done = root(steps_of(DOCKERFILE))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not (root.folder / "src").exists()
    assert re.fullmatch(r"rampflow \d+\.\d+\.\d+\S*\n", (shown := root("rampflow --version")).stdout), shown.stderr
    work = root.folder / "work"
    work.mkdir()
    simulate_small_visit(work)
    done = root(
        f"cd /work && rampflow run demo/{FIRST}_uncal.asdf --cores 2 --config astrometric_catalog=demo/astrometric.ecsv",
        CRDS_PATH="/work/demo/crds_cache",
        CRDS_SERVER_URL="https://crds-serverless-mode.stsci.edu",
    )
    assert "1 of 1 exposures have their products" in done.stderr, done.stdout + done.stderr
    assert (work / "results" / f"{FIRST}_cal.asdf").is_file()
