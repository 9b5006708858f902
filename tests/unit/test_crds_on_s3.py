"""References on S3, with CRDS's variables as the Roman Research Nexus sets them and CRDS's own plugin for downloads."""

import hashlib
import json
import os
import pprint
import stat
import sys

import pytest
import yaml
from inventories import built, write_exposure
from object_stores import put, s3_server
from small_files import run

#: A stand-in for the command of AWS, which CRDS's plugin calls: `aws s3 cp SOURCE TARGET`.
AWS = f"""#!{sys.executable}
import sys, boto3
bucket, _, key = sys.argv[3].removeprefix("s3://").partition("/")
boto3.client("s3").download_file(bucket, key, sys.argv[4])
"""


@pytest.fixture
def nexus(cache, tmp_path):
    """A bucket with the files of a cache, and the environment of a machine that reads it, with an empty cache of its own."""
    with s3_server() as server:
        files = [p for folder in ("mappings", "references") for p in (cache / folder).rglob("roman_*") if p.is_file()]
        known = {p.name: {"size": str(p.stat().st_size), "sha1sum": hashlib.sha1(p.read_bytes()).hexdigest()} for p in files}
        for path in files:
            put(server, f"crds/{'mappings' if path.suffix.endswith('map') else 'references'}/roman/{path.name}", path)
        context = dict.fromkeys(("operational_context", "default_context", "edit_context"), "roman_0001.pmap")
        info = context | {"observatory": "roman", "bad_files": "", "bad_files_list": [], "force_remote_mode": False}
        info |= {"crds_version": {"str": "14.0.3"}, "last_synced": "2026-01-01 00:00:00", "download_metadata": known}
        put(server, "crds/config/roman/server_config", pprint.pformat(info).encode())
        aws = tmp_path / "bin" / "aws"
        aws.parent.mkdir()
        aws.write_text(AWS)
        aws.chmod(aws.stat().st_mode | stat.S_IXUSR)
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "awscli.py").write_text("")
        root = "s3://raw/crds"
        server.environment |= {
            "CRDS_PATH": str(tmp_path / "own_cache"),
            "CRDS_OBSERVATORY": "roman",
            "CRDS_SERVER_URL": "https://roman-crds-serverless.stsci.edu",
            "CRDS_S3_ENABLED": "1",
            "CRDS_S3_RETURN_URI": "0",
            "CRDS_MODE": "s3",
            "CRDS_MAPPING_URI": f"{root}/mappings/roman",
            "CRDS_REFERENCE_URI": f"{root}/references/roman",
            "CRDS_CONFIG_URI": f"{root}/config/roman",
            "CRDS_DOWNLOAD_MODE": "plugin",
            "CRDS_DOWNLOAD_PLUGIN": "crds_s3_get ${FILENAME} -d ${OUTPUT_PATH} -s ${FILE_SIZE} -c ${FILE_SHA1SUM}",
            "CRDS_REF_SUBDIR_MODE": "flat",
            "CRDS_CONTEXT": "",
            "PATH": os.pathsep.join([str(aws.parent), os.path.dirname(sys.executable), os.environ["PATH"]]),
        }
        yield server


@pytest.fixture
def modules(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))


def test_references_are_chosen_and_fetched(nexus, cache, modules, tmp_path):
    (tmp_path / "raw").mkdir()
    write_exposure(tmp_path / "raw", "r0000101001001001001_0001_wfi01_f158")
    found = built(tmp_path, tmp_path / "own_cache", **{k: v for k, v in nexus.environment.items() if k != "CRDS_PATH"})
    (exposure,) = found["exposures"].values()
    chosen = exposure[5]
    assert found["context"] == "roman_0001.pmap"
    assert chosen["flat"].startswith(str(tmp_path / "own_cache")) and chosen["flat"].endswith("/roman_wfi_flat_wfi01_0001.asdf")
    assert chosen["flat"] in found["missing"]
    link = tmp_path / ".rampflow" / "files" / "0123" / "roman_wfi_flat_wfi01_0001.asdf"
    done = run("fetch_reference", link, "--crds_context", "roman_0001.pmap", **nexus.environment)
    assert done.returncode == 0, done.stderr
    expected = next((cache / "references").rglob("roman_wfi_flat_wfi01_0001.asdf"))
    assert link.resolve().read_bytes() == expected.read_bytes()


def test_a_reference_that_can_t_be_fetched_is_named(nexus, modules, tmp_path):
    name = "roman_wfi_flat_wfi01_0001.asdf"
    nexus.client.delete_object(Bucket="raw", Key=f"crds/references/roman/{name}")
    link = tmp_path / ".rampflow" / "files" / "0123" / name
    done = run("fetch_reference", link, "--crds_context", "roman_0001.pmap", **nexus.environment)
    assert done.returncode == 1 and f"the reference {name} can't be fetched" in done.stderr
    assert not link.exists() and not list((tmp_path / "own_cache").rglob(name))


def test_a_cache_is_staged(nexus, modules, tmp_path):
    (tmp_path / "raw").mkdir()
    write_exposure(tmp_path / "raw", "r0000101001001001001_0001_wfi01_f158")
    bundle = tmp_path / "bundle"
    stars = tmp_path / "stars.csv"
    stars.write_text("ra,dec\n1,2\n")
    done = run("stage", tmp_path / "raw", "--to", bundle, "--config", f"astrometric_catalog={stars}", **nexus.environment)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((bundle / "config.yaml").read_text())["references"]["crds_context"] == "roman_0001.pmap"
    product = json.loads((bundle / "L1_asn.json").read_text())["products"][0]
    assert product["members"][0]["expname"] == "l1/r0000101001001001001_0001_wfi01_f158_uncal.asdf"
    config = yaml.safe_load((bundle / "config.yaml").read_text())
    found = built(bundle, bundle / "crds", config)
    assert found["missing"] == [] and found["context"] == "roman_0001.pmap"
