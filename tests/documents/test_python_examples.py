"""The examples in Python of the how-to and reference pages: each is run, in a folder with the files that it names."""

import re
import subprocess
import sys

import pytest
from demo_visit import FIRST
from repository import ROOT

PAGES = [*sorted((ROOT / "docs" / "how-to").glob("*.md")), ROOT / "docs" / "reference" / "index.md"]
EXAMPLES = [
    pytest.param(page, block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL), 1)
]
#: Without a network, stars are those of a file.
STARS = "'astrometric_catalog': 'stars.ecsv'"
CHANGES = {"overrides={": f"overrides={{{STARS}, ", 'results="results").paths': f'"results", {{{STARS}}}).paths'}
#: What an example must show or leave behind, by a word of it.
CHECKS = {
    "made.image": "\nassert made.qa['numbers']['psf_fwhm'] > 0 and len(made.catalog) > 10 and made.wcs(100, 200)[0] > 269\n",
    "pool.map": "",
    "exposures.ecsv": "\nassert len(exposures) == 10\n",
    "run.json": "\nassert '_cal.asdf' in command\n",
    "position": "\nassert position.ra.deg > 269\n",
}


@pytest.fixture
def folder(visit, tmp_path):
    """A working folder with a raw exposure, its FITS file, and the products of the visit."""
    (tmp_path / "L1").mkdir()
    for place in (tmp_path, tmp_path / "L1"):
        (place / f"{FIRST}_uncal.asdf").symlink_to(visit.inputs / f"{FIRST}_uncal.asdf")
    (tmp_path / "stars.ecsv").symlink_to(visit.inputs / "astrometric.ecsv")
    return tmp_path


def test_there_are_examples():
    assert len(EXAMPLES) >= 6
    texts = [example.values[1] for example in EXAMPLES]
    assert all(any(word in text for text in texts) for word in CHECKS)


@pytest.mark.workflow
@pytest.mark.parametrize(("page", "text"), EXAMPLES)
def test_examples_run(visit, folder, page, text):
    for theirs, mine in CHANGES.items():
        text = text.replace(theirs, mine)
    environment = visit.environment | {"PYTHONPATH": str(ROOT / "scripts")}
    if "results/" in text:  # products, which the example reads or makes again
        visit_folder = visit.folder
        (visit_folder / "results").exists() or (visit_folder / "results").symlink_to(visit.results)
        # The fixture is a copy of the folder of the run.
        text, folder = text.replace('run["folder"]', repr(str(visit_folder))), visit_folder
    if "view/" in text:
        words = [str(ROOT / "scripts" / "view.py"), FIRST, "--results", str(visit.results), "--fits"]
        subprocess.run([sys.executable, *words], cwd=folder, env=environment, check=True, capture_output=True)
    (folder / "example.py").write_text(text + "".join(check for word, check in CHECKS.items() if word in text))
    done = subprocess.run([sys.executable, "example.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if "pool.map" in text:
        assert done.stdout.split() == [f"{folder}/results/{FIRST}_cal.asdf"]
