"""The commands of the documents with the installed package: each is run, in a folder with the files that they name."""

import json
import re
import shutil

import pytest
from demo_visit import STEMS
from repository import ROOT
from snakemake_runs import planned_jobs

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIRST, SECOND = STEMS[:2]


def commands():
    """All command lines of the documents that begin with ``rampflow``, in blocks, tables and lists, without comments."""
    found = []
    for page in PAGES:
        if "generated" not in page.parts:
            text = page.read_text()
            for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
                lines = block.replace("\\\n", "").splitlines()
                found += [line.partition("  #")[0].strip() for line in lines if line.startswith("rampflow ")]
            if page.name == "install.md":
                found += re.findall(r"(?:\| |: )`(rampflow [^`]+)`", text)
    return list(dict.fromkeys(found))


#: Simulates and processes a visit: tests/package/test_package.py does it.
DEMO = "rampflow demo"
#: Runs until it is ended: tests/unit/test_arrivals.py. Needs the executor for SLURM: tests/slurm.
ELSEWHERE = ("rampflow watch ", "rampflow run L1_asn.json --workflow-profile slurm")
COMMANDS = [line for line in commands() if line != DEMO and not line.startswith(ELSEWHERE)]


def test_the_demonstration_is_in_the_documents():
    assert DEMO in commands() and len(COMMANDS) > 10
    assert all(any(line.startswith(begin) for line in commands()) for begin in ELSEWHERE)


@pytest.fixture
def folder(visit, tmp_path):
    """A working folder with the files that the commands name."""
    for stem in (FIRST, SECOND):
        (tmp_path / f"{stem}_uncal.asdf").symlink_to(visit.inputs / f"{stem}_uncal.asdf")
    (tmp_path / "demo").symlink_to(visit.inputs)
    for name in ("results", "results_old", "results_new"):
        (tmp_path / name).mkdir()
        if name != "results":
            for path in visit.results.glob(f"{FIRST}_[cs]*"):
                (tmp_path / name / path.name).symlink_to(path)
    (tmp_path / "in.asdf").symlink_to(visit.results / "intermediates" / f"{FIRST}_dark_decay.asdf")
    members = [{"expname": f"{stem}_uncal.asdf", "exptype": "science"} for stem in (FIRST, SECOND)]
    (tmp_path / "L1_asn.json").write_text(json.dumps({"products": [{"name": "visit", "members": members}]}))
    shutil.copy(visit.inputs / "astrometric.ecsv", tmp_path / "stars.ecsv")
    return tmp_path


@pytest.mark.workflow
@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_package_run(visit, package, folder, line):
    """Runs of the workflow are dry runs, which have the chain of both exposures."""
    words = line.split()[1:]
    inputs = [str(path.name) for path in sorted(folder.glob("r*_uncal.asdf"))]
    words = [name for word in words for name in (inputs if word == "r*_uncal.asdf" else [word])]
    if "my.yaml" in words and words[0] != "config":
        assert package.run("config", "my.yaml", cwd=folder).returncode == 0
    if words[0] in ("run", "report", "survey", "affected") and "--dry-run" not in words:
        words.append("--dry-run")
    if words[0] == "associate":
        (folder / words[1]).unlink()
    done = package.run(*words, cwd=folder, cache=visit.inputs / "crds_cache")
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout + done.stderr
    counts = planned_jobs(said)
    if words[0] == "affected":
        assert "affected: 2 of 2 exposures" in said
    elif {*words} & {"survey", "remove_stale"}:
        assert counts == {"survey" if words[0] == "survey" else "remove_stale": 1, "total": 1}
    elif "--dry-run" in words:
        assert counts["ramp_fitting"] == counts["finalize"] == (1 if "demo/" in line else 2)
        assert ("association_report" in counts) == (words[0] == "report")
    elif words[0] == "compare":
        assert f"{FIRST}" in done.stdout and (folder / "comparison" / "comparison.html").is_file()
    else:
        file = words[{"associate": 1, "config": 1, "step": 3}[words[0]]]
        assert (folder / file).stat().st_size > 100
