"""Products on S3: uploaded when an exposure is done, and again if they are lost there."""

import pytest
from demo_visit import STEMS
from object_stores import BUCKET, Fault, put, s3_server
from snakemake_runs import Workflow

from rampflow.workflow.uploads import RECORDS

pytestmark = pytest.mark.workflow
CHOSEN = [STEMS[7], STEMS[8]]  # darks, which have the shortest chain
ENDS = ("cal.asdf", "wcs.asdf", "qa.json", "cal.png", "cal_thumb.png")


def test_results_on_s3(visit, tmp_path):
    with s3_server() as server:
        for stem in CHOSEN:
            put(server, f"l1/{stem}_uncal.asdf", visit.inputs / f"{stem}_uncal.asdf")
        workflow = Workflow(tmp_path / "run", visit.inputs / "crds_cache")
        workflow.folder.mkdir()
        workflow.environment |= server.environment
        arguments = ["--keep-going", "--config", "input=s3://raw/l1/", "results=s3://raw/out/visit/"]
        arguments += [f"astrometric_catalog={visit.inputs}/astrometric.ecsv", "job_per=exposure"]
        one, other = CHOSEN
        server.faults[f"/out/visit/{one}_wcs.asdf"] = Fault(403)
        run = workflow.snakemake(*arguments)
        assert run.returncode != 0
        summary = (workflow.folder / "logs" / "summary.txt").read_text()
        assert f"{one} upload_products: s3://raw/out/visit/{one}_wcs.asdf: the server refuses it" in summary
        server.faults.clear()

        assert workflow.jobs(*arguments) == {"upload_products": 1}
        run = workflow.snakemake(*arguments)
        assert run.returncode == 0, run.stdout + run.stderr
        made = workflow.folder / "s3" / "raw" / "out" / "visit"
        listed = server.client.list_objects_v2(Bucket=BUCKET, Prefix="out/")["Contents"]
        found = {item["Key"].removeprefix("out/visit/") for item in listed}
        assert found == {*(f"{stem}_{end}" for stem in CHOSEN for end in ENDS), *RECORDS}
        for name in found:
            content = server.client.get_object(Bucket=BUCKET, Key=f"out/visit/{name}")["Body"].read()
            assert content == (made / name).read_bytes(), name

        assert workflow.jobs(*arguments) == {}
        server.client.delete_object(Bucket=BUCKET, Key=f"out/visit/{other}_cal.asdf")
        server.counts.clear()
        assert workflow.jobs(*arguments) == {"upload_products": 1}
        assert server.counts["all"] == server.counts["LIST"] == 2, "the raw files, and the products"
