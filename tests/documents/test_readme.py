"""The README: its commands run, its links resolve, its picture is that of the workflow."""

import functools
import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from repository import ROOT
from snakemake_runs import planned_jobs

README = (ROOT / "README.md").read_text()
PAGES = [p for p in sorted((ROOT / "docs").rglob("*.md")) if "generated" not in p.parts]
DOCUMENTS = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "config/README.md", "tests/README.md"]
DOCUMENTS += [str(page.relative_to(ROOT)) for page in PAGES]
FIRST, SECOND = (f"r0000101001001001001_000{n}_wfi01_f158" for n in (1, 2))


def blocks(language, text=README):
    """Code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands():
    """Commands of the README, in order, as a shell would get them."""
    lines = "".join(blocks("bash")).replace("\\\n", "").splitlines()
    return list(dict.fromkeys(line for line in lines if not line.startswith("#")))


def commands_that_begin_with(word):
    found = [line for line in commands() if line.startswith(word)]
    assert found
    return found


def test_every_readme_command_has_a_test():
    kinds = ("make ", "export ", "python ", "snakemake ", "rampflow ")  # of the package: test_commands.py
    assert {line for line in commands() if not line.startswith(kinds)} == {"source .venv/bin/activate"}
    assert len(commands()) > 20


# ------------------------------------------------------------------------------------------------------------- commands
@pytest.fixture(scope="module")
def clone(visit, tmp_path_factory):
    """A clone of the repository, with the files that the commands of the README need."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("Snakefile", "Makefile", "workflow", "scripts", "config", "envs", "tests", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    references = visit.inputs / "crds_cache" / "references" / "roman" / "wfi"
    links = {
        **{f"{stem}_uncal.asdf": visit.inputs / f"{stem}_uncal.asdf" for stem in (FIRST, SECOND)},
        "in.asdf": visit.results / "intermediates" / f"{FIRST}_dark_decay.asdf",
        "lin.asdf": next(references.glob("*_linearity_wfi01*")),
        "inv.asdf": next(references.glob("*_inverselinearity_wfi01*")),
    }
    for name, path in links.items():
        (folder / name).symlink_to(path)
    shutil.copy(next(references.glob("*_flat_wfi01*")), folder / "my_flat.asdf")
    (folder / "my.yaml").write_text("keep_intermediates: [linearity]\n")
    (folder / "results").mkdir()
    members = [{"expname": f"{stem}_uncal.asdf", "exptype": "science"} for stem in (FIRST, SECOND)]
    (folder / "L1_asn.json").write_text(json.dumps({"products": [{"name": "visit", "members": members}]}))
    return folder


