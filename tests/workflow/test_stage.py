"""A staged folder is processed in a network namespace of its own, where there is no network."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from demo_visit import ASSOCIATION, SMALL_FIRST, SMALL_SECOND, STEMS
from object_stores import put, s3_server
from small_files import SCRIPTS, arrays_of

from rampflow.workflow.staging import SHELL_ENVIRONMENT as ENVIRONMENT

pytestmark = pytest.mark.workflow
CHOSEN, SMALL = STEMS[:2], (SMALL_FIRST, SMALL_SECOND)
NAMESPACE = ["unshare", "--net"]
can_unshare = shutil.which("unshare") and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


def stage(environment, *arguments, cwd=None):
    command = [sys.executable, str(SCRIPTS / "stage.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


@pytest.mark.skipif(not can_unshare, reason="a network namespace needs root")
def test_a_staged_visit_is_processed_without_a_network(visit, tmp_path):
    flat = next((visit.inputs / "crds_cache" / "references").rglob("*_flat_wfi01_*"))
    own = shutil.copy(flat, tmp_path / "my_flat.asdf")
    bundle = tmp_path / "bundle"
    with s3_server() as server:
        for stem in CHOSEN:
            put(server, f"l1/{stem}_uncal.asdf", visit.inputs / f"{stem}_uncal.asdf")
        members = [{"expname": f"{stem}_uncal.asdf", "exptype": "science"} for stem in CHOSEN]
        address = put(server, "l1/v_asn.json", json.dumps({"products": [{"name": ASSOCIATION, "members": members}]}).encode())
        arguments = [
            *(address, "--to", bundle, "--config", f"astrometric_catalog={visit.inputs}/astrometric.ecsv"),
            *(f"references={{override: {{flat: {own}}}}}", "steps={tweakreg: {margin: 20}}", "job_per=exposure"),
        ]
        done = stage(visit.environment | server.environment, *arguments)
        assert done.returncode == 0, done.stderr
        printed = re.search(r"Run there: cd (\S+) .* --snakefile (\S+) --configfile config\.yaml", done.stderr)
        assert printed[1] == str(bundle) and Path(printed[2]).is_file()
        server.counts.clear()
        again = stage(visit.environment | server.environment, *arguments)
        assert again.returncode == 0, again.stderr
        assert not [name for name in server.counts if name.startswith("GET r") and server.counts[name] > 4], "only headers"
    moved = bundle.rename(tmp_path / "moved")
    (tmp_path / "my_flat.asdf").unlink()
    config = yaml.safe_load((moved / "config.yaml").read_text())
    assert config["references"] == {"override": {"flat": "own/flat_my_flat.asdf"}, "crds_context": "roman_0001.pmap"}
    assert config["steps"] == {"tweakreg": {"margin": 20}} and config["astrometric_catalog"] == "own/astrometric.ecsv"
    environment = {name: value for name, value in visit.environment.items() if not name.startswith("CRDS")}
    run = subprocess.run(
        [*NAMESPACE, "bash", "-c", '. ./environment.sh && exec "$@"', "bash", sys.executable, "-m", "snakemake"]
        + ["--snakefile", printed[2], "--cores", "2", "--configfile", "config.yaml"],
        cwd=moved,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for stem in CHOSEN:
        new = arrays_of(moved / "results" / f"{stem}_cal.asdf")
        old = arrays_of(visit.results / f"{stem}_cal.asdf")
        assert all(new[name].tobytes() == old[name].tobytes() for name in ("data", "dq", "err"))
    assert json.loads((moved / "results" / f"{ASSOCIATION}_tweakreg.json").read_text())["exposures"].keys() == set(CHOSEN)


def test_a_service_can_t_be_staged(visit, tmp_path):
    done = stage(
        visit.environment,
        *(visit.inputs / f"{CHOSEN[0]}_uncal.asdf", "--to", tmp_path / "bundle", "--config", "astrometric_catalog=GAIADR3"),
    )
    assert done.returncode == 1 and "GAIADR3 is a service" in done.stderr and "Traceback" not in done.stderr


def test_nothing_is_made_for_an_input_that_does_not_exist(visit, tmp_path):
    done = stage(visit.environment, "nowhere_asn.json", "--to", tmp_path / "a" / "bundle")
    assert done.returncode == 1 and "input 'nowhere_asn.json': does not exist" in done.stderr
    assert not (tmp_path / "a").exists()


def test_files_of_the_same_name_have_a_copy_each(small_visit, tmp_path):
    """As the flats of several detectors in folders of their own; the same file, named twice, is copied once."""
    flat = next((small_visit.folder / "demo" / "crds_cache" / "references").rglob("*_flat_wfi*")).read_bytes()
    for folder, content in {"one": flat, "two": flat + b"\n"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "flat.asdf").write_bytes(content)
    config = {
        "astrometric_catalog": str(small_visit.folder / "demo" / "astrometric.ecsv"),
        "references": {"override": {"flat": "one/flat.asdf"}, "allow_mismatch": True, "crds_context": None},
        "overrides": [
            {"select": {"exposure": stem}, "references": {"flat": f"{folder}/flat.asdf"}}
            for stem, folder in zip(SMALL, ("two", "one"), strict=True)
        ],
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    arguments = [small_visit.folder / "demo" / f"{stem}_uncal.asdf" for stem in SMALL]
    for _ in range(2):
        done = stage(small_visit.environment, *arguments, "--to", "bundle", "--configfile", "my.yaml", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        staged = yaml.safe_load((tmp_path / "bundle" / "config.yaml").read_text())
        names = [staged["references"]["override"]["flat"], *(entry["references"]["flat"] for entry in staged["overrides"])]
        for name, folder in zip(names, ("one", "two", "one"), strict=True):
            assert (tmp_path / "bundle" / name).read_bytes() == (tmp_path / folder / "flat.asdf").read_bytes()
        assert len(list((tmp_path / "bundle" / "own").rglob("*flat.asdf"))) == 2


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_environment_of_a_bundle_is_its_own_cache_alone(tmp_path, shell):
    """Whatever the user's environment has for CRDS, in the shells of job scripts."""
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    (tmp_path / "environment.sh").write_text(ENVIRONMENT)
    given = {
        "PATH": os.environ["PATH"],
        "CRDS_CONTEXT": "roman_9999.pmap",
        "CRDS_REFPATH": "/elsewhere",
        "CRDS_S3_ENABLED": "1",
    }
    told = subprocess.run([shell, "-c", ". ./environment.sh && env"], cwd=tmp_path, env=given, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    found = dict(line.partition("=")[::2] for line in told.stdout.splitlines() if line.startswith(("CRDS_", "rampflow")))
    assert found == {
        "CRDS_PATH": f"{tmp_path}/crds",
        "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu",
        "CRDS_OBSERVATORY": "roman",
    }


def test_sections_without_a_key_are_left_out(small_visit, tmp_path):
    """As in the file of `rampflow config` where the # was removed before a section, and before none of its keys."""
    (tmp_path / "my.yaml").write_text("references:\nsteps:\n  source_catalog:\n  refpix: {skip: false}\n")
    raw, stars = (small_visit.folder / "demo" / name for name in (f"{SMALL_FIRST}_uncal.asdf", "astrometric.ecsv"))
    given = ["--config", f"astrometric_catalog={stars}", "--configfile", tmp_path / "my.yaml"]
    done = stage(small_visit.environment, raw, "--to", tmp_path / "bundle", *given)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "bundle" / "config.yaml").read_text()) == {
        "steps": {"refpix": {"skip": False}},
        "astrometric_catalog": "own/astrometric.ecsv",
        "input": "L1_asn.json",
        "references": {"crds_context": "roman_0001.pmap"},
    }
