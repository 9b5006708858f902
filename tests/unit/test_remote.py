"""Raw exposures on S3 and web servers: found, listed, their headers read by ranges, and fetched in spite of faults."""

import json
import os

import asdf
import numpy as np
import pytest
from object_stores import BUCKET, CREDENTIALS, Fault, put, s3_server, web_server
from small_files import damage_pixels, ramp, run, write_raw

from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.tags import DEFAULT_DATA_MODEL
from rampflow.remote.addresses import is_remote, s3_access
from rampflow.remote.errors import RemoteChanged, RemoteError, RemoteMissing, RemoteRefused
from rampflow.remote.files import RemoteReader, find_file, find_files, list_folder
from rampflow.remote.transfer import download
from rampflow.workflow import inventory, raw_transfer
from rampflow.workflow.association import find_members
from rampflow.workflow.exposure_names import stem_of
from rampflow.workflow.headers import read_header, read_headers

MODEL = DEFAULT_DATA_MODEL
DATA = ramp(rows=256, columns=512)
LARGE = os.urandom(6 << 20)


@pytest.fixture(scope="module")
def server():
    with s3_server() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(autouse=True)
def without_faults(request):
    yield
    if "server" in request.fixturenames:
        running = request.getfixturevalue("server")
        running.faults.clear()
        running.counts.clear()


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw") / "a1_uncal.asdf", DATA)


def warned(file, target):
    warnings = []
    return download(file, target, warnings.append), warnings


# -------------------------------------------------------------------------------------------------------------- addresses
@pytest.mark.parametrize("name", ["s3://raw/l1/", "https://a.org/b_uncal.asdf", "http://a/b.json"])
def test_addresses_are_known_by_their_scheme(name):
    assert is_remote(name)


@pytest.mark.parametrize("name", ["raw", "/raw/s3:/x", "C:/raw", "gaia_s3"])
def test_paths_are_no_addresses(name):
    assert not is_remote(name)


