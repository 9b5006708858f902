"""The visit read from S3: the same arrays as from the disk, in spite of a cut transfer; a refused object fails alone."""

import json

import pytest
from demo_visit import ASSOCIATION, STEMS
from object_stores import Fault, put, s3_server
from small_files import arrays_of
from snakemake_runs import Workflow

pytestmark = pytest.mark.workflow
CHOSEN = STEMS[:4]
LARGE = 1 << 20  #: answers with the content of a whole exposure are larger


@pytest.fixture
def server():
    with s3_server() as running:
        yield running


@pytest.fixture
def remote(visit, server, tmp_path):
    """Runs of four exposures of the visit that lie on S3."""
    for stem in CHOSEN:
        put(server, f"l1/{stem}_uncal.asdf", visit.inputs / f"{stem}_uncal.asdf")
    members = [{"expname": f"{stem}_uncal.asdf", "exptype": "science"} for stem in CHOSEN]
    put(server, "l1/v_asn.json", json.dumps({"products": [{"name": ASSOCIATION, "members": members}]}).encode())
    server.counts.clear()
    workflow = Workflow(tmp_path / "run", visit.inputs / "crds_cache")
    workflow.folder.mkdir()
    workflow.environment |= server.environment
    workflow.arguments = [
        *("--until", "flatfield", "--keep-going", "--notemp", "--config", "input=s3://raw/l1/v_asn.json"),
        *("keep_intermediates=true", f"astrometric_catalog={visit.inputs}/astrometric.ecsv"),
    ]
    return workflow


def test_exposures_on_s3(visit, remote, server):
    one, cut, refused, other = CHOSEN
    arguments = [word for word in remote.arguments if word != "--notemp"]
    server.faults[f"{cut}_uncal.asdf"] = Fault(after=300_000, least=LARGE, times=1)
    server.faults[f"{refused}_uncal.asdf"] = Fault(403, least=LARGE)
    run = remote.snakemake(*arguments)
    assert run.returncode != 0
    text = (remote.folder / "logs" / "summary.txt").read_text()
    address = f"s3://raw/l1/{refused}_uncal.asdf"
    assert f"{refused} fetch_exposure: {address}: the server refuses it (403" in text
    made = remote.folder / "results" / "intermediates"
    expected = visit.results / "intermediates"
    for stem in (one, cut, other):
        new, old = arrays_of(made / f"{stem}_flat.asdf"), arrays_of(expected / f"{stem}_flat.asdf")
        assert all((new[name].tobytes() == old[name].tobytes()) for name in old), stem
    assert not list(made.glob(f"*{refused}*")), "of the refused exposure, nothing is left"
    assert not list(made.glob("*uncal*")), "raw files are removed after use"
    assert server.most_active <= 2, "as many as there are cores"

    server.faults.clear()
    server.counts.clear()
    assert remote.jobs(*arguments)["fetch_exposure"] == 1
    assert server.counts["all"] == server.counts["LIST"] + server.counts["GET v_asn.json"] == 2
    # Another content under the same name is another input.
    put(server, f"l1/{one}_uncal.asdf", visit.inputs / f"{refused}_uncal.asdf")
    planned = remote.jobs(*arguments)
    assert planned["fetch_exposure"] == planned["dq_init"] == 2
    # The same contents at another place are the same.
    for stem in CHOSEN:
        put(server, f"l2/{stem}_uncal.asdf", visit.inputs / f"{stem}_uncal.asdf")
    put(server, "l2/v_asn.json", server.client.get_object(Bucket="raw", Key="l1/v_asn.json")["Body"].read())
    moved = [word.replace("/l1/", "/l2/") for word in arguments]
    assert remote.jobs(*moved)["fetch_exposure"] == 1


def test_a_refused_exposure_does_not_hold_back_its_association(remote, server):
    """The second pass aligns and finishes the others."""
    refused = CHOSEN[2]
    server.faults[f"{refused}_uncal.asdf"] = Fault(403, least=LARGE)
    run = remote.snakemake(*remote.arguments[2:])  # without --until
    assert run.returncode != 0
    made = {path.name for path in (remote.folder / "results").glob("*_cal.asdf")}
    assert made == {f"{stem}_cal.asdf" for stem in CHOSEN if stem != refused}
    assert f"{refused} fetch_exposure: " in (remote.folder / "logs" / "summary.txt").read_text()


def test_an_object_that_changes_during_the_run(visit, remote, server):
    plan = remote.snakemake(*remote.arguments, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    changed = CHOSEN[0]
    server.faults[f"{changed}_uncal.asdf"] = Fault(412, least=LARGE)
    run = remote.snakemake(*remote.arguments, "--until", "fetch_exposure")
    assert run.returncode != 0
    text = (remote.folder / "logs" / "summary.txt").read_text()
    assert f"s3://raw/l1/{changed}_uncal.asdf: has changed since the run began; start again" in text
    made = {path.name for path in (remote.folder / "results" / "intermediates").glob("*_uncal.asdf")}
    assert made == {f"{stem}_uncal.asdf" for stem in CHOSEN[1:]}


def test_the_limit_of_transfers(remote, server):
    run = remote.snakemake(*remote.arguments, "--until", "fetch_exposure", "--resources", "transfers=1")
    assert run.returncode == 0, run.stderr
    assert server.most_active == 1
