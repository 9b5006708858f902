"""The commands of the how-to pages: each is run, those of Snakemake as dry runs, in a folder with the files that they name."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from demo_visit import STEMS
from object_stores import s3_server, web_server
from repository import ROOT
from snakemake_runs import planned_jobs

PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
FIRST, SECOND = STEMS[:2]
#: Commands that need more than a folder with exposures, by how they begin, and the test that runs them.
RUN_ELSEWHERE = {
    "rampflow": "tests/documents/test_commands.py",
    "make": "tests/documents/test_readme.py",
    "pip install": "tests/package/test_package.py",
    "python -c 'from rampflow.folders": "tests/package/test_package.py",
    "python scripts/fetch.py": "tests/unit/test_fetch.py",
    "python scripts/linearity.py": "tests/documents/test_readme.py",
    "python scripts/process_exposure.py": "tests/steps/test_process_exposure.py",
    "python scripts/stage.py": "tests/workflow/test_stage.py",
    "python scripts/view.py": "tests/steps/test_view.py",
    "python scripts/watch.py": "tests/unit/test_arrivals.py",
    "snakemake --snakefile RAMPFLOW/Snakefile": "tests/workflow/test_stage.py",
    "snakemake --workflow-profile": "tests/documents/test_readme.py",
}
#: Selections of exposures that the folder lacks, which are refused, and others in place of them.
SELECTED = {"pass: 2": "pass: 1", '"*_0002_*", {detector: WFI07}': '{exposure: "*_0002_*"}'}
#: Commands of the shell and of other programs.
OF_OTHERS = {"cd", ".", "source", "export", "mkdir", "jupyter", "scancel"}


def blocks(page, language):
    """Code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    """Commands of a page, in order, without comments."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", "").splitlines()
    return [re.sub(r"  +", " ", line.partition("  #")[0].strip()) for line in lines if not line.startswith("#")]


def ours(page):
    """The commands of a page that are run here."""
    return [
        line
        for line in commands(page)
        if line.split()[0] not in OF_OTHERS and not any(line.startswith(f"{begin} ") for begin in RUN_ELSEWHERE)
        and not any(line.startswith(begin) for begin in RUN_ELSEWHERE)
    ]  # fmt: skip


LINES = list(dict.fromkeys((page.name, line) for page in PAGES for line in ours(page)))
REMOTE = [line for name, line in LINES if name == "remote.md"]


def test_commands_that_are_not_run_here_have_their_test():
    every = [line for page in PAGES for line in commands(page)]
    for begin, test in RUN_ELSEWHERE.items():
        assert any(line.startswith(begin) for line in every), begin
        assert (ROOT / test).is_file()
    assert {line.split()[0] for _, line in LINES} == {"snakemake", "python"} and len(LINES) > 20


@pytest.fixture(scope="module")
def folder(visit, tmp_path_factory):
    """A clone of the repository, with the files that the commands name."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("Snakefile", "workflow", "scripts", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    members = [{"expname": f"{stem}_uncal.asdf", "exptype": "science"} for stem in (FIRST, SECOND)]
    for place in (folder, folder / "L1", folder / "calibrated", folder / "results_old", folder / "results_new"):
        place.mkdir(exist_ok=True)
        for stem in (FIRST, SECOND):
            if place.name.startswith(("calibrated", "results")):
                for path in visit.results.glob(f"{stem}_[cs]*"):
                    (place / path.name).symlink_to(path)
            else:
                (place / f"{stem}_uncal.asdf").symlink_to(visit.inputs / f"{stem}_uncal.asdf")
                (place / "L1_asn.json").write_text(json.dumps({"products": [{"name": "visit", "members": members}]}))
    (folder / "l1").symlink_to(folder / "L1")
    (folder / "results").mkdir()
    shutil.copy(visit.inputs / "astrometric.ecsv", folder / "my_stars.ecsv")
    shutil.copy(next((visit.inputs / "crds_cache" / "references").rglob("*_flat_wfi01*")), folder / "my_flat.asdf")
    mine = [text for text in blocks(ROOT / "docs/how-to/parameters.md", "yaml") if text.startswith("# my.yaml")]
    (folder / "my.yaml").write_text(mine[0])
    return folder


def run(words, folder, environment):
    """Run a command of a page with the interpreter of the tests; its output."""
    words = [sys.executable, *(["-m"] if words[0] == "snakemake" else []), *words[words[0] == "python" :]]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.workflow
@pytest.mark.parametrize(("page", "line"), [pair for pair in LINES if pair[0] != "remote.md"])
def test_commands_of_the_pages_run(visit, folder, page, line):
    line = line.partition(" --report ")[0]  # that report needs products: see test_report.py
    for theirs, mine in SELECTED.items():
        line = line.replace(theirs, mine)
    words = [name for word in shlex.split(line) for name in (
        sorted(str(path.relative_to(folder)) for path in folder.glob(word)) if word.startswith("calibrated/") else [word]
    )]  # fmt: skip
    if words[0] == "python":
        run(words, folder, visit.environment)
        assert (folder / words[2 if "make_association" in line else 4]).exists()
        return
    if "L2_asn.json" in line and not (folder / "L2_asn.json").exists():
        members = [{"expname": f"calibrated/{stem}_cal.asdf", "exptype": "science"} for stem in (FIRST, SECOND)]
        (folder / "L2_asn.json").write_text(json.dumps({"products": [{"name": "visit", "members": members}]}))
    said = run([*words, "--dry-run"], folder, visit.environment)
    counts = planned_jobs(said)
    if "affected" in words:
        assert "affected: 2 of 2 exposures" in said
    elif {"remove_stale", "survey"} & {*words}:
        (target,) = {"remove_stale", "survey"} & {*words}
        assert counts[target] == 1
    elif "calibrated/" in line or "L2_asn.json" in line:
        assert counts["tweakreg"] == 1 and "ramp_fitting" not in counts
    else:
        chain = "exposure_to_source_catalog" if "job_per=exposure" in line else "ramp_fitting"
        assert counts[chain] == (1 if "exclude=" in line else 2) and counts["tweakreg"] == 1
        assert ("association_report" in counts) == ("report" in words)


@pytest.mark.workflow
@pytest.mark.parametrize("line", REMOTE)
def test_commands_with_addresses_run(visit, folder, line):
    """The bucket and the web server are stand-ins on this machine."""
    with s3_server() as server, web_server(folder) as web:
        server.client.create_bucket(Bucket="bucket")
        for path in (folder / "l1").iterdir():
            server.client.put_object(Bucket="bucket", Key=f"l1/{path.name}", Body=path.read_bytes())
        words = shlex.split(line.replace("https://example.org", web.address))
        said = run([*words, "--dry-run"], folder, visit.environment | server.environment)
    counts = planned_jobs(said)
    assert counts["fetch_exposure"] == counts["ramp_fitting"] == (1 if "[https" in line else 2)
    assert ("upload_products" in counts) == ("results=s3" in line)
