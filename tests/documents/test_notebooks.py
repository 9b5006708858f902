"""The notebooks of the tutorial: each runs with the installed package, and gives the outputs that it is published with.

``RAMPFLOW_NOTEBOOKS=write``, as set by `make notebooks`, writes the outputs to the notebooks instead.
"""

import os
import re

import nbformat
import numpy as np
import pytest
from notebooks import FOLDER, NOTEBOOKS, pictures_of, reduce_pictures, run_notebook, text_of
from repository import ROOT

NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")
#: On cells whose text has times, or depends on the installation.
VARIES = "varies"

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def words_and_numbers(text):
    """A text without its numbers, rules and spaces, and the numbers."""
    return re.sub(r"[\s-]+", " ", NUMBER.sub("#", text)).strip(), [float(number) for number in NUMBER.findall(text)]


@pytest.mark.workflow
@notebooks
def test_a_notebook_gives_the_outputs_that_it_has(visit, package, tmp_path, path):
    """Texts agree but for rounding, and pictures in most of their pixels."""
    (tmp_path / "demo").symlink_to(visit.inputs)
    made = run_notebook(path, tmp_path, package.bin)
    if os.environ.get("RAMPFLOW_NOTEBOOKS") == "write":
        reduce_pictures(made)
        nbformat.write(made, path)
        return
    for cell, now in zip(nbformat.read(path, as_version=4).cells, made.cells, strict=True):
        old, new = words_and_numbers(text_of(cell)), words_and_numbers(text_of(now))
        if VARIES in cell.metadata.get("tags", []):
            assert bool(old[0]) == bool(new[0]), cell.source
        else:
            assert new[0] == old[0], cell.source
            np.testing.assert_allclose(new[1], old[1], rtol=0.02, atol=0.1, err_msg=cell.source)
        for picture, shown in zip(pictures_of(now), pictures_of(cell), strict=True):
            assert picture.shape == shown.shape, cell.source
            assert np.abs(picture - shown).mean() < 6, cell.source


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("first-exposure", "45 stars; median ratio 0.999"),
        ("visit", "4 of 4 exposures have their products"),
        ("own-reference", "did you mean 'snr_threshold'?"),
    ],
)
def test_a_notebook_shows_what_its_text_says(name, text):
    (path,) = (path for path in NOTEBOOKS if path.stem == name)
    assert any(text in text_of(cell) for cell in nbformat.read(path, as_version=4).cells)


@notebooks
def test_a_notebook_is_small_and_names_no_place(path):
    """Its outputs have no error and no folder of the machine that made them."""
    assert path.stat().st_size < 500_000
    for cell in nbformat.read(path, as_version=4).cells:
        assert "Traceback" not in text_of(cell) and "/home/" not in text_of(cell) and "/tmp/" not in text_of(cell), cell.source
        assert all(output.output_type != "error" for output in cell.get("outputs", []))


def test_the_tutorial_lists_its_notebooks():
    index = (ROOT / "docs" / "tutorial" / "index.md").read_text()
    assert {path.name for path in (ROOT / "docs" / "tutorial").glob("*.ipynb")} == {path.name for path in NOTEBOOKS}
    assert all(f"]({path.name})" in index for path in NOTEBOOKS)
    assert f"cd {FOLDER}" in index