@pytest.fixture
def shell(visit, clone):
    """Run a line of the README in the clone; its output."""

    def run(line):
        line = f"source .venv/bin/activate\n{line}"
        done = subprocess.run(["bash", "-ec", line], cwd=clone, env=visit.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize("line", commands_that_begin_with("make "))
def test_make_targets_of_the_readme_exist(line):
    """A dry run; the fixture `visit` runs the demonstration itself."""
    done = subprocess.run([*shlex.split(line, comments=True), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_exported_variables_are_read_by_crds():
    from crds.core import config

    words = {word.partition("=")[0] for line in commands_that_begin_with("export ") for word in shlex.split(line)[1:]}
    assert words == {"CRDS_PATH", "CRDS_SERVER_URL"}
    for word in words:
        assert word in (ROOT / "scripts" / "rampflow" / "workflow" / "references.py").read_text() + open(config.__file__).read()


@pytest.mark.workflow
@pytest.mark.parametrize("line", commands_that_begin_with("snakemake "))
def test_snakemake_commands_of_the_readme_run(shell, line):
    """A dry run has the chain of both exposures, from the raw files to the products."""
    line = line.partition("  #")[0].partition(" --report ")[0]  # a report needs products: see test_report.py
    said = shell(f"{line} --dry-run")
    counts = planned_jobs(said)
    if " remove_stale " in line:
        assert counts == {"remove_stale": 1, "total": 1}
        return
    in_one_job = "job_per=exposure" in line or "profiles/slurm" in line
    chain = "exposure_to_source_catalog" if in_one_job else "ramp_fitting"
    assert counts[chain] == counts["finalize"] == (1 if "exclude" in line else 2)
    assert counts["tweakreg"] == 1
    assert ("refpix" in counts) == ("skip: true" not in line and not in_one_job)
    assert ("association_report" in counts) == (" report " in line)


@pytest.mark.workflow
@pytest.mark.parametrize("line", commands_that_begin_with("python "))
def test_python_commands_of_the_readme_run(shell, clone, line):
    said = shell(line)
    if "--help" in line:
        assert "usage: linearity.py" in said
    else:
        assert (clone / shlex.split(line)[2 if "make_association" in line else 3]).stat().st_size > 100


# --------------------------------------------------------------------------------------------------------------- Python
def test_the_python_example_finds_its_cosmic_ray(capsys, monkeypatch):
    (example,) = (block for block in blocks("python") if "import" in block)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = {}
    exec(example, names)
    fit, jumps = names["fit"], names["jumps"]
    assert np.median(fit.slope) == pytest.approx(50, abs=0.1)
    assert abs(fit.slope[10, 20] - 50) < 4 * fit.err[10, 20]
    assert list(np.flatnonzero(jumps[:, 10, 20])) == [3]
    assert np.count_nonzero(jumps) <= 3
    assert "[3]" in capsys.readouterr().out


@pytest.mark.workflow
def test_the_module_example_has_the_jobs_of_the_workflow(visit, clone, shell):
    (example,) = (block for block in blocks("python") if "use rule" in block)
    (clone / "mine.smk").write_text(example.replace("/path/to/rampflow", str(clone)))
    said = shell("snakemake --snakefile mine.smk --cores 2 --dry-run")
    counts = planned_jobs(said)
    assert counts["rampflow_ramp_fitting"] == counts["rampflow_finalize"] == 2
    assert counts["mine"] == 1
    assert (
        planned_jobs(shell("snakemake --snakefile mine.smk --cores 2 --dry-run rampflow_exposures"))["rampflow_exposures"] == 1
    )


# -------------------------------------------------------------------------------------------------------------- picture
@pytest.mark.workflow
def test_the_diagram_matches_the_rule_graph(visit):
    """Arrows within a box are in `snakemake --rulegraph mermaid-js`; each arrow between boxes stands for at least one."""
    (drawing,) = blocks("mermaid")
    run = visit.snakemake(*visit.arguments, "--rulegraph", "mermaid-js")
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]$", run.stdout, re.MULTILINE))
    graph = {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", run.stdout)}
    boxes = {}
    for name, body in re.findall(
        r"^ +subgraph (\w+).*?(?:\n +direction LR)?\n(.*?)\n +end$", drawing, re.MULTILINE | re.DOTALL
    ):
        boxes[name] = re.split(r" --> ", body.strip())
        assert set(zip(boxes[name], boxes[name][1:], strict=False)) <= graph, name
    assert sorted(sum(boxes.values(), [])) == sorted(set(names.values()) - {"default", "finalize_image"})
    order = re.findall(r"^  (\w+(?: --> \w+)+)$", drawing, re.MULTILINE)[-1].split(" --> ")
    assert order == list(boxes)
    for first, second in zip(order, order[1:], strict=False):
        assert any((a, b) in graph for a in boxes[first] for b in boxes[second]), (first, second)


@pytest.mark.workflow
def test_the_readme_image_matches_the_demo_product(visit):
    ours = np.asarray(Image.open(ROOT / "docs" / "pictures" / "cal.png"), int)
    now = np.asarray(Image.open(visit.results / f"{FIRST}_cal.png"), int)
    assert f"{FIRST}_cal.png" in README
    assert ours.shape == now.shape
    assert np.abs(ours - now).mean() < 1, "copy it to docs/pictures/cal.png"


# ---------------------------------------------------------------------------------------------------------------- links
@functools.cache
def anchors(path):
    """Anchors that GitHub makes of the headings of a document."""
    text = path.read_text()
    titles = re.findall(r"^#+ +(.*?) *$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_existing_files_and_headings(name):
    path = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.is_relative_to(ROOT) and there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_in_the_text_exist(name):
    text = (ROOT / name).read_text()
    named = set(re.findall(r"`((?:docs|scripts|tests|workflow|config|envs)/[\w./*-]+)`", text))
    if name == "README.md":
        layout = re.search(r"^## Layout\n\n((?:    .*\n)+)", text, re.MULTILINE)[1]
        named |= {line.split()[0] for line in layout.splitlines()}
        named |= set(re.findall(r"(?:workflow|scripts|tests)/\w+", layout))
    for pattern in named:
        assert list(ROOT.glob(pattern.replace("STEP", "*"))), pattern


@pytest.mark.parametrize("name", DOCUMENTS)
def test_rows_of_a_table_have_its_columns(name):
    columns = None
    for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
        if not line.startswith("|"):
            columns = None
            continue
        # The bars in code and escaped ones separate no cells.
        bars = re.sub(r"`[^`]*`|\\\|", "", line).count("|")
        columns = columns or bars
        assert bars == columns, f"{name}, line {number}: {line[:100]}"
