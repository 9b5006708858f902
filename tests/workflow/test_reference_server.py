"""References from a CRDS server on this machine are retrieved once, by a rule, into the cache."""

import pytest
from demo_visit import FIRST
from reference_server import reference_server
from snakemake_runs import Workflow

pytestmark = pytest.mark.workflow


@pytest.fixture
def server(visit):
    """A server with the files of the visit's CRDS cache."""
    with reference_server(visit.inputs / "crds_cache") as running:
        yield running


def test_a_reference_is_fetched_once_into_the_cache(visit, server, tmp_path):
    workflow = Workflow(tmp_path / "run", tmp_path / "cache")
    workflow.folder.mkdir()
    workflow.environment |= {"CRDS_SERVER_URL": server.address}
    arguments = [
        *(
            "--config",
            f"input=[{visit.inputs / FIRST}_uncal.asdf, {visit.inputs / FIRST.replace('0001_wfi', '0002_wfi')}_uncal.asdf]",
        ),
        *("--until", "saturation", "--notemp"),
    ]
    run = workflow.snakemake(*arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    references = {name: n for name, n in server.served.items() if name.endswith(".asdf")}
    assert references == {f"roman_wfi_{reftype}_wfi01_0001.asdf": 1 for reftype in ("mask", "saturation")}
    for name in references:
        fetched = tmp_path / "cache" / "references" / "roman" / "wfi" / name
        assert fetched.read_bytes() == server.files[name].read_bytes()
    assert len(list((workflow.folder / "results" / "intermediates").glob("*_saturation.asdf"))) == 2
    assert workflow.jobs(*arguments) == {}, "what was fetched is a plain input from now on"


def test_a_reference_that_the_server_lacks_stops_its_steps_alone(visit, server, tmp_path):
    workflow = Workflow(tmp_path / "run", tmp_path / "cache")
    workflow.folder.mkdir()
    workflow.environment |= {"CRDS_SERVER_URL": server.address}
    name = "roman_wfi_saturation_wfi01_0001.asdf"
    del server.info["download_metadata"][name]
    run = workflow.snakemake(
        *("--config", f"input={visit.inputs / FIRST}_uncal.asdf", "--until", "saturation", "--notemp", "--keep-going")
    )
    assert run.returncode != 0
    assert f"the reference {name} can't be fetched" in run.stdout + run.stderr
    assert (workflow.folder / "results" / "intermediates" / f"{FIRST}_dqinit.asdf").is_file()
    assert not list((tmp_path / "cache").rglob(name))
