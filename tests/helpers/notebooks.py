"""Notebooks of the tutorial: run in a folder with the demonstration, and their outputs as text and pictures."""

import base64
import io
import os

import nbformat
import numpy as np
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image
from repository import ROOT

NOTEBOOKS = [ROOT / "docs" / "tutorial" / f"{name}.ipynb" for name in ("first-exposure", "visit", "own-reference")]
#: Where the notebooks expect the demonstration.
FOLDER = "~/rampflow-tutorial"


def run_notebook(path, folder, binaries):
    """Run a notebook in a folder, with the programs of an environment in `binaries`; the notebook with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    assert sum(FOLDER in cell.source for cell in notebook.cells) == 1
    given = {cell.id: cell.source for cell in notebook.cells}
    for cell in notebook.cells:
        cell.source = cell.source.replace(FOLDER, str(folder))
    manager = AsyncKernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = str(binaries / "python")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAMPFLOW_VERSION")}
    environment["PATH"] = f"{binaries}{os.pathsep}{environment['PATH']}"
    client = NotebookClient(notebook, km=manager, timeout=1800, record_timing=False, coalesce_streams=True)
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.source = given[cell.id]
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = output["text"].replace(str(folder), FOLDER)
    return notebook


def text_of(cell):
    """What a cell prints or shows as text."""
    outputs = [output for output in cell.get("outputs", []) if "image/png" not in output.get("data", {})]
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def pictures_of(cell):
    """The pictures that a cell shows, as arrays (rows, columns, RGB)."""
    found = [output["data"]["image/png"] for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), int) for data in found]


def reduce_pictures(notebook):
    """Store the pictures with 64 colors, which takes a third of the space."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if data := output.get("data", {}).get("image/png"):
                picture, file = Image.open(io.BytesIO(base64.b64decode(data))), io.BytesIO()
                picture.convert("RGB").quantize(64).save(file, "png", optimize=True)
                output["data"]["image/png"] = base64.b64encode(file.getvalue()).decode()
