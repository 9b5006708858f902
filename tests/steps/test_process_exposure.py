"""Several steps of an exposure in one process: the same files and logs as by a process for each."""

import csv
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from small_files import COLUMNS, ROWS, arrays_of, every_reference, meta_of, ramp, statuses, succeed, write_ramp, write_raw

from rampflow.errors import RampflowError
from rampflow.folders import SCRIPTS

STEPS = {"dq_init": "dqinit", "saturation": "saturation", "dark_decay": "dark_decay"}
REFERENCES = {"dq_init": "mask", "saturation": "saturation", "dark_decay": "darkdecaysignal"}
RECIPE = "0123456789abcdef"
NAME = "r0000101001001001001_0001_wfi07_f158"


class Chain:
    """A raw exposure and the first steps of its chain, with a bright source that grows by its saturation."""

    def __init__(self, folder):
        self.folder, self.references = folder, every_reference(folder)
        data = ramp()
        data[3:, 20:40, 60:90] = 65000  # across blocks of rows
        self.raw = write_raw(folder / f"{NAME}_uncal.asdf", data)

    def file(self, step, kind):
        return self.folder / kind / f"{NAME}_{STEPS[step]}.asdf"

    def arguments(self, step, kind):
        before = {"dq_init": self.raw, "saturation": self.file("dq_init", kind), "dark_decay": self.file("saturation", kind)}
        options = ["--n_pix_grow_sat", "3"] if step == "saturation" else []
        reference = REFERENCES[step]
        words = [before[step], self.file(step, kind), f"--{reference}", self.references[reference], *options]
        return [str(word) for word in words]

    def process(self, *options, steps=tuple(STEPS)):
        """Run the steps in one process, as the workflow does."""
        lines = "".join(f"{step} {RECIPE} {shlex.join(self.arguments(step, 'memory'))}\n" for step in steps)
        folders = ["--logs", self.folder / "logs", "--benchmarks", self.folder / "benchmarks"]
        command = [sys.executable, SCRIPTS / "process_exposure.py", *folders, "--threads", "2", *options]
        return subprocess.run([str(word) for word in command], input=lines, capture_output=True, text=True)


@pytest.fixture
def chain(tmp_path):
    return Chain(tmp_path)


def without_times(text):
    return [line.partition("Z :: ")[2] for line in text.splitlines()]


@pytest.mark.slow
def test_files_and_logs_are_those_of_a_process_for_each_step(chain):
    done = chain.process("--write", *STEPS)
    assert done.returncode == 0, done.stderr
    for step in STEPS:
        alone = succeed(step, *chain.arguments(step, "files"), "--threads", "2", RAMPFLOW_RECIPE=RECIPE)
        ours, theirs = (arrays_of(chain.file(step, kind)) for kind in ("memory", "files"))
        assert list(ours) == list(theirs)
        for name, array in theirs.items():
            assert ours[name].dtype == array.dtype and ours[name].tobytes() == array.tobytes(), (step, name)
        assert without_times((chain.folder / "logs" / f"{step}.log").read_text()) == without_times(alone.stderr)
        ours, theirs = (meta_of(chain.file(step, kind)) for kind in ("memory", "files"))
        logs = [without_times("\n".join(meta.pop("cal_logs"))) for meta in (ours, theirs)]
        assert logs[0] == logs[1] and f"rampflow.{step} :: INFO :: Recipe {RECIPE}" in logs[0]
        ours.pop("file_date"), theirs.pop("file_date")
        assert ours == theirs
    assert np.count_nonzero(arrays_of(chain.file("saturation", "memory"))["groupdq"]) > 20 * 30 * 3, "flags have grown"


@pytest.mark.slow
def test_flags_of_a_ramp_as_input_are_kept_and_added_to(chain):
    """They lie in its file, and dq_init adds to them in memory."""
    data = ramp()
    data[2] = 777.0  # a resultant that was lost
    groupdq = np.full(data.shape, 1, np.uint8)
    chain.raw = write_ramp(chain.folder / f"{NAME}_ramp.asdf", data, {"cal_step": statuses()}, groupdq=groupdq)
    done = chain.process("--write", *STEPS)
    assert done.returncode == 0, done.stderr
    for step in STEPS:
        succeed(step, *chain.arguments(step, "files"))
        ours, theirs = (arrays_of(chain.file(step, kind)) for kind in ("memory", "files"))
        assert {k: v.tobytes() for k, v in ours.items()} == {k: v.tobytes() for k, v in theirs.items()}, step
    assert (arrays_of(chain.file("dq_init", "memory"))["groupdq"] & 1).all()


