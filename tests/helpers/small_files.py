"""Write small valid files, the input of the steps, and run the steps on them."""

import contextlib
import copy
import functools
import io
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rampflow.chain import LATER_STATUSES, STATUSES
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.data_models import data_model
from rampflow.files.yaml_tree import tagged
from rampflow.folders import SCRIPTS
from rampflow.step.program import run_step

PATTERN = [[1], [2], [3, 4], [5, 6, 7, 8], [9, 10, 11], [12]]
ROWS, COLUMNS = 72, 256  # blocks of 16 rows, the last a short one; two channels
FRAME, TRIMMED = (ROWS, COLUMNS), (ROWS - 8, COLUMNS - 8)  # with and without the reference border
#: Arrays of an image.
IMAGE_ARRAYS = ("data", "dq", "err", "var_poisson", "chisq", "dumo")
FRAME_TIME = 3.16247
#: Kind of each data model, in `rampflow.files.data_models.DataModel`.
KINDS = {"ScienceRawModel": "raw", "RampModel": "ramp", "ImageModel": "image"}
#: What placeholders of empty models say nothing about.
META = {
    "exposure.type": "WFI_IMAGE",
    "exposure.frame_time": FRAME_TIME,
    "instrument.detector": "WFI07",
    "instrument.optical_element": "F158",
    "wcsinfo.v2_ref": 1546.0,
    "wcsinfo.v3_ref": -892.0,
    "wcsinfo.roll_ref": 60.0,
    "wcsinfo.ra_ref": 270.0,
    "wcsinfo.dec_ref": 66.0,
    "velocity_aberration.scale_factor": 1.0,
}


# ---------------------------------------------------------------------------------------------------------------- trees
@functools.cache
def _empty_tree(model: str) -> dict:
    """Tree of an empty valid model, without arrays."""
    from roman_datamodels import datamodels

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.asdf"
        tag = getattr(data_model(), KINDS[model])  # roman_datamodels may be newer than the data model that is written
        getattr(datamodels, model).create_fake_data(shape=(2, 8, 8), tag=tag).save(path)
        with AsdfFile(path) as file:
            roman = file.tree["roman"]
            return {"roman": tagged({"meta": roman["meta"]}, roman.tag)}


def set_entries(node: dict, entries: dict) -> None:
    """Set entries of a tree by their dotted names; `...` takes an entry out."""
    for name, value in entries.items():
        *parents, last = name.split(".")
        place = node
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is ...:
            place.pop(last, None)
        else:
            place[last] = value


def write_model(path: Path, model: str, arrays: dict, meta: dict | None = None) -> Path:
    """Write an exposure: a `roman_datamodels` class by name, its arrays, and entries of its metadata by dotted name."""
    tree = copy.deepcopy(_empty_tree(model))
    set_entries(tree["roman"]["meta"], {**META, "filename": path.name, **(meta or {})})
    tree["roman"].update(arrays)
    with create_asdf(path, tree):
        pass
    return path


# ------------------------------------------------------------------------------------------------------------ exposures
def write_raw(path: Path, data: np.ndarray, meta: dict | None = None, pattern=None, **arrays) -> Path:
    """A raw exposure of the newest version; amp33 is 5000 unless it is given."""
    arrays = {"data": data.astype(np.uint16), "amp33": np.full((*data.shape[:2], 128), 5000, np.uint16), **arrays}
    pattern = PATTERN[: len(data)] if pattern is None else pattern
    return write_model(path, "ScienceRawModel", arrays, {"exposure.read_pattern": pattern, **(meta or {})})


def statuses(*complete: str) -> dict:
    """Statuses of all steps: of these COMPLETE, of the others INCOMPLETE."""
    return {name: "COMPLETE" if name in complete else "INCOMPLETE" for name in (*STATUSES, *LATER_STATUSES)}


def border_of(data: np.ndarray, pixeldq: np.ndarray) -> dict:
    """The border arrays of a ramp."""
    sides = {"left": np.s_[..., :4], "right": np.s_[..., -4:], "top": np.s_[..., :4, :], "bottom": np.s_[..., -4:, :]}
    arrays = {f"border_ref_pix_{side}": data[index].copy() for side, index in sides.items()}
    return arrays | {f"dq_border_ref_pix_{side}": pixeldq[index].copy() for side, index in sides.items()}


def write_ramp(path: Path, data: np.ndarray, meta: dict | None = None, pattern=None, **arrays) -> Path:
    """A ramp as dq_init leaves it; without flags unless they are given."""
    data = data.astype(np.float32)
    arrays = {
        "data": data,
        "pixeldq": np.zeros(data.shape[1:], np.uint32),
        "groupdq": np.zeros(data.shape, np.uint8),
        "amp33": np.full((*data.shape[:2], 128), 5000, np.uint16),
    } | arrays
    arrays |= border_of(data, arrays["pixeldq"])
    pattern = PATTERN[: len(data)] if pattern is None else pattern
    meta = {"exposure.read_pattern": pattern, "cal_step": statuses("dq_init"), **(meta or {})}
    return write_model(path, "RampModel", arrays, meta)


