"""What all steps have in common: command line, invalid input, provenance, imports."""

import argparse
import dataclasses
import datetime
import os
import re
import subprocess
import sys

import asdf
import declarations
import numpy as np
import pytest
from small_files import (
    COLUMNS,
    FRAME_TIME,
    IMAGE_ARRAYS,
    META,
    PATTERN,
    ROWS,
    SCRIPTS,
    arrays_of,
    assert_same_arrays,
    every_reference,
    image,
    meta_of,
    opened,
    ramp,
    refuse,
    run,
    statuses,
    succeed,
    write_image,
    write_ramp,
    write_raw,
    write_reference,
)

from rampflow import SOFTWARE_NAME, __version__, chain
from rampflow.errors import RampflowError
from rampflow.files.asdf_reader import AsdfFile
from rampflow.step.declaration import Parameter, format_value
from rampflow.step.exposure import Exposure
from rampflow.step.program import explain, reported_errors, run_step
from rampflow.step.provenance import reference_name

STEPS = list(chain.STEPS)
#: Those that write the exposure anew; the others have tests of their own of what they write.
EXPOSURE_STEPS = [name for name in STEPS if chain.STEPS[name].rewrites]
RAMP_STEPS = ("dq_init", "saturation", "dark_decay", "wfi18_transient")
HEAVY = "asdf astropy gwcs roman_datamodels scipy numba snakemake crds photutils matplotlib pyarrow".split()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with an exposure of each model and references."""
    folder = tmp_path_factory.mktemp("files")
    write_raw(folder / "wfi_science_raw.asdf", ramp())
    write_ramp(folder / "ramp.asdf", ramp())
    write_image(folder / "wfi_image.asdf", image())
    every_reference(folder)
    return folder


def references_of(name, folder):
    return [f"--{r.type}={folder / r.type}.asdf" for r in declarations.steps()[name].references]


# --------------------------------------------------------------------------------------------------------- command line
@pytest.mark.parametrize("name", STEPS)
def test_help_shows_every_parameter_with_its_unit_and_default(name):
    step, done = declarations.steps()[name], run(name, "--help", COLUMNS="400")
    assert done.returncode == 0
    assert step.summary in done.stdout
    said = " ".join(done.stdout.split())
    for p in step.parameters:
        unit = f" [{p.unit}]" if p.unit else ""
        assert re.search(
            rf"--{p.name} \S+ {re.escape(p.meaning + unit)} \(default: {re.escape(format_value(p.default))}\)", said
        )
    for reference in step.references:
        assert f"--{reference.type} FILE" in done.stdout and reference.meaning in done.stdout


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("saturation", "--n_pix_grow_sat=-1", "argument --n_pix_grow_sat: takes no value below 0, not '-1'"),
        ("saturation", "--n_pix_grow_sat=1.5", "argument --n_pix_grow_sat: takes a value of type int, not '1.5'"),
        ("saturation", "--backup=much", "argument --backup: takes a value of type int, not 'much'"),
        ("dq_init", "--expand_gw_flagging=-2", "argument --expand_gw_flagging: takes no value below 0"),
        ("wfi18_transient", "--mask_rows=yes", "argument --mask_rows: takes true or false, not 'yes'"),
        ("flatfield", "--include_var_flat=1", "argument --include_var_flat: takes true or false, not '1'"),
        ("ramp_fitting", "--rejection_threshold=nan", "argument --rejection_threshold: takes a finite number"),
        ("ramp_fitting", "--algorithm=guess", "argument --algorithm: takes one of"),
        ("photom", "--threads=0", "argument --threads: takes a positive number"),
        ("photom", "--threads=two", "--threads"),
        ("photom", "--unknown=1", "unrecognized arguments: --unknown=1"),
    ],
)
def test_a_wrong_value_is_refused_by_name(files, tmp_path, name, option, said):
    takes = files / f"{chain.STEPS[name].takes}.asdf"
    message = refuse(name, tmp_path / "o.asdf", takes, tmp_path / "o.asdf", *references_of(name, files), option, status=2)
    assert said in message


@pytest.mark.parametrize("name", [n for n in EXPOSURE_STEPS if declarations.steps()[n].references])
def test_every_reference_must_be_given(tmp_path, name):
    said = refuse(name, tmp_path / "o.asdf", "in.asdf", tmp_path / "o.asdf", status=2)
    for reference in declarations.steps()[name].references:
        assert f"--{reference.type}" in said


@pytest.mark.parametrize("kind", [bool, int, float, str])
def test_parameter_values_make_a_round_trip_through_the_command_line(kind):
    for value in {bool: [True, False], int: [0, -3, 7], float: [0.5, -1e-9, 3.0], str: ["a", ""]}[kind]:
        parsed = Parameter("p", kind, value, "").parse(format_value(value))
        assert parsed == value and type(parsed) is kind


def test_null_is_accepted_where_it_is_the_default():
    assert Parameter("p", float, None, "").parse("null") is None
    assert Parameter("p", float, None, "").parse("2") == 2
    assert Parameter("p", float, None, "").schema()["type"] == ["number", "null"]
    with pytest.raises(argparse.ArgumentTypeError):
        Parameter("p", float, 1.0, "").parse("null")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_numbers_are_finite(text):
    with pytest.raises(argparse.ArgumentTypeError, match="finite"):
        Parameter("p", float, 1.0, "", minimum=0).parse(text)


# ------------------------------------------------------------------------------------------------------------- refusals
def one_line(message):
    errors = [line for line in message.splitlines() if ":: ERROR ::" in line]
    assert len(errors) == 1 and message.splitlines()[-1] == errors[0]
    return errors[0]


@pytest.mark.parametrize("name", EXPOSURE_STEPS)
def test_an_input_that_doesn_t_exist_is_named(files, tmp_path, name):
    references = [f"--{r.type}={files / 'mask.asdf'}" for r in declarations.steps()[name].references]
    said = refuse(name, tmp_path / "o.asdf", files / "none.asdf", tmp_path / "o.asdf", *references)
    assert "none.asdf: can't be opened (No such file or directory)" in one_line(said)
    assert f"rampflow.{name}" in said or f"{name}: " in said


@pytest.mark.parametrize("name", EXPOSURE_STEPS)
def test_another_model_is_refused(files, tmp_path, name):
    takes = chain.STEPS[name].takes
    other = files / ("ramp.asdf" if takes == "wfi_image" else "wfi_image.asdf")
    references = [f"--{r.type}={files / 'mask.asdf'}" for r in declarations.steps()[name].references]
    said = one_line(refuse(name, tmp_path / "o.asdf", other, tmp_path / "o.asdf", *references))
    assert other.name in said and "expected the data model" in said and takes in said


def test_an_output_that_is_the_input_is_refused(files):
    path, other = files / "ramp.asdf", files / "." / "ramp.asdf"
    before = path.read_bytes()
    for output in (path, other):
        said = refuse("saturation", path, path, output, *references_of("saturation", files))
        assert "is both the input and the output" in one_line(said)
    assert path.read_bytes() == before


def test_a_reference_that_doesn_t_exist_is_named(files, tmp_path):
    said = refuse("saturation", tmp_path / "o.asdf", files / "ramp.asdf", tmp_path / "o.asdf", "--saturation=none.asdf")
    assert "none.asdf: this saturation reference does not exist" in one_line(said)


def test_a_reference_that_is_damaged_is_named(files, tmp_path):
    (tmp_path / "bad.asdf").write_text("nothing")
    said = refuse("saturation", tmp_path / "o.asdf", files / "ramp.asdf", tmp_path / "o.asdf",
                  f"--saturation={tmp_path / 'bad.asdf'}")  # fmt: skip
    assert "bad.asdf: is not an ASDF file" in one_line(said)
    write_reference(tmp_path / "bad.asdf", data=np.full((ROWS, COLUMNS), 50000, np.float32))
    said = refuse("saturation", tmp_path / "o.asdf", files / "ramp.asdf", tmp_path / "o.asdf",
                  f"--saturation={tmp_path / 'bad.asdf'}")  # fmt: skip
    assert "bad.asdf: dq is missing" in one_line(said)


def test_a_reference_that_is_needed_can_t_be_left_out(files, tmp_path):
    said = refuse("ramp_fitting", tmp_path / "o.asdf", files / "ramp.asdf", tmp_path / "o.asdf", "--gain=N/A",
                  f"--readnoise={files / 'mask.asdf'}")  # fmt: skip
    assert "--gain is N/A, but the step needs this reference: give a file" in one_line(said)


def test_a_truncated_input_leaves_no_output(files, tmp_path):
    content = (files / "ramp.asdf").read_bytes()
    (tmp_path / "cut.asdf").write_bytes(content[: len(content) // 2])
    said = refuse("saturation", tmp_path / "o.asdf", tmp_path / "cut.asdf", tmp_path / "o.asdf",
                  *references_of("saturation", files))  # fmt: skip
    assert "cut.asdf: " in one_line(said) and "truncated" in said


@pytest.mark.parametrize("place", ["input", "output", "saturation"])
def test_a_folder_in_place_of_a_file_is_named(files, tmp_path, place):
    (tmp_path / "folder").mkdir()
    given = {"input": files / "ramp.asdf", "output": tmp_path / "o.asdf", "saturation": files / "saturation.asdf"}
    given[place] = tmp_path / "folder"
    said = refuse("saturation", given["output"], given["input"], given["output"], f"--saturation={given['saturation']}")
    assert "folder" in one_line(said)


# ----------------------------------------------------------------------------------------------------- the exposure
def exposure(path):
    return Exposure(AsdfFile(path))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (PATTERN[:-1], "lists 5 resultants and data has 6"),
        ([*PATTERN, [13]], "lists 7 resultants and data has 6"),
        ([[1], [2], [3, 4], [4, 5], [9], [12]], "must increase"),
        ([[2], [1], [3, 4], [5], [9], [12]], "must increase"),
        ([[1], [], [3, 4], [5], [9], [12]], "must list the reads"),
        ([[0], [2], [3, 4], [5], [9], [12]], "must list the reads"),
        ([[1.0], [2], [3, 4], [5], [9], [12]], "must list the reads"),
        ([1, 2, 3, 4, 5, 6], "must list the reads"),
        ([], "must list the reads"),
        ("123456", "read_pattern is '123456'"),
        (..., "read_pattern is missing"),
    ],
)
def test_an_impossible_read_pattern_is_refused(tmp_path, pattern, message):
    path = write_ramp(tmp_path / "x.asdf", ramp(), {"exposure.read_pattern": pattern})
    with pytest.raises(RampflowError, match=r"x\.asdf: ") as error:
        _ = exposure(path).read_pattern
    assert message in str(error.value)


def test_read_patterns_may_have_gaps(tmp_path):
    pattern = [[1], [3], [4, 6], [10, 11, 20], [21], [30]]
    assert exposure(write_ramp(tmp_path / "x.asdf", ramp(), pattern=pattern)).read_pattern == pattern


@pytest.mark.parametrize("value", [0, -3.0, float("nan"), float("inf"), True, "3", None, ..., -999999.0])
def test_an_impossible_frame_time_is_refused(tmp_path, value):
    path = write_ramp(tmp_path / "x.asdf", ramp(), {"exposure.frame_time": value})
    with pytest.raises(RampflowError, match=r"x\.asdf: meta\.exposure\.frame_time is"):
        _ = exposure(path).frame_time


def test_a_whole_number_of_seconds_is_a_frame_time(tmp_path):
    path = write_ramp(tmp_path / "x.asdf", ramp(), {"exposure.frame_time": 3})
    assert exposure(path).frame_time == 3.0 and isinstance(exposure(path).frame_time, float)


@pytest.mark.parametrize("name", ["groupdq", "pixeldq", "data"])
def test_arrays_with_inconsistent_shapes_are_refused(files, tmp_path, name):
    arrays = {"groupdq": np.zeros((6, ROWS, COLUMNS), np.uint8), "pixeldq": np.zeros((ROWS, COLUMNS), np.uint32)}
    if name in arrays:
        arrays[name] = arrays[name][..., :-128].copy()
    data = ramp()[..., :-1] if name == "data" else ramp()
    write_ramp(tmp_path / "x.asdf", data, **arrays)
    said = refuse("saturation", tmp_path / "o.asdf", tmp_path / "x.asdf", tmp_path / "o.asdf",
                  *references_of("saturation", files))  # fmt: skip
    assert f"x.asdf: {name} has the shape" in one_line(said)


# --------------------------------------------------------------------------------------------------------- what is kept
@pytest.mark.parametrize(
    "name", [n for n in EXPOSURE_STEPS if declarations.steps()[n].references and n not in ("ramp_fitting", "dq_init")]
)
def test_without_references_steps_are_skipped_and_their_product_is_valid(files, tmp_path, name):
    step = declarations.steps()[name]
    if any(r.needed for r in step.references):
        pytest.skip("the step can't do without")
    source = files / f"{step.takes}.asdf"
    done = succeed(name, source, tmp_path / "o.asdf", *(f"--{r.type}=N/A" for r in step.references))
    assert ":: WARNING ::" in done.stderr
    with opened(tmp_path / "o.asdf") as model:
        assert model.meta.cal_step[step.status] == "SKIPPED"
        assert {model.meta.ref_file[r.type] for r in step.references} == {"N/A"}
    before, after = arrays_of(source), arrays_of(tmp_path / "o.asdf")
    assert set(before) == set(after)
    for key in before:
        np.testing.assert_array_equal(after[key], before[key])


def test_provenance_is_recorded(files, tmp_path):
    cache = tmp_path / "crds/references/roman/wfi"
    cache.mkdir(parents=True)
    (cache / "roman_wfi_sat_0001.asdf").write_bytes((files / "saturation.asdf").read_bytes())
    write_ramp(tmp_path / "in.asdf", ramp(), {"cal_logs": ["an earlier line"]})
    began = datetime.datetime.now(datetime.UTC)
    done = succeed("saturation", tmp_path / "in.asdf", tmp_path / "r_saturation.asdf", "--saturation",
                   cache / "roman_wfi_sat_0001.asdf", "--backup=1", "--crds_context=roman_0042.pmap",
                   TZ="Pacific/Auckland")  # fmt: skip
    with opened(tmp_path / "r_saturation.asdf") as model:
        meta = model.meta
        assert meta.filename == "r_saturation.asdf"
        assert (meta.calibration_software_name, meta.calibration_software_version) == (SOFTWARE_NAME, __version__)
        assert meta.ref_file.saturation == "crds://roman_wfi_sat_0001.asdf"
        assert meta.ref_file.crds.context == "roman_0042.pmap"
        assert re.fullmatch(r"\d+\.\d+.*", meta.ref_file.crds.version)
        assert meta.cal_step.saturation == "COMPLETE" and meta.cal_step.refpix == "INCOMPLETE"
        assert abs((meta.file_date.to_datetime(datetime.UTC) - began).total_seconds()) < 60
        logs = list(meta.cal_logs)
    assert logs[0] == "an earlier line"
    form = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z :: rampflow\.saturation :: (INFO|WARNING) :: .+")
    times = [form.fullmatch(line)[1] for line in logs[1:]]
    assert times == sorted(times)
    first = datetime.datetime.fromisoformat(times[0]).replace(tzinfo=datetime.UTC)
    assert abs((first - began).total_seconds()) < 60  # UTC, wherever the clock is
    assert "n_pix_grow_sat=0, backup=1" in "\n".join(logs)
    assert "Using SATURATION reference file" in "\n".join(logs)
    # The same lines were on standard error.
    assert done.stderr.splitlines() == logs[1:]


def test_a_reference_outside_the_cache_is_recorded_as_it_was_given(files, tmp_path):
    path = files / "saturation.asdf"
    succeed("saturation", files / "ramp.asdf", tmp_path / "o.asdf", "--saturation", path)
    meta = meta_of(tmp_path / "o.asdf")
    assert meta["ref_file"]["saturation"] == str(path)
    assert "context" not in (meta["ref_file"].get("crds") or {}) or meta["ref_file"]["crds"]["context"] == "?"


def test_names_of_references(tmp_path):
    assert reference_name(tmp_path / "references/roman/wfi/x.asdf") == "crds://x.asdf"
    assert reference_name(tmp_path / "references/roman/x.asdf") == "crds://x.asdf"
    assert reference_name(tmp_path / "roman/references/x.asdf") == str(tmp_path / "roman/references/x.asdf")


#: Steps after saturation of which `files` has the references, with one of each step's planes.
AFTER = ("dark_decay", "dark_current", "photom", "flatfield")


@pytest.mark.parametrize("name", AFTER)
def test_a_fully_saturated_exposure_passes_on_and_names_no_reference(files, tmp_path, name):
    step = declarations.steps()[name]
    cal_step = statuses("dq_init", "saturation") | dict.fromkeys(chain.statuses_after("saturation"), "SKIPPED")
    write = {"ramp": write_ramp, "wfi_image": write_image}[step.takes]
    write(tmp_path / "in.asdf", ramp() if step.takes == "ramp" else image(), {"cal_step": cal_step})
    done = succeed(name, tmp_path / "in.asdf", tmp_path / "o.asdf", *references_of(name, files))
    assert "fully saturated" in done.stderr and "Using" not in done.stderr
    with opened(tmp_path / "o.asdf") as model:
        assert model.meta.cal_step[step.status] == "SKIPPED" and model.meta.filename == "o.asdf"
        assert {model.meta.ref_file[r.type] for r in step.references} == {"N/A"}
    before, after = arrays_of(tmp_path / "in.asdf"), arrays_of(tmp_path / "o.asdf")
    for key in before:
        np.testing.assert_array_equal(after[key], before[key])


@pytest.mark.parametrize("name", AFTER)
@pytest.mark.slow
def test_a_step_that_lacked_its_reference_runs_when_it_has_one(files, tmp_path, name):
    step = declarations.steps()[name]
    source = files / f"{step.takes}.asdf"
    succeed(name, source, tmp_path / "skipped.asdf", *(f"--{r.type}=N/A" for r in step.references))
    assert meta_of(tmp_path / "skipped.asdf")["cal_step"][step.status] == "SKIPPED"
    succeed(name, tmp_path / "skipped.asdf", tmp_path / "later.asdf", *references_of(name, files))
    succeed(name, source, tmp_path / "at_once.asdf", *references_of(name, files))
    later, at_once = meta_of(tmp_path / "later.asdf"), meta_of(tmp_path / "at_once.asdf")
    assert later["cal_step"][step.status] == at_once["cal_step"][step.status] == "COMPLETE"
    assert {t: later["ref_file"][t] for t in at_once["ref_file"]} == at_once["ref_file"]
    expected, found = arrays_of(tmp_path / "at_once.asdf"), arrays_of(tmp_path / "later.asdf")
    assert set(expected) == set(found)
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key])


def test_an_unused_reference_is_not_recorded(files, tmp_path):
    write_reference(tmp_path / "flat.asdf", data=np.ones((10, 10), np.float32), dq=np.zeros((10, 10), np.uint32))
    succeed("flatfield", files / "wfi_image.asdf", tmp_path / "o.asdf", "--flat", tmp_path / "flat.asdf")
    with opened(tmp_path / "o.asdf") as model:
        assert model.meta.cal_step.flat_field == "SKIPPED" and model.meta.ref_file.flat == "N/A"


@pytest.mark.slow
def test_compressed_exposures_are_accepted(files, tmp_path):
    with asdf.open(files / "ramp.asdf", memmap=False, lazy_load=False) as file:
        for compression in ("lz4", "zlib", "bzp2"):
            asdf.AsdfFile({"roman": file["roman"]}).write_to(
                tmp_path / f"{compression}.asdf", all_array_compression=compression
            )
    succeed("dark_decay", files / "ramp.asdf", tmp_path / "plain.asdf", *references_of("dark_decay", files))
    expected = arrays_of(tmp_path / "plain.asdf")["data"]
    for compression in ("lz4", "zlib", "bzp2"):
        succeed("dark_decay", tmp_path / f"{compression}.asdf", tmp_path / "o.asdf", *references_of("dark_decay", files))
        np.testing.assert_array_equal(arrays_of(tmp_path / "o.asdf")["data"], expected)


# ---------------------------------------------------------------------------------------------------------- fast starts
@pytest.mark.parametrize("name", STEPS)
def test_scripts_import_heavy_packages_only_where_they_are_needed(name):
    program = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import {name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert name in loaded and not loaded & set(HEAVY)


@pytest.mark.parametrize("name", RAMP_STEPS)
def test_steps_work_without_snakemake_and_crds(files, tmp_path, name):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for package in ("snakemake", "crds", "roman_datamodels", "asdf"):
        (blocked / f"{package}.py").write_text(f"raise ImportError('{package} is blocked')\n")
    done = subprocess.run([sys.executable, "-c", "import crds"], capture_output=True, env={"PYTHONPATH": str(blocked)})
    assert b"crds is blocked" in done.stderr
    succeed(name, files / f"{chain.STEPS[name].takes}.asdf", tmp_path / "o.asdf", *references_of(name, files),
            PYTHONPATH=str(blocked))  # fmt: skip
    assert meta_of(tmp_path / "o.asdf")["cal_step"][chain.STEPS[name].status] in ("COMPLETE", "N/A")
    assert META["exposure.frame_time"] == FRAME_TIME == meta_of(tmp_path / "o.asdf")["exposure"]["frame_time"]


# ----------------------------------------------------------------------------------------------------------- unforeseen errors
def failing(tmp_path, capsys, change=None):
    """Run a program that raises an unexpected error on a file; return its message."""
    path = write_ramp(tmp_path / "in.asdf", ramp())
    with asdf.open(path, memmap=False, lazy_load=False) as file:
        file.write_to(path)  # with checksums
    if change:
        path.write_bytes(change(path.read_bytes()))
    with reported_errors("refpix", path) as outcome:
        _ = {}["a key"]
    return outcome.status, capsys.readouterr().err


def test_an_unexpected_error_is_reported_with_its_traceback(tmp_path, capsys):
    status, said = failing(tmp_path, capsys)
    assert status == 1
    line, *rest = said.splitlines()
    assert ":: rampflow :: ERROR :: refpix: fault of the program: KeyError: 'a key' (at " in line
    assert line.endswith("Report it with the traceback below, and with its input, in which no damage was found: in.asdf")
    assert rest[0].startswith("Traceback") and rest[-1] == "KeyError: 'a key'"


def test_an_unexpected_error_on_a_damaged_file_names_the_damage(tmp_path, capsys):
    def flip(content):
        return content[:-2000] + bytes([content[-2000] ^ 1]) + content[-1999:]

    status, said = failing(tmp_path, capsys, flip)
    assert status == 1 and "in.asdf: block " in said and "doesn't match its checksum (damaged)" in said
    assert "fault of the program" not in said


def test_an_unexpected_error_on_an_invalid_file_names_the_schema_violation(tmp_path, capsys):
    status, said = failing(tmp_path, capsys, lambda content: content.replace(b" frame_time: ", b" frame_zeit: "))
    assert status == 1 and "in.asdf: does not fit the schema of its data model (" in said and "frame_time" in said


def test_a_step_writes_what_it_names_and_nothing_else(files, tmp_path, capsys):
    def run(job):
        before = job.exposure.array("data", 2).read()
        with job.create(rewrite=("data",), change=("err",)) as product:
            product.write("data", before + 1)
            product.write_rows("err", 2, np.full((1, before.shape[1]), 7, np.float16))
            product.write_rows("dq", 0, np.zeros((1, before.shape[1]), np.uint32))

    step = dataclasses.replace(declarations.steps()["dark_current"], references=(), parameters=())
    assert run_step(step, run, [str(files / "wfi_image.asdf"), str(tmp_path / "o.asdf")]) == 1
    assert "ValueError: the step writes dq, which it did not name in Job.create" in capsys.readouterr().err
    assert not (tmp_path / "o.asdf").exists()


def test_arrays_that_a_step_changes_keep_their_other_rows(files, tmp_path):
    def run(job):
        with job.create(rewrite=("data",), change=("err",)) as product:
            product.write("data", job.exposure.array("data", 2).read() + 1)
            product.write_rows("err", 2, np.full((1, job.exposure.array("err", 2).shape[1]), 7, np.float16))

    step = dataclasses.replace(declarations.steps()["dark_current"], references=(), parameters=())
    assert run_step(step, run, [str(files / "wfi_image.asdf"), str(tmp_path / "o.asdf")]) == 0
    with opened(files / "wfi_image.asdf") as before, opened(tmp_path / "o.asdf") as after:
        np.testing.assert_array_equal(after.data, before.data + 1)
        expected = np.array(before.err)
        expected[2] = 7
        np.testing.assert_array_equal(after.err, expected)
        np.testing.assert_array_equal(after.dq, before.dq)


def test_a_closed_pipe_ends_a_program_quietly(tmp_path):
    """As `show_products.py FOLDER | head -1`."""
    script = "import sys; from rampflow.step.program import reported_errors\n"
    script += "with reported_errors('x') as outcome:\n    print('x\\n' * 100_000)\nsys.exit(outcome.status)"
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    run.stdout.close()
    assert run.stderr.read() == b"" and run.wait(60) == 141


@pytest.mark.parametrize(("step", "option", "status"), [("dark_current", "dark", "dark"), ("flatfield", "flat", "flat_field"),
                                                        ("photom", "photom", "photom")])  # fmt: skip
def test_without_a_reference_a_step_is_skipped(tmp_path, step, option, status):
    write_image(tmp_path / "in.asdf", image())
    assert "WARNING" in succeed(step, tmp_path / "in.asdf", tmp_path / "out.asdf", f"--{option}", "N/A").stderr
    with opened(tmp_path / "out.asdf") as model:
        assert model.meta.cal_step[status] == "SKIPPED"
        assert model.meta.ref_file[option] == "N/A"
    assert_same_arrays(tmp_path / "in.asdf", tmp_path / "out.asdf", IMAGE_ARRAYS)


def test_a_ramp_is_refused_where_an_image_is_expected(tmp_path):
    write_ramp(tmp_path / "in.asdf", ramp())
    for step, option in (("dark_current", "dark"), ("flatfield", "flat"), ("photom", "photom")):
        done = run(step, tmp_path / "in.asdf", tmp_path / "o.asdf", f"--{option}", "N/A")
        assert (
            done.returncode == 1 and f"expected the data model 'wfi_image', found 'ramp'; give {step} the output" in done.stderr
        )


def test_a_file_of_another_kind_is_not_blamed_for_an_error(tmp_path):
    """A dust map is a FITS file."""
    (tmp_path / "map.fits").write_bytes(b"SIMPLE  =")
    write_image(tmp_path / "a.asdf", np.ones((8, 8)))
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        said = explain(error, [tmp_path / "map.fits", tmp_path / "a.asdf"])
    assert said.startswith("fault of the program: ZeroDivisionError") and said.endswith("no damage was found: a.asdf")