def test_requests_are_signed_if_there_are_credentials(monkeypatch):
    for name in (*CREDENTIALS, "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert s3_access("b") == (True, "eu-west-1", None, None)
    assert s3_access("b", public=True).region == "us-east-1"
    monkeypatch.setenv("AWS_PROFILE", "roman")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store")
    assert s3_access("b") == (False, "eu-west-1", "http://store", "roman")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://other")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert s3_access("b") == (False, "eu-west-1", "http://other", None)


def test_the_keys_of_a_profile(server, monkeypatch, tmp_path):
    put(server, "profile/a.bin", b"abc")
    (tmp_path / "credentials").write_text("[roman]\naws_access_key_id = key\naws_secret_access_key = se%cret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "roman")
    assert find_file("s3://raw/profile/a.bin").size == 3
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(RemoteError, match="profile other .AWS_PROFILE. has no key.*export-credentials --profile other"):
        find_file("s3://raw/profile/a.bin")


# ---------------------------------------------------------------------------------------------------------------- members
def names(members):
    return [stem_of(member.path) for member in members]


def test_folders_patterns_and_files_of_a_bucket(server, tmp_path):
    for name in ("v/b_uncal.asdf", "v/a_uncal.asdf", "v/a_cal.asdf", "v/.c_uncal.asdf", "v/deep/d_uncal.asdf", "v/x.json"):
        put(server, name, b"x")
    members = find_members("s3://raw/v/", tmp_path)
    assert names(members) == ["a", "b"] == [member.association for member in members]
    assert names(find_members("s3://raw/v", tmp_path)) == ["a", "b"]
    assert [(m.source, m.remote.size) for m in members] == [(f"s3://raw/v/{n}_uncal.asdf", 1) for n in "ab"]
    assert names(find_members("s3://raw/v/b*_uncal.asdf", tmp_path)) == ["b"]
    assert find_members("s3://raw/v/b_uncal.asdf", tmp_path) == members[1:]
    assert names(find_members(["s3://raw/v/", "s3://raw/v/deep/"], tmp_path, ["b"])) == ["a", "d"]


def test_what_is_not_in_a_bucket_is_named(server, tmp_path):
    put(server, "w/a_cal.asdf", b"x")
    with pytest.raises(RampflowError, match=r"s3://raw/none/.*no file \*_uncal.asdf"):
        find_members("s3://raw/none/", tmp_path)
    assert "s3://raw/w/b_uncal.asdf: does not exist" in find_members("s3://raw/w/b_uncal.asdf", tmp_path)[0].problem
    assert "fetch it and the files beside it" in find_members("s3://raw/w/a_cal.asdf", tmp_path)[0].problem
    with pytest.raises(RampflowError, match="s3://nobucket/l1/.*NoSuchBucket|s3://nobucket/l1/.*does not exist"):
        find_members("s3://nobucket/l1/", tmp_path)
    with pytest.raises(RampflowError, match="can't be listed on a web server"):
        find_members("https://example.org/l1/", tmp_path)


def association(*expnames, **entries):
    members = [{"expname": name, "exptype": "science", **entries} for name in expnames]
    return json.dumps({"products": [{"name": "visit", "members": members}]}).encode()


def test_association_files_on_s3_and_of_addresses(server, tmp_path):
    stems = [f"asn{number:02d}" for number in range(12)]
    for stem in stems:
        put(server, f"asn/{stem}_uncal.asdf", b"x")
    listed = [f"{stem}_uncal.asdf" for stem in stems]
    address = put(server, "asn/v_asn.json", association(*listed))
    server.counts.clear()
    members = find_members(address, tmp_path)
    assert names(members) == stems and {m.association for m in members} == {"visit"}
    assert server.counts["all"] == 2 and server.counts["LIST"] == 1, "the file, and one listing for all its members"
    (tmp_path / "own_asn.json").write_bytes(association(*(m.source for m in members[:2])))
    assert names(find_members("own_asn.json", tmp_path)) == stems[:2]
    lacking = put(server, "asn/w_asn.json", association(*listed, "gone_uncal.asdf"))
    assert "s3://raw/asn/gone_uncal.asdf: does not exist" in find_members(lacking, tmp_path)[-1].problem
    assert len(find_members(lacking, tmp_path, ["gone"])) == 12
    with pytest.raises(RampflowError, match="tweakreg_catalog.*fetch both"):
        find_members(put(server, "asn/x_asn.json", association(*listed, tweakreg_catalog="c.ecsv")), tmp_path)
    with pytest.raises(RampflowError, match="s3://raw/asn/none_asn.json: does not exist"):
        find_members("s3://raw/asn/none_asn.json", tmp_path)
    notices = []
    assert find_members(["s3://raw/asn/none_asn.json", "s3://raw/none/"], tmp_path, notices=notices) == []
    assert len(notices) == 2, "with `incoming: true`, they may still arrive"


def test_a_bucket_that_may_not_be_listed_is_asked_for_each_file(server, tmp_path):
    for number in range(4):
        put(server, f"closed/c{number}_uncal.asdf", b"x")
    address = put(server, "closed/v_asn.json", association(*(f"c{number}_uncal.asdf" for number in range(4))))
    server.faults[f"/{BUCKET}"] = Fault(403)  # the path of a listing
    assert [member.problem for member in find_members(address, tmp_path)] == [""] * 4


# ---------------------------------------------------------------------------------------------------------------- headers
def test_headers_are_read_by_ranges_and_remembered(server, raw, tmp_path):
    for stem in ("h1", "h2"):
        put(server, f"headers/{stem}_uncal.asdf", raw)
    server.counts.clear()
    members = find_members("s3://raw/headers/", tmp_path)
    headers, errors = read_headers(members, {}, MODEL)
    assert not errors and list(headers) == [member.source for member in members]
    # A listing, and for each file the tree, which takes two requests, the headers of the second block, and what follows it.
    assert server.counts["all"] == 1 + 2 * 4
    known = read_header(raw, MODEL)
    own = {"content", "stamp", "data_model"}
    for header in headers.values():
        assert {k: v for k, v in header.items() if k not in own} == {k: v for k, v in known.items() if k not in own}
    server.counts.clear()
    assert read_headers(find_members("s3://raw/headers/", tmp_path), headers, MODEL) == (headers, {})
    assert dict(server.counts) == {"LIST": 1, "all": 1}
    put(server, "headers/h2_uncal.asdf", write_raw(tmp_path / "h2_uncal.asdf", DATA + 1))
    again, _ = read_headers(find_members("s3://raw/headers/", tmp_path), headers, MODEL)
    one, two = headers
    assert again[one] == headers[one] and again[two]["content"] != headers[two]["content"]


def test_a_copy_with_the_same_tag_has_the_same_content(server, raw):
    one, other = (find_file(put(server, f"{folder}/a1_uncal.asdf", raw)) for folder in ("here", "there"))
    assert one.content == other.content and one != other


def test_bad_objects_are_named_by_their_address(server, raw, tmp_path):
    put(server, "bad/cut_uncal.asdf", raw.read_bytes()[:-5000])
    put(server, "bad/refused_uncal.asdf", raw)
    put(server, "bad/short_uncal.asdf", b"")
    put(server, "bad/text_uncal.asdf", b"some text")
    server.faults["refused_uncal.asdf"] = Fault(403)
    headers, errors = read_headers(find_members("s3://raw/bad/", tmp_path), {}, MODEL)
    assert headers == {}
    for name, text in (("cut", "truncated"), ("refused", "refuses it (403"), ("short", "not an ASDF"), ("text", "not an ASDF")):
        assert errors[f"s3://raw/bad/{name}_uncal.asdf"].startswith(f"s3://raw/bad/{name}_uncal.asdf: ")
        assert text in errors[f"s3://raw/bad/{name}_uncal.asdf"]


def test_a_reader_gives_any_part(server):
    file = find_file(put(server, "reader.bin", LARGE))
    reader = RemoteReader(file)
    for start, size in ((0, 10), (5_000_000, 3), (5_000_001, 100), (0, len(LARGE) + 5), (len(LARGE) - 2, 9), (len(LARGE), 1)):
        assert reader.read(size, start) == LARGE[start : start + size]
    put(server, "reader.bin", LARGE[::-1])
    with pytest.raises(RemoteChanged, match="s3://raw/reader.bin: has changed since the run began"):
        RemoteReader(file).read(10, 1_000_000)


# -------------------------------------------------------------------------------------------------------------- transfers
def test_a_cut_transfer_is_continued(server, tmp_path):
    file = find_file(put(server, "cut.bin", LARGE))
    server.faults["cut.bin"] = Fault(after=2_500_000, times=2)
    server.counts.clear()
    assert warned(file, tmp_path / "cut")[0]
    assert (tmp_path / "cut").read_bytes() == LARGE and server.counts["GET cut.bin"] == 3


def test_what_is_there_is_continued(server, tmp_path):
    file = find_file(put(server, "half.bin", LARGE))
    (tmp_path / "half").write_bytes(LARGE[: 3 << 20])
    server.counts.clear()
    sent = []
    server.faults["half.bin"] = Fault(after=len(LARGE) - (3 << 20), times=1)  # all that is missing
    checked, warnings = warned(file, tmp_path / "half")
    sent = server.counts["GET half.bin"]
    assert checked and sent == 1 and not warnings and (tmp_path / "half").read_bytes() == LARGE


def test_a_damaged_beginning_is_noticed(server, tmp_path):
    file = find_file(put(server, "wrong.bin", LARGE))
    (tmp_path / "wrong").write_bytes(b"x" * 100)
    assert warned(file, tmp_path / "wrong")[0] is False


@pytest.mark.parametrize(
    "fault, error, text",
    [
        (Fault(403), RemoteRefused, "the server refuses it .403.*credentials"),
        (Fault(404), RemoteMissing, "does not exist"),
    ],
)
def test_refused_and_missing_objects_are_named(server, tmp_path, fault, error, text):
    file = find_file(put(server, "faulty.bin", LARGE))
    server.faults["faulty.bin"] = fault
    with pytest.raises(error, match=f"s3://raw/faulty.bin: {text}"):
        warned(file, tmp_path / "faulty")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_throttled_request_is_repeated(server, tmp_path, status):
    file = find_file(put(server, "busy.bin", LARGE))
    server.faults["busy.bin"] = Fault(status, times=2)
    assert warned(file, tmp_path / "busy") == (True, [])


def test_a_slow_answer_is_waited_for(server, tmp_path):
    file = find_file(put(server, "slow.bin", LARGE[: 1 << 20]))
    server.faults["slow.bin"] = Fault(pause=0.05)
    assert warned(file, tmp_path / "slow") == (True, [])


def test_an_object_that_changes_is_refused(server, tmp_path):
    file = find_file(put(server, "changing.bin", LARGE))
    put(server, "changing.bin", LARGE[::-1])
    with pytest.raises(RemoteChanged, match="s3://raw/changing.bin: has changed since the run began; start again"):
        warned(file, tmp_path / "changing")


def test_large_objects_have_no_checksum(server, tmp_path):
    from boto3.s3.transfer import TransferConfig

    (tmp_path / "large").write_bytes(LARGE)
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    server.client.upload_file(str(tmp_path / "large"), BUCKET, "large.bin", Config=parts)
    file = find_file("s3://raw/large.bin")
    assert file.version.endswith('-2"') and warned(file, tmp_path / "copy") == (False, [])
    assert (tmp_path / "copy").read_bytes() == LARGE


# ------------------------------------------------------------------------------------------------------------ web servers
def test_files_of_a_web_server(raw, tmp_path):
    with web_server(raw.parent) as server:
        members = find_members([f"{server.address}/a1_uncal.asdf"], tmp_path)
        headers, errors = read_headers(members, {}, MODEL)
        assert not errors and headers[members[0].source]["shape"] == list(DATA.shape)
        assert server.counts["GET a1_uncal.asdf"] == 4 and server.counts["HEAD a1_uncal.asdf"] == 1
        server.faults["a1_uncal.asdf"] = Fault(after=100_000, times=1)
        download(members[0].remote, tmp_path / "fetched", print)
        assert (tmp_path / "fetched").read_bytes() == raw.read_bytes()
        (raw.parent / "v_asn.json").write_bytes(association("a1_uncal.asdf"))
        found = find_members(f"{server.address}/v_asn.json", tmp_path)
        assert found[0].remote == members[0].remote and found[0].association == "visit"
        missing = find_files([f"{server.address}/none_uncal.asdf"])
        assert all(isinstance(state, RemoteMissing) for state in missing.values())


def test_a_web_server_without_tags_is_asked_for_the_time(raw, tmp_path):
    folder = tmp_path / "www"
    folder.mkdir()
    path = folder / raw.name
    path.write_bytes(raw.read_bytes())
    os.utime(path, (1.8e9, 1.8e9))
    with web_server(folder, tags=False) as server:
        file = find_file(f"{server.address}/{path.name}")
        assert file.e_tag is None and file.version.startswith("modified 2027")
        assert read_header(path, MODEL, RemoteReader(file))["shape"] == list(DATA.shape)
        os.utime(path, (1.9e9, 1.9e9))
        with pytest.raises(RemoteChanged, match="has changed"):
            download(file, tmp_path / "fetched", print)


def test_a_web_server_without_ranges_is_named(raw, tmp_path):
    with web_server(raw.parent, ranges=False) as server:
        file = find_file(f"{server.address}/{raw.name}")
        with pytest.raises(RemoteError, match="gives no parts of files"):
            RemoteReader(file).read(100, 0)
        server.faults[raw.name] = Fault(after=100_000, times=1)
        download(file, tmp_path / "fetched", print)
        assert (tmp_path / "fetched").read_bytes() == raw.read_bytes()


def test_lists_of_folders_of_s3_have_tags(server):
    put(server, "tags/a.bin", b"abc")
    assert list_folder("s3://raw/tags")[0].version == '"900150983cd24fb0d6963f7d28e17f72"', "the MD5 of abc"


# -------------------------------------------------------------------------------------------------------------- program
def fetch(file, output):
    """Run the program with an inventory that has only this file."""
    stem = output.name.removesuffix("_uncal.asdf")
    known = {"shape": [1], "chain": [], "remote": file, "association": stem, "path": file.address, "exposure_type": "WFI_IMAGE"}
    known |= {"stem": stem, "detector": "WFI01", "references": {}, "tweakreg_catalog": None}
    exposures = output.parent.parent / "exposures.json"
    inventory.save(exposures, {"context": None, "links": {}, "exposures": [known]})
    return run("fetch_exposure", stem, output, "--exposures", exposures)


def test_the_program_fetches_a_whole_file(server, raw, tmp_path):
    file = find_file(put(server, "p/a1_uncal.asdf", raw))
    (tmp_path / ".a1_uncal.asdf.0123456789abcdef.part").write_text("of another version")
    assert fetch(file, tmp_path / "a1_uncal.asdf").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a1_uncal.asdf"]
    with AsdfFile(tmp_path / "a1_uncal.asdf") as content:
        content.verify()


def test_the_program_continues_after_it_was_cut(server, raw, tmp_path):
    file = find_file(put(server, "p/b1_uncal.asdf", raw))
    partial = tmp_path / f".b1_uncal.asdf.{file.content}.part"
    partial.write_bytes(raw.read_bytes()[:100_000])
    done = fetch(file, tmp_path / "b1_uncal.asdf")
    assert done.returncode == 0 and "Continuing at byte 100000" in done.stderr
    assert (tmp_path / "b1_uncal.asdf").read_bytes() == raw.read_bytes() and not partial.exists()


def test_the_program_refuses_a_changed_object(server, raw, tmp_path):
    file = find_file(put(server, "p/c1_uncal.asdf", raw))
    put(server, "p/c1_uncal.asdf", b"another")
    output = tmp_path / "new" / "c1_uncal.asdf"
    said = fetch(file, output)
    assert said.returncode == 1 and "s3://raw/p/c1_uncal.asdf: has changed since the run began" in said.stderr
    assert not output.exists()


def test_a_damaged_object_is_fetched_twice_and_named(raw, tmp_path):
    path = tmp_path / "www" / raw.name
    path.parent.mkdir()
    asdf.AsdfFile({"data": np.arange(100_000)}).write_to(path)
    damage_pixels(path)
    with web_server(path.parent) as server:
        file = find_file(f"{server.address}/{raw.name}")
        server.counts.clear()
        with pytest.raises(RampflowError, match=r"http://.*/a1_uncal.asdf: block 0 doesn't match its checksum"):
            raw_transfer.fetch(file, tmp_path / "out" / raw.name)
        assert server.counts[f"GET {raw.name}"] == 2 and list((tmp_path / "out").iterdir()) == []


def test_an_address_without_a_server_is_named(tmp_path, monkeypatch):
    from rampflow.remote import files

    monkeypatch.setitem(files.RETRIES, "max_retries", 0)
    with pytest.raises(RemoteError, match=r"http://127.0.0.1:9/.*: can't be reached .*check the network"):
        find_file("http://127.0.0.1:9/none/a_uncal.asdf")