def write_image(path: Path, data: np.ndarray, meta: dict | None = None, **arrays) -> Path:
    """A count-rate image as ramp_fitting leaves it: err 0.5, var_poisson 0.0625, the rest zeros unless it is given."""
    data = data.astype(np.float32)
    rows, columns = data.shape
    ramp = np.zeros((len(PATTERN), rows + 8, columns + 8), np.float32)
    arrays = {
        "data": data,
        "dq": np.zeros(data.shape, np.uint32),
        "err": np.full(data.shape, 0.5, np.float16),
        "var_poisson": np.full(data.shape, 0.0625, np.float16),
        "chisq": np.zeros(data.shape, np.float16),
        "dumo": np.zeros(data.shape, np.float16),
        "amp33": np.full((len(PATTERN), rows + 8, 128), 5000, np.uint16),
        **border_of(ramp, np.zeros(ramp.shape[1:], np.uint32)),
        **arrays,
    }
    done = statuses("dq_init", "saturation", "linearity", "ramp_fit")
    meta = {"exposure.read_pattern": PATTERN, "cal_step": done, "wcs": None, "statistics": ..., **(meta or {})}
    return write_model(path, "ImageModel", arrays, meta)


def damage_pixels(path: Path) -> None:
    """Flip a bit of the last array of a file: its header is whole, and its checksum is wrong."""
    content = bytearray(path.read_bytes())
    last_block = content.rindex(b"\xd3BLK")
    content[last_block + 1000] ^= 1
    path.write_bytes(content)


def image(rows: int = ROWS - 8, columns: int = COLUMNS - 8, seed: int = 1) -> np.ndarray:
    """Count rates of a faint sky, DN/s."""
    return np.random.default_rng(seed).normal(1, 0.3, (rows, columns)).astype(np.float32)


def random_flags(*choices: int, shape: tuple[int, int] = TRIMMED, seed: int = 3) -> np.ndarray:
    """None or one of some flags at each pixel."""
    return np.random.default_rng(seed).choice(np.array([0, *choices], np.uint32), shape)


def ramp(rate: float = 20.0, resultants: int = len(PATTERN), rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """A ramp of `rate` DN per read on a pedestal that differs from pixel to pixel, in whole DN."""
    pedestal = np.random.default_rng(5).integers(500, 1500, (rows, columns))
    reads = np.array([np.mean(r) for r in PATTERN[:resultants]])
    return (pedestal + np.rint(rate * reads)[:, None, None]).astype(np.float32)


# ----------------------------------------------------------------------------------------------------------- references
def write_reference(path: Path, **content) -> Path:
    """A reference with these entries beside its metadata."""
    with create_asdf(path, {"roman": {"meta": {}, **content}}):
        pass
    return path


def every_reference(folder: Path, rows: int = ROWS, columns: int = COLUMNS) -> dict[str, Path]:
    """References by type, with small effects, one of each type that these steps read."""
    frame, trimmed = (rows, columns), (rows - 8, columns - 8)
    contents = {
        "mask": {"dq": np.zeros(frame, np.uint32)},
        "saturation": {"data": np.full(frame, 60000, np.float32), "dq": np.zeros(frame, np.uint32)},
        "darkdecaysignal": {"decay_table": {f"WFI{n:02d}": {"amplitude": 1.0, "time_constant": 20.0} for n in range(1, 19)}},
        "dark": {"dark_slope": np.full(frame, 0.01, np.float32), "dq": np.zeros(frame, np.uint32)},
        "photom": {"phot_table": {"F158": {"photmjsr": 0.5, "uncertainty": 0.01, "pixelareasr": 2.8e-13}}},
        "flat": {
            "data": np.ones(trimmed, np.float32),
            "err": np.full(trimmed, 0.01, np.float32),
            "dq": np.zeros(trimmed, np.uint32),
        },
    }
    return {t: write_reference(folder / f"{t}.asdf", **content) for t, content in contents.items()}


# ------------------------------------------------------------------------------------------------------------- programs
def run(script: str, *arguments, **environment) -> subprocess.CompletedProcess:
    """Run a script of the project as a program, with additional environment variables."""
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def succeed(script: str, *arguments, **environment) -> subprocess.CompletedProcess:
    """Run a script that must succeed."""
    done = run(script, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done


def run_here(step, *arguments) -> str:
    """Run a step in this process, which saves the time of its imports; return its standard error."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            status = run_step(step.STEP, step.run, [str(argument) for argument in arguments])
    finally:
        logging.captureWarnings(False)
    assert status == 0, said.getvalue()
    return said.getvalue()


def refuse(script: str, output: Path, *arguments, status: int = 1) -> str:
    """Run a script that must end with an error message and leave no file; return its standard error."""
    before = sorted(output.parent.iterdir())
    done = run(script, *arguments)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.strip()
    assert sorted(output.parent.iterdir()) == before
    return done.stderr


@contextlib.contextmanager
def opened(path: Path):
    """The model in a file, opened and validated by `roman_datamodels`, which must recognize it without a warning."""
    from roman_datamodels import datamodels

    with datamodels.open(path) as model:
        model.validate()
        yield model


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an exposure, in memory."""
    with AsdfFile(path) as file:
        return {k: v.read() if hasattr(v, "read") else v for k, v in file.tree["roman"].items() if hasattr(v, "dtype")}


def assert_same_arrays(path: Path, other: Path, names: Iterable[str]) -> None:
    """Compare arrays of two exposures, with their data types."""
    one, two = arrays_of(path), arrays_of(other)
    for name in names:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
        assert one[name].dtype == two[name].dtype


def meta_of(path: Path) -> dict:
    """The metadata of an exposure."""
    with AsdfFile(path) as file:
        return copy.deepcopy(file.tree["roman"]["meta"])
