"""Products on S3: they appear there whole, are checked, and are known by a listing."""

import json
import os

import declarations
import pytest
from object_stores import BUCKET, Fault, put, s3_server
from small_files import run

from rampflow.errors import RampflowError
from rampflow.remote.errors import RemoteError, RemoteRefused
from rampflow.remote.files import list_folder
from rampflow.remote.upload import upload
from rampflow.workflow.configuration import validated
from rampflow.workflow.uploads import Uploads

ADDRESS = "s3://raw/out/"


@pytest.fixture(scope="module")
def server():
    with s3_server() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.mark.parametrize("size", [10, 20 << 20])
def test_files_are_uploaded_whole(server, tmp_path, size):
    path = tmp_path / "a_cal.asdf"
    path.write_bytes(content := os.urandom(size))
    file = upload(path, f"s3://raw/whole/{size}")
    assert (file.size, file.address) == (size, f"s3://raw/whole/{size}")
    assert server.client.get_object(Bucket=BUCKET, Key=f"whole/{size}")["Body"].read() == content


def test_a_refused_upload_is_named(server, tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    server.faults["/closed/a"] = Fault(403)
    with pytest.raises(RemoteRefused, match="s3://raw/closed/a: the server refuses it"):
        upload(tmp_path / "a", "s3://raw/closed/a")


def test_another_content_on_s3_is_noticed(server, tmp_path, monkeypatch):
    import obstore

    (tmp_path / "a").write_bytes(b"abc")
    monkeypatch.setattr(obstore, "put", lambda *arguments, **options: put(server, "twice/a", b"xyz"))
    with pytest.raises(RemoteError, match="something else writes to this place"):
        upload(tmp_path / "a", "s3://raw/twice/a")


@pytest.mark.parametrize(
    ("given", "results", "address"),
    [
        ("s3://raw/a/b", "s3/raw/a/b", "s3://raw/a/b/"),
        ("s3://raw/", "s3/raw", "s3://raw/"),
        ("results", "results", None),
    ],
)
def test_results_on_s3_have_a_folder_here(given, results, address):
    settings = validated({"results": given}, declarations.steps())
    assert (settings["results"], settings["upload"]) == (results, address)


@pytest.mark.parametrize("given", ["https://example.org/a/", "s3://raw/../x", "s3://"])
def test_results_that_can_t_be_written_are_refused(given):
    with pytest.raises(RampflowError, match="results is .* it takes a folder, or an address as s3://BUCKET/FOLDER/"):
        validated({"results": given}, declarations.steps())


def test_receipts_of_lost_products_are_forgotten(server, make_plan, tmp_path):
    plan = make_plan(results=ADDRESS)
    uploads = Uploads(plan)
    assert uploads.names() == ["a", "a1", "a2", "a3", "b", "b1"] and uploads.forget_lost() == []
    assert uploads.products("a") == ["s3/raw/out/a_tweakreg.json"]
    for name in ("a1", "a2", "b1"):
        files = [tmp_path / f"{name}_cal.asdf", tmp_path / f"{name}_wcs.asdf"]
        for path in files:
            path.write_text(f"{path.name} of the test")
        done = run("upload_products", uploads.receipt(name), *files, "--to", ADDRESS)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / uploads.receipt("a1")).read_text())["files"].keys() == {"a1_cal.asdf", "a1_wcs.asdf"}
    assert len(list_folder(ADDRESS)) == 6
    server.counts.clear()
    assert uploads.forget_lost() == [] and server.counts["all"] == 1, "one listing"
    server.client.delete_object(Bucket=BUCKET, Key="out/a1_wcs.asdf")
    put(server, "out/b1_cal.asdf", b"something else")
    assert (
        uploads.forget_lost() == ["a1", "b1"] == [n for n in ("a1", "a2", "b1") if not (tmp_path / uploads.receipt(n)).exists()]
    )


def test_results_on_this_machine_are_not_uploaded(make_plan):
    assert Uploads(make_plan()).names() == []


def test_the_message_names_what_is_uploaded_again(make_plan):
    uploads = Uploads(make_plan(results=ADDRESS))
    start = f"{ADDRESS}: products are missing or have changed there, and are uploaded again: "
    assert uploads.describe_lost(["a"]) == f"{start}a"
    assert uploads.describe_lost(["a", "a1", "a2", "b"]) == f"{start}a, a1, a2 and 1 more"