def test_only_files_that_are_asked_for_are_written(chain):
    done = chain.process("--write", "saturation")
    assert done.returncode == 0, done.stderr
    assert sorted((chain.folder / "memory").iterdir()) == [chain.file("saturation", "memory")]


@pytest.mark.slow
def test_a_chain_begins_with_any_step(chain):
    """As after a step that was run by itself."""
    whole = chain.process("--write", *STEPS)
    assert whole.returncode == 0, whole.stderr
    before = arrays_of(chain.file("dark_decay", "memory"))
    chain.file("dark_decay", "memory").unlink()
    rest = chain.process("--write", "dark_decay", steps=["saturation", "dark_decay"])
    assert rest.returncode == 0, rest.stderr
    after = arrays_of(chain.file("dark_decay", "memory"))
    assert {k: v.tobytes() for k, v in after.items()} == {k: v.tobytes() for k, v in before.items()}


def test_the_log_of_the_job_and_the_benchmarks_tell_of_each_step(chain):
    done = chain.process()
    assert done.returncode == 0, done.stderr
    assert re.findall(r":: INFO :: Step (.*)", done.stderr) == [f"{n} of 3: {step}" for n, step in enumerate(STEPS, start=1)]
    for step in STEPS:
        with (chain.folder / "benchmarks" / f"{step}.tsv").open() as file:
            (row,) = csv.DictReader(file, delimiter="\t")
        assert float(row["s"]) > 0 and float(row["cpu_time"]) > 0 and 20 < float(row["max_rss"]) < 5000
        log, benchmark = chain.folder / "logs" / f"{step}.log", chain.folder / "benchmarks" / f"{step}.tsv"
        assert benchmark.stat().st_mtime_ns >= log.stat().st_mtime_ns, "the step has ended with success"


def test_a_step_that_fails_names_itself_and_ends_the_chain(chain):
    chain.references["saturation"] = chain.references["mask"]
    done = chain.process("--write", "dark_decay")
    assert done.returncode == 1 and not (chain.folder / "memory").exists()
    *_, line = (chain.folder / "logs" / "saturation.log").read_text().splitlines()
    assert "rampflow :: ERROR :: saturation: " in line and str(chain.references["mask"]) in line
    assert done.stderr.splitlines()[-1] == line, "the log of the job ends with it"
    names = sorted(path.stem for path in (chain.folder / "logs").iterdir())
    assert names == ["dq_init", "saturation"]
    assert [path.stem for path in (chain.folder / "benchmarks").iterdir()] == ["dq_init"]


def test_a_file_that_cannot_be_written_is_a_failure_of_its_step(chain):
    (chain.folder / "memory").write_text("a file in place of the folder")
    done = chain.process("--write", "saturation")
    assert done.returncode == 1
    assert f"rampflow :: ERROR :: saturation: {chain.file('saturation', 'memory')}: can't be written" in done.stderr


@pytest.mark.parametrize("name", ["logs/dq_init.log", "benchmarks/saturation.tsv"])
def test_a_log_or_benchmark_without_room_is_named(chain, name):
    path = chain.folder / name
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    done = chain.process()
    assert done.returncode == 1
    told = "can't be written (No space left on device: make room there, then start the same command again)"
    assert done.stderr.endswith(f":: ERROR :: process_exposure: {path}: {told}\n")


@pytest.mark.parametrize("text", ["", "dqinit 01 a b\n", "dq_init\n"])
def test_malformed_lines_are_refused(text):
    import process_exposure

    with pytest.raises(RampflowError, match="standard input: "):
        process_exposure.read_tasks(text)


def test_arrays_have_the_shape_of_the_exposure(chain):
    done = chain.process("--write", "dq_init")
    assert done.returncode == 0, done.stderr
    assert arrays_of(chain.file("dq_init", "memory"))["data"].shape == (6, ROWS, COLUMNS)
