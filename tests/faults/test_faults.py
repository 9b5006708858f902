"""Damaged and misleading inputs: bytes, trees, metadata, references and names.

A step ends with one line that names the file, and leaves no output; or its product is right. The
table in docs/reliability.md lists these tests.
"""

import contextlib
import importlib
import io
import itertools
import json
import logging
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import declarations
import numpy as np
import pytest
from inventories import DATA, ask, write_exposure
from repository import ROOT
from simulator import simulate_references
from small_files import PATTERN, SCRIPTS, ramp, set_entries, write_image, write_raw
from snakemake_runs import Workflow

from rampflow import chain, dq
from rampflow.errors import MAX_PROBLEMS, RampflowError, raise_problems
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import create_asdf
from rampflow.files.yaml_tree import tagged
from rampflow.step.declaration import reference_types
from rampflow.step.program import run_step
from rampflow.workflow import inventory
from rampflow.workflow.association import find_members
from rampflow.workflow.configuration import validated
from rampflow.workflow.exposure_names import LONGEST
from rampflow.workflow.inventory_building import build_inventory

pytestmark = pytest.mark.slow

SIZE = 256
STEPS = [name for name in chain.STEPS if name != "tweakreg"]  # it takes associations, and is tested below
#: Each step and what it reads: the exposure, or a reference by its type.


def asdf_references(name):
    """Types of a step's references that are ASDF files. The others are the dust maps, which tests/unit/test_dust.py damages."""
    return [r.type for r in declarations.steps()[name].references if not r.type.startswith("dustmap")]


READ = [(name, what) for name in STEPS for what in ("exposure", *asdf_references(name))]
#: source_catalog takes seconds, where others take hundredths.
QUICK = [(name, what) for name, what in READ if name != "source_catalog"]
REFERENCES = [(name, what) for name, what in QUICK if what != "exposure"]
LIMIT = 60  #: seconds that a step may take here before it counts as hanging: a hundred times what it needs


# ----------------------------------------------------------------------------------------------------------- the files
class Files:
    """A folder with a raw exposure, its references, and what each step makes of them.

    Attributes
    ----------
    folder : pathlib.Path
    before : dict
        The exposure that each step takes, by the name of the step.
    """

    def __init__(self, folder):
        self.folder, self.before = folder, {}

    def read_by(self, name, what):
        """The file that a step reads."""
        return self.before[name] if what == "exposure" else self.folder / f"{what}.asdf"

    def run(self, name, into, seconds=LIMIT, options=(), **given):
        """Run a step in this process, with some of its files replaced; return its exit status and standard error.

        `seconds` is the time limit; `options` are added to the command line.

        Raises
        ------
        BaseException
            An error that the step does not turn into a message.
        """
        step, module = declarations.steps()[name], importlib.import_module(name)
        outputs = [into / f"r_{step.suffix}.asdf"] if len(step.outputs) == 1 else [into / "r_cat.parquet", into / "r_segm.asdf"]
        references = [f"--{t}={given.get(t, self.folder / f'{t}.asdf')}" for t in asdf_references(name)]
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), time_limit(seconds):
                exposure = str(given.get("exposure", self.before[name]))
                status = run_step(step, module.run, [exposure, *map(str, outputs), *references, *options])
        finally:
            logging.captureWarnings(False)
        return status, said.getvalue()


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TimeoutError in a block that takes longer."""

    def stop(*_):
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The files of a small exposure of WFI18, which goes through all steps."""
    folder = tmp_path_factory.mktemp("faults")
    detector = simulate_references.Detector("WFI18", SIZE, 1)
    for reftype, make in simulate_references.MAKERS.items():
        models = make(detector)
        (models.get(("F158",)) or next(iter(models.values()))).save(folder / f"{reftype}.asdf")
    data = ramp(rows=SIZE, columns=SIZE) + np.random.default_rng(1).normal(0, 5, (len(PATTERN), SIZE, SIZE))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for row, column in ((60, 70), (150, 90), (200, 180)):  # stars
        star = 400 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4.5)
        data += star * np.array([np.mean(reads) for reads in PATTERN])[:, None, None]
    raw = write_raw(folder / "r_uncal.asdf", data, {"instrument.detector": "WFI18"})
    # Files of the archive have checksums of their blocks, too.
    add_checksums(raw)
    result, exposure = Files(folder), raw
    for name in STEPS:
        result.before[name] = exposure
        status, said = result.run(name, folder, seconds=10 * LIMIT)  # the first run compiles the loops
        assert status == 0, said
        if name != "source_catalog":
            exposure = folder / f"r_{chain.STEPS[name].suffix}.asdf"
    return result


def add_checksums(path):
    """Write checksums of the blocks, which the writer of rampflow leaves out."""
    import asdf

    with asdf.open(path, memmap=False, lazy_load=False) as file:
        file.write_to(path)


def refusal(status, said, *names):
    """The error message of a step that must fail; it names one of these files."""
    lines = [line for line in said.splitlines() if ":: ERROR ::" in line]
    assert status == 1 and len(lines) == 1, said
    line = lines[0].partition(":: ERROR :: ")[2]
    assert foreseen(line) == ("Traceback" not in said), said
    assert not names or any(name in line for name in names), line
    return line


def foreseen(line):
    """Whether a specific check has found the fault, not the handler of unexpected errors."""
    return "fault of the program: " not in line and ". The error it caused: " not in line


def arrays_of(path):
    with AsdfFile(path) as file:
        return {k: v.read() if hasattr(v, "read") else v for k, v in file.tree["roman"].items() if hasattr(v, "dtype")}


def changed(path, other):
    """Places (row, column) where any array of two products of a step differs; `None` where they differ in shape."""
    one, two = ({k: a for k, a in arrays_of(p).items() if k != "jump_indices"} for p in (path, other))  # (a list, no plane)
    if {k: a.shape for k, a in one.items()} != {k: a.shape for k, a in two.items()}:
        return None
    places = set()
    for name in one:
        both_nan = (one[name] != one[name]) & (two[name] != two[name])
        differ = (one[name] != two[name]) & ~both_nan
        places |= {tuple(index[-2:]) for index in np.argwhere(differ)}
    return places


def edited(path, target, entries):
    """A copy of a file with entries of its ``roman`` tree set by their dotted names; `...` takes one out."""
    with AsdfFile(path) as file:
        roman = copied(file.tree["roman"])
        set_entries(roman, entries)
        with create_asdf(target, {"roman": roman}):
            pass
    return target


def copied(node):
    """A tree whose mappings may be changed; its arrays stay where they are."""
    if not isinstance(node, dict):
        return node
    new = {key: copied(value) for key, value in node.items()}
    return tagged(new, node.tag) if hasattr(node, "tag") else new


# ------------------------------------------------------------------------------------------------------------ the bytes
def places_to_cut(content):
    """Positions at which a file is cut, by name."""
    tree_end = re.search(rb"\n\.\.\.\n", content).start()
    cuts = {"empty": 0, "comment": 10, "tree": tree_end // 2, "end of the tree": tree_end + 2}
    blocks = [m.start() for m in re.finditer(rb"\xd3BLK", content)]
    if blocks:
        cuts |= {"block magic": blocks[0] + 2, "block header": blocks[0] + 30, "after a block header": blocks[-1] + 54}
        cuts |= {"block data": blocks[-1] + 54 + 40}
    return cuts


@pytest.mark.parametrize(("name", "what"), READ, ids=map("-".join, READ))
def test_truncated_files_are_named(files, tmp_path, name, what):
    content, bad = files.read_by(name, what).read_bytes(), tmp_path / "bad.asdf"
    for place, end in places_to_cut(content).items():
        bad.write_bytes(content[:end])
        line = refusal(*files.run(name, tmp_path, **{what: bad}), "bad.asdf")
        assert foreseen(line), (place, line)
        assert [p.name for p in tmp_path.iterdir()] == ["bad.asdf"], place


@pytest.mark.parametrize("keep", [0, 10, -1, -20])
def test_a_damaged_block_index_is_ignored(files, tmp_path, keep):
    """The index is not read: the headers of the blocks say where they are."""
    content = files.before["dq_init"].read_bytes()
    index = content.rindex(b"#ASDF BLOCK INDEX")
    (tmp_path / "bad.asdf").write_bytes(content[: index + keep] if keep >= 0 else content[:keep])
    status, said = files.run("dq_init", tmp_path, exposure=tmp_path / "bad.asdf")
    assert status == 0, said
    assert changed(tmp_path / "r_dqinit.asdf", files.before["saturation"]) == set()


FLIPS = 25


def flipped(content, rng):
    """A file with one random bit flipped, and where: mostly in its tree and block headers, where each bit has a meaning."""
    tree_end = re.search(rb"\n*\n\.\.\.\n", content).start()
    blocks = [m.start() for m in re.finditer(rb"\xd3BLK", content)]
    place = rng.choice(["tree", "header", "data"] if blocks else ["tree"])
    position = {
        "tree": lambda: rng.randrange(tree_end),
        "header": lambda: rng.choice(blocks) + rng.randrange(54),
        "data": lambda: rng.randrange(blocks[0], len(content)),
    }[place]()
    result = bytearray(content)
    result[position] ^= 1 << rng.randrange(8)
    return bytes(result), position


@pytest.mark.parametrize(("name", "what"), QUICK, ids=map("-".join, QUICK))
def test_flipped_bits_are_reported_or_change_one_value(files, tmp_path, name, what):
    """Either an error names the file, or the product differs in one pixel or as the changed metadata say."""
    rng = random.Random(f"{name} {what}")
    content, bad = files.read_by(name, what).read_bytes(), tmp_path / "bad.asdf"
    first_block = content.find(b"\xd3BLK") % len(content)
    product = f"r_{chain.STEPS[name].suffix}.asdf"
    for _ in range(FLIPS):
        damaged, position = flipped(content, rng)
        bad.write_bytes(damaged)
        status, said = files.run(name, tmp_path, **{what: bad})
        if status:
            assert foreseen(refusal(status, said, "bad.asdf")), said
        elif position > first_block and not (name == "refpix" and what == "exposure"):
            places = changed(tmp_path / product, files.folder / product)
            assert places is not None and len(places) <= 1, (position, places)
        (tmp_path / product).unlink(missing_ok=True)
        assert [p.name for p in tmp_path.iterdir()] == ["bad.asdf"]


@pytest.mark.parametrize("what", ["exposure", "epsf", "apcorr"])
def test_flipped_bits_in_the_input_of_source_catalog(files, tmp_path, what):
    rng = random.Random(what)
    content, bad = files.read_by("source_catalog", what).read_bytes(), tmp_path / "bad.asdf"
    for _ in range(3):
        bad.write_bytes(flipped(content, rng)[0])
        status, said = files.run("source_catalog", tmp_path, **{what: bad})
        assert not status or refusal(status, said, "bad.asdf")


def test_any_flipped_bit_in_the_pixels_of_a_raw_exposure_is_found(files, tmp_path):
    """The blocks have checksums; without them a wrong reference pixel would affect a whole channel."""
    content = files.before["dq_init"].read_bytes()
    blocks, rng = [m.start() for m in re.finditer(rb"\xd3BLK", content)], random.Random(1)
    for _ in range(20):
        damaged = bytearray(content)
        damaged[rng.randrange(blocks[0] + 54, blocks[1])] ^= 1 << rng.randrange(8)
        (tmp_path / "bad.asdf").write_bytes(damaged)
        line = refusal(*files.run("dq_init", tmp_path, exposure=tmp_path / "bad.asdf"), "bad.asdf")
        assert "block 0 doesn't match its checksum" in line


@pytest.mark.parametrize("field", [(8, 16, "allocated"), (16, 24, "used"), (24, 32, "data")], ids=lambda f: f[2])
@pytest.mark.parametrize("size", [0, 1, 2**31, 2**40, 2**62, 2**64 - 1])
@pytest.mark.parametrize("what", ["exposure", "saturation"])
def test_wrong_block_headers_are_refused(files, tmp_path, field, size, what):
    """Plain blocks of the exposure, compressed ones of the reference; a size is checked before memory is allocated."""
    start, stop, _ = field
    content = bytearray(files.read_by("saturation", what).read_bytes())
    header = content.index(b"\xd3BLK") + 6
    content[header + start : header + stop] = struct.pack(">Q", size)
    (tmp_path / "bad.asdf").write_bytes(content)
    status, said = files.run("saturation", tmp_path, **{what: tmp_path / "bad.asdf"})
    if status:
        line = refusal(status, said, "bad.asdf")
        assert foreseen(line) and "memory" not in line
    else:  # more allocated than used is allowed
        assert changed(tmp_path / "r_saturation.asdf", files.folder / "r_saturation.asdf") == set()


@pytest.mark.parametrize("codec", [b"blsc", b"zstd", b"\xff\xff\xff\xff", b"zlib", b"bzp2", b"lz4\0", bytes(4)])
def test_blocks_with_a_wrong_compression_label_are_refused(files, tmp_path, codec):
    for what in ("exposure", "saturation"):
        content = bytearray(files.read_by("saturation", what).read_bytes())
        header = content.index(b"\xd3BLK") + 6
        if content[header + 4 : header + 8] == codec:
            continue
        content[header + 4 : header + 8] = codec
        (tmp_path / "bad.asdf").write_bytes(content)
        assert foreseen(refusal(*files.run("saturation", tmp_path, **{what: tmp_path / "bad.asdf"}), "bad.asdf"))


# -------------------------------------------------------------------------------------------------------------- the tree
HEAD = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n--- !core/asdf-1.1.0\n"
BOMB = b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 40))
MERGES = b"a0: &a0 {x: 1}\n" + b"".join(
    b"a%d: &a%d {<<: [%s]}\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 40)
)


@pytest.mark.parametrize(
    "tree",
    [
        pytest.param(BOMB, id="aliases of aliases"),
        pytest.param(MERGES, id="merge keys"),
        pytest.param(b"a: &a [*a]\n", id="a list in itself"),
        pytest.param(b"a: &a {b: *a}\n", id="a mapping in itself"),
        pytest.param(b"a: " + b"[" * 200_000 + b"]" * 200_000 + b"\n", id="deep brackets"),
        pytest.param(b"a: " + b"{a: " * 100_000 + b"}" * 100_000 + b"\n", id="deep braces"),
        pytest.param(b"a:\n " + b"- " * 100_000 + b"x\n", id="deep dashes"),
        pytest.param(b"a: " + b"9" * 100_000 + b"\n", id="a number without end"),
        pytest.param(b"a: !!int x\n", id="no integer"),
        pytest.param(b"a: !!bool x\n", id="no truth"),
        pytest.param(b"a: 2001-99-99\n", id="no date"),
        pytest.param(b"? {a: 1}\n: 2\n", id="a mapping as a key"),
        pytest.param(b"a: \x07\n", id="control characters"),
        pytest.param(b"- a\n", id="a list"),
        pytest.param(b"a: !core/ndarray-1.1.0 {source: 0, datatype: O, byteorder: little, shape: [4]}\n", id="objects"),
        pytest.param(b"a: !core/ndarray-1.1.0 {source: -5, datatype: int8, byteorder: little, shape: [4]}\n", id="block -5"),
        pytest.param(b"a: !core/ndarray-1.1.0 {source: 'http://x', datatype: int8, byteorder: big, shape: [4]}\n", id="a URL"),
        pytest.param(
            b"a: !core/ndarray-1.1.0 {source: 0, datatype: int8, byteorder: big, shape: [4294967296, 4294967296]}\n",
            id="a shape beyond 64 bits",
        ),
        pytest.param(
            b"a: !core/ndarray-1.1.0 {source: 0, datatype: int8, byteorder: big, shape: [4], offset: -9}\n", id="before"
        ),
        pytest.param(
            b"a: !core/ndarray-1.1.0 {source: 0, datatype: int8, byteorder: big, shape: [4], strides: [99]}\n", id="strides"
        ),
        pytest.param(
            b"a: !core/ndarray-1.1.0 {source: 0, datatype: int8, byteorder: big, shape: [1099511627776], strides: [0]}\n",
            id="strides of nothing",
        ),
    ],
)
def test_malformed_yaml_is_refused(tmp_path, tree):
    block = b"\xd3BLK" + struct.pack(">HI4sQQQ16s", 48, 0, bytes(4), 64, 64, 64, bytes(16)) + bytes(64)
    (tmp_path / "bad.asdf").write_bytes(HEAD + tree + b"...\n" + block)
    with time_limit(20), pytest.raises(RampflowError, match=r"bad\.asdf: .{3,600}") as error:
        AsdfFile(tmp_path / "bad.asdf")
    assert len(str(error.value)) < 1000


def test_a_header_without_an_end_is_refused_early(tmp_path):
    with open(tmp_path / "bad.asdf", "wb") as file:
        file.write(HEAD)
        file.truncate(1 << 36)  # a sparse file
    with time_limit(20), pytest.raises(RampflowError, match="its YAML tree has no end"):
        AsdfFile(tmp_path / "bad.asdf")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch PWNED']", "!!python/name:os.system ''"])
def test_python_tags_are_not_executed(files, tmp_path, monkeypatch, tag):
    monkeypatch.chdir(tmp_path)
    content = files.before["dq_init"].read_bytes()
    (tmp_path / "bad.asdf").write_bytes(content.replace(b"\n  meta:\n", b"\n  extra: " + tag.encode() + b"\n  meta:\n", 1))
    files.run("dq_init", tmp_path, exposure=tmp_path / "bad.asdf")
    assert not (tmp_path / "PWNED").exists()


# ------------------------------------------------------------------------------------------------------ not a plain file
def test_pipes_folders_and_broken_links_are_refused_without_waiting(files, tmp_path):
    os.mkfifo(tmp_path / "fifo.asdf")
    (tmp_path / "folder.asdf").mkdir()
    (tmp_path / "link.asdf").symlink_to(tmp_path / "nowhere.asdf")
    (tmp_path / "loop.asdf").symlink_to(tmp_path / "loop.asdf")
    for name, what in itertools.product(("fifo", "folder", "link", "loop"), ("exposure", "saturation")):
        bad = tmp_path / f"{name}.asdf"
        assert foreseen(refusal(*files.run("saturation", tmp_path, **{what: bad}), bad.name))
    before = {p.name for p in tmp_path.iterdir()}
    assert before == {"fifo.asdf", "folder.asdf", "link.asdf", "loop.asdf"}


AS_NOBODY = """
import locale, os, sys  # what argparse needs too
sys.path[:0] = sys.argv[1:2]
import saturation  # and its imports, which the user nobody may be unable to read
from rampflow.step.program import run_step
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(run_step(saturation.STEP, saturation.run, sys.argv[2:]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="drops the rights of root, so that permissions count")
@pytest.mark.parametrize("forbidden", ["exposure", "saturation", "output"])
def test_missing_permissions_are_named(files, tmp_path, forbidden):
    given = {"exposure": tmp_path / "in.asdf", "saturation": tmp_path / "ref.asdf", "output": tmp_path / "out" / "o.asdf"}
    shutil.copy(files.before["saturation"], given["exposure"])
    shutil.copy(files.folder / "saturation.asdf", given["saturation"])
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent != Path("/tmp"):
            with contextlib.suppress(PermissionError):
                parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o555 if forbidden == "output" else 0o777)
    for what in ("exposure", "saturation"):
        given[what].chmod(0o000 if what == forbidden else 0o644)
    arguments = [given["exposure"], given["output"], f"--saturation={given['saturation']}"]
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, SCRIPTS, *arguments], capture_output=True, text=True, env=environment
    )
    line = refusal(done.returncode, done.stderr, given[forbidden].name)
    assert "Permission denied" in line
    assert not given["output"].exists()


# ---------------------------------------------------------------------------------------------------------- the metadata
#: For each step: an entry that it reads of the exposure, and values that it can't use; `...` is an entry that isn't there.
NO_NUMBERS = [..., None, "3", True, [3], {"a": 3}, float("nan"), float("inf")]
PATTERNS = [..., None, [], "123456", [1, 2], [[1], [2]], [[]] * 6, [[2], [1], [3], [4], [5], [6]], [["1"]] * 6, {"a": 1}]
DETECTORS = [..., None, "WFI99", "WFI00", "wfi18", "", 18, ["WFI18"]]
NO_MAPPING = ["x", 5, ["a"], None]
FIELDS = [
    *((n, "meta.exposure.read_pattern", PATTERNS) for n in ("dq_init", "saturation", "linearity", "ramp_fitting")),
    *((n, "meta.exposure.frame_time", [*NO_NUMBERS, 0, -3.04]) for n in ("dq_init", "dark_decay", "ramp_fitting")),
    *((n, "meta.instrument.detector", DETECTORS) for n in ("dq_init", "dark_decay", "wfi18_transient")),
    *(("dq_init", f"meta.guide_star.window_{k}", [..., None, "3", 3.5]) for k in ("xstart", "xstop", "ystart", "ystop")),
    ("dq_init", "meta.instrument.data_encoding_offset", ["x", float("nan"), [1]]),
    # A pointing that is not finite is treated as a placeholder: see test_assign_wcs.
    *(("assign_wcs", f"meta.wcsinfo.{k}", NO_NUMBERS[:-2]) for k in ("v2_ref", "v3_ref", "roll_ref", "ra_ref", "dec_ref")),
    ("assign_wcs", "meta.velocity_aberration.scale_factor", ["x", [1]]),  # of a number that is no scale, see test_assign_wcs
    ("photom", "meta.instrument.optical_element", [..., None, 5, ["F158"]]),
    *((n, f"meta.{k}", NO_MAPPING) for n in ("dq_init", "saturation", "flatfield") for k in ("exposure", "instrument")),
    *((n, f"meta.{k}", NO_MAPPING) for n in ("dark_current", "linearity") for k in ("cal_step", "ref_file", "wcsinfo")),
    *((n, "meta.cal_logs", ["x", 5, {"a": 1}, None]) for n in ("saturation", "photom")),
    *((n, "meta", [..., None, "x", []]) for n in ("dq_init", "refpix", "flatfield")),
    *((n, "data", [..., None, "x", 5, [[1]], np.zeros((2, 2), np.complex64)]) for n in ("dq_init", "refpix", "photom")),
    *((n, k, [..., None, "x"]) for n in ("saturation", "linearity", "ramp_fitting") for k in ("groupdq", "pixeldq")),
    *((n, "border_ref_pix_left", [..., None, "x"]) for n in ("dark_decay", "linearity")),
    ("dq_init", "amp33", [..., None, "x", np.zeros((6, 3, 128), np.uint16)]),
    ("dq_init", "reference_read", ["x", np.zeros((3, 3), np.uint16)]),
]


@pytest.mark.parametrize(("name", "field", "values"), FIELDS, ids=lambda v: v if isinstance(v, str) else "")
def test_missing_metadata_and_wrong_types_are_named(files, tmp_path, name, field, values):
    for value in values:
        bad = edited(files.before[name], tmp_path / "bad.asdf", {field: value})
        line = refusal(*files.run(name, tmp_path, exposure=bad), "bad.asdf")
        assert foreseen(line) and field.removeprefix("meta.") in line, (value, line)
        assert [p.name for p in tmp_path.iterdir()] == ["bad.asdf"]


def test_an_unknown_optical_element_has_no_photometry(files, tmp_path):
    bad = edited(files.before["photom"], tmp_path / "bad.asdf", {"meta.instrument.optical_element": "F999"})
    status, said = files.run("photom", tmp_path, exposure=bad)
    assert status == 0 and "has no entry for the optical element F999" in said


@pytest.mark.parametrize("name", STEPS)
def test_swapped_exposures_and_references_are_refused(files, tmp_path, name):
    exposures = {files.folder / f"r_{suffix}.asdf" for suffix in ("uncal", "dqinit", "rampfit")}
    takes = chain.STEPS[name].takes
    # dq_init takes ramps, too.
    taken = {"wfi_science_raw": ("uncal", "dqinit"), "ramp": ("dqinit",), "wfi_image": ("rampfit",)}[takes]
    for wrong in (
        *(exposures - {files.folder / f"r_{suffix}.asdf" for suffix in taken}),
        files.folder / "flat.asdf",
        files.folder / "photom.asdf",
    ):
        line = refusal(*files.run(name, tmp_path, exposure=wrong), wrong.name)
        assert foreseen(line) and "expected the data model" in line
    for reftype in asdf_references(name):
        for wrong in ("mask", "gain", "r_uncal"):
            if wrong == reftype:
                continue
            status, said = files.run(name, tmp_path, **{reftype: files.folder / f"{wrong}.asdf"})
            assert foreseen(refusal(status, said, f"{wrong}.asdf"))
    assert not any(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------- the references
def entries_of(path):
    """Entries of a reference that can be missing, by their dotted names; of tables, one row each."""
    with AsdfFile(path) as file:
        roman = file.tree["roman"]
        for name, node in roman.items():
            if name == "meta" or name.endswith(("error", "err")):  # not read
                continue
            yield name
            for row in ("WFI18", "F158", "science_channel_01"):
                if isinstance(node, dict) and row in node:
                    yield f"{name}.{row}"
                    yield from (f"{name}.{row}.{column}" for column in node[row])


NOT_READ = ("ap_corrections", "sky_background", "inverse_linearity", "correction_version", "inl_table.F158")


@pytest.mark.parametrize(("name", "what"), REFERENCES, ids=map("-".join, REFERENCES))
def test_missing_and_wrong_entries_of_references_are_named(files, tmp_path, name, what):
    source, bad = files.read_by(name, what), tmp_path / "bad.asdf"
    for entry in entries_of(source):
        for value in (..., "x", [1, "a"], np.zeros((3, 3), np.float32), np.zeros((3, 300), np.complex64)):
            edited(source, bad, {entry: value})
            status, said = files.run(name, tmp_path, **{what: bad})
            if status == 0:  # not read by this step, or optional
                product = f"r_{chain.STEPS[name].suffix}.asdf"
                passed_over = "WARNING" in said or entry == "dq" and what == "inverselinearity"
                assert passed_over or changed(tmp_path / product, files.folder / product) == set(), (entry, value)
                continue
            assert foreseen(refusal(status, said, "bad.asdf")), (entry, value)


def damaged_arrays(array):
    """An array with one value, or all, not a number or infinite; and of other shapes."""
    for value in (np.nan, np.inf):
        one = array.copy()
        one[..., one.shape[-2] // 2, one.shape[-1] // 2] = value
        yield f"one {value}", one
        yield f"all {value}", np.full_like(array, value)
    yield "a column less", array[..., :-1].copy()
    yield "a row less", array[..., :-1, :].copy()
    yield "flat", array.reshape(-1)
    yield "empty", array[..., :0].copy()


FRAMES = [
    *(("saturation", "data"), ("refpix", "gamma"), ("refpix", "zeta"), ("refpix", "alpha"), ("linearity", "coeffs")),
    *(("inverselinearity", "coeffs"), ("readnoise", "data"), ("gain", "data"), ("dark", "dark_slope"), ("flat", "data")),
]


@pytest.mark.parametrize(("reftype", "array"), FRAMES, ids=map("-".join, FRAMES))
def test_reference_arrays_not_finite_or_of_another_shape(files, tmp_path, reftype, array):
    """A pixel without a value in the reference is flagged, and no other changes; no value at all, or another shape, is refused.

    (With another shape, some steps are skipped.)
    """
    name = next(n for n, what in QUICK if what == reftype)
    product = f"r_{chain.STEPS[name].suffix}.asdf"
    for damage, values in damaged_arrays(arrays_of(files.folder / f"{reftype}.asdf")[array]):
        bad = edited(files.folder / f"{reftype}.asdf", tmp_path / "bad.asdf", {array: values})
        status, said = files.run(name, tmp_path, **{reftype: bad})
        if status:
            assert foreseen(refusal(status, said, "bad.asdf"))
            assert not (tmp_path / product).exists()
            assert reftype == "refpix" or not damage.startswith("one")
            continue
        assert not damage.startswith("all"), "a frame without a finite value was taken"
        after = arrays_of(tmp_path / product)
        if "skipped" in said:
            assert not damage.startswith("one")
        elif damage.startswith("one"):
            assert len(changed(tmp_path / product, files.folder / product)) <= 1
        unknown = ~np.isfinite(after["data"])
        if "groupdq" in after:
            usable = (after["groupdq"] & 1 == 0) & (after["pixeldq"] & 1 == 0)
        else:
            usable = after["dq"] & 1 == 0
        assert not (unknown & usable).any(), damage
        (tmp_path / product).unlink()


@pytest.mark.parametrize("damage", ["nan", "not square", "empty", "zero"])
def test_an_invalid_epsf_is_named(files, tmp_path, damage):
    psf = arrays_of(files.folder / "epsf.asdf")["psf"]
    bad = {"nan": np.full_like(psf, np.nan), "not square": psf[..., :-1], "empty": psf[..., :0], "zero": np.zeros_like(psf)}
    edited(files.folder / "epsf.asdf", tmp_path / "bad.asdf", {"psf": np.ascontiguousarray(bad[damage])})
    assert foreseen(refusal(*files.run("source_catalog", tmp_path, epsf=tmp_path / "bad.asdf"), "bad.asdf"))


def _linear(coefficients):
    """The linear terms alone."""
    return np.where(np.arange(len(coefficients))[:, None, None] == 1, coefficients, 0).astype(coefficients.dtype)


#: References of impossible values: the step, the type, the entry, what becomes of it, and what the refusal says.
IMPLAUSIBLE = [
    ("dq_init", "mask", "dq", lambda a: a | np.uint32(1), "DO_NOT_USE (dq) is 1, and 0 to 0.5"),
    ("saturation", "saturation", "data", lambda a: a * 0, "median of data is 0 DN"),
    ("saturation", "saturation", "data", lambda a: a * np.float32(np.nan), "data has no finite value"),
    ("saturation", "saturation", "data", lambda a: a / 1000, "median of data is 5"),
    ("refpix", "refpix", "gamma", lambda a: a + 1e6, "(gamma) is 1"),
    ("refpix", "refpix", "alpha", lambda a: a - 999999j, "(alpha) is 999999"),
    ("dark_decay", "darkdecaysignal", "decay_table.WFI18.amplitude", lambda a: 1e5, "WFI18.amplitude is 100000 DN"),
    ("dark_decay", "darkdecaysignal", "decay_table.WFI18.time_constant", lambda a: 1e-6, "time_constant is 1e-06 s"),
    ("linearity", "linearity", "coeffs", lambda a: a * 0, "median of coeffs[1] is 0"),
    ("linearity", "linearity", "coeffs", lambda a: a[::-1].copy(), "median of coeffs[1] is"),
    ("linearity", "inverselinearity", "coeffs", lambda a: a * 0, "median of coeffs[1] is 0"),
    ("linearity", "inverselinearity", "coeffs", lambda a: a * np.float32(np.nan), "coeffs[1] has no finite value"),
    ("linearity", "linearity", "coeffs", lambda a: a * np.float32(1.9), "coeffs at 20000 DN, as a ratio, is 1."),
    ("linearity", "linearity", "coeffs", lambda a: 1000 * a - np.float32(999) * _linear(a), "at 20000 DN, as a ratio, is"),
    ("linearity", "integralnonlinearity", "inl_table.science_channel_02.correction", lambda a: a * 0 + 30000, "is 30000 DN"),
    ("ramp_fitting", "readnoise", "data", lambda a: a * 0, "median of data is 0 DN"),
    ("ramp_fitting", "readnoise", "data", lambda a: a * 0 - 999999, "median of data is -999999 DN"),
    ("ramp_fitting", "gain", "data", lambda a: a * 0 + np.float32(1e-6), "median of data is 1e-06 electron/DN"),
    ("ramp_fitting", "gain", "data", lambda a: np.float32(1) / np.abs(a).clip(1e-3), "median of data is 0.5"),
    ("dark_current", "dark", "dark_slope", lambda a: a * 0 + np.float32(1e30), "median of dark_slope is 1e+30 DN/s"),
    ("dark_current", "dark", "dark_slope", lambda a: a * 1e4, "median of dark_slope is"),
    ("photom", "photom", "phot_table.F158.pixelareasr", lambda a: a * 206265.0**2, "F158.pixelareasr is 0.0121"),
    ("photom", "photom", "phot_table.F158.photmjsr", lambda a: -999999.0, "F158.photmjsr is -999999"),
    ("photom", "photom", "phot_table.F158.uncertainty", lambda a: 250 * a, "F158.uncertainty is 0.57"),
    ("flatfield", "flat", "data", lambda a: -a, "median of data is -0.99"),
    ("flatfield", "flat", "data", lambda a: a * 0, "median of data is 0,"),
    ("flatfield", "flat", "data", lambda a: a * 20000, "median of data is"),
    (
        "source_catalog",
        "epsf",
        "psf",
        lambda a: a * np.float32(0.6),
        "sum of a stamp, divided by that of a whole PSF (psf) is 0.6",
    ),
    (
        "source_catalog",
        "epsf",
        "psf",
        lambda a: a * np.float32(16 * 0.6),
        "sum of a stamp, divided by that of a whole PSF (psf) is 0.6",
    ),
    ("source_catalog", "epsf", "psf", lambda a: np.roll(a, 2, -1), "centroid from its middle (psf) is 0."),
    ("source_catalog", "epsf", "psf", lambda a: np.roll(a, a.shape[-1] // 3, -1), "within 3.6 pixels (psf) is"),
    ("source_catalog", "epsf", "meta.oversample", lambda a: 0, "meta.oversample is 0"),
    ("source_catalog", "epsf", "meta.oversample", lambda a: 2 * a, "diffusion (psf, with meta.oversample 8) is 0.5"),
    ("source_catalog", "epsf", "meta.oversample", lambda a: a // 2, "diffusion (psf, with meta.oversample 2) is 2"),
    ("source_catalog", "apcorr", "data.F158.ee_fractions", lambda a: 100 * np.asarray(a), "ee_fractions is"),
    ("source_catalog", "apcorr", "data.F158.ee_radii", lambda a: -np.asarray(a), "ee_radii is -"),
    ("source_catalog", "apcorr", "data.F158.ee_radii", lambda a: 0.11 * np.asarray(a), "radius of 90 % of the light"),
    ("source_catalog", "apcorr", "data.F158.ee_radii", lambda a: 30 * np.asarray(a), "radius of 90 % of the light"),
    ("source_catalog", "apcorr", "data.F158.ee_fractions", lambda a: 1 + 0 * np.asarray(a), "radius of 90 % of the light"),
    ("source_catalog", "apcorr", "data.F158.ee_fractions", lambda a: 0.4 * np.asarray(a), "last of data.F158.ee_fractions is"),
]


@pytest.mark.parametrize(
    ("name", "reftype", "field", "change", "said"),
    IMPLAUSIBLE,
    ids=[f"{t}-{f}-{n}" for n, (_, t, f, *_) in enumerate(IMPLAUSIBLE)],
)
def test_references_with_impossible_values_are_named(files, tmp_path, name, reftype, field, change, said):
    with AsdfFile(files.folder / f"{reftype}.asdf") as file:
        node = file.tree["roman"]
        for part in field.split("."):
            node = node[part]
        value = node.read() if hasattr(node, "read") else node
    edited(files.folder / f"{reftype}.asdf", tmp_path / "bad.asdf", {field: change(value)})
    line = refusal(*files.run(name, tmp_path, **{reftype: tmp_path / "bad.asdf"}), "bad.asdf")
    assert foreseen(line) and said in line and "plausible" in line and f"sound {reftype} reference" in line
    assert [p.name for p in tmp_path.iterdir()] == ["bad.asdf"]


def test_many_pixels_without_a_polynomial_give_a_warning(files, tmp_path):
    coefficients = arrays_of(files.folder / "linearity.asdf")["coeffs"]
    coefficients[..., ::2] = np.nan
    edited(files.folder / "linearity.asdf", tmp_path / "bad.asdf", {"coeffs": coefficients})
    status, said = files.run("linearity", tmp_path, linearity=tmp_path / "bad.asdf")
    assert status == 0 and "WARNING" in said and "NO_LIN_CORR, not corrected" in said


#: Impossible values of one pixel: the step, the type, the array, the value, and the flags that the pixel gets.
IMPLAUSIBLE_PIXELS = [
    *(("ramp_fitting", "readnoise", "data", value, dq.DO_NOT_USE) for value in (0, -999999, 1e6)),
    *(("ramp_fitting", "gain", "data", value, dq.NO_GAIN_VALUE | dq.DO_NOT_USE) for value in (1e-6, -1, 1e5)),
    *(("dark_current", "dark", "dark_slope", value, dq.DO_NOT_USE) for value in (1e30, -999999)),
    *(("flatfield", "flat", "data", value, dq.NO_FLAT_FIELD) for value in (-1, 1e-6, 1e30)),
    *(
        ("linearity", reftype, "coeffs", value, dq.NO_LIN_CORR)
        for reftype in ("linearity", "inverselinearity")
        for value in (40, -1)
    ),
]


@pytest.mark.parametrize(("name", "reftype", "array", "value", "flag"), IMPLAUSIBLE_PIXELS)
def test_pixels_with_impossible_values_are_flagged(files, tmp_path, name, reftype, array, value, flag):
    """They are flagged as the bad pixels of the reference; no other pixel changes."""
    place = (100, 90)  # of the image; what has the reference border has it four rows and columns further
    values = arrays_of(files.folder / f"{reftype}.asdf")[array]
    border = 0 if reftype == "flat" else 4
    index = (place[0] + border, place[1] + border)
    values[(1, *index) if values.ndim == 3 else index] = value
    bad = edited(files.folder / f"{reftype}.asdf", tmp_path / "bad.asdf", {array: values})
    status, said = files.run(name, tmp_path, **{reftype: bad})
    assert status == 0, said
    product = f"r_{chain.STEPS[name].suffix}.asdf"
    before, after = arrays_of(files.folder / product), arrays_of(tmp_path / product)
    at, flags = (index, "pixeldq") if name == "linearity" else (place, "dq")
    assert changed(tmp_path / product, files.folder / product) == {at}
    assert after[flags][at] & flag == flag and before[flags][at] & flag == 0


#: Values that single bad pixels may have, in a part of the frame: the step, the type, the array, a factor, and the flags there.
WRONG_IN_A_PART = [
    ("ramp_fitting", "readnoise", "data", 60, dq.DO_NOT_USE),
    ("ramp_fitting", "gain", "data", 8, dq.NO_GAIN_VALUE | dq.DO_NOT_USE),
    ("dark_current", "dark", "dark_slope", 1e4, dq.DO_NOT_USE),
    ("flatfield", "flat", "data", 5, dq.NO_FLAT_FIELD),
]


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
@pytest.mark.parametrize(("name", "reftype", "array", "factor", "flag"), WRONG_IN_A_PART)
def test_references_wrong_in_a_part_of_the_frame_are_flagged_there(files, tmp_path, name, reftype, array, factor, flag, share):
    """Too many for hot or otherwise bad pixels: they are flagged as such, and the others don't change."""
    values = arrays_of(files.folder / f"{reftype}.asdf")[array]
    part = np.s_[..., : round(share * values.shape[-1])]
    values[part] *= factor
    bad = edited(files.folder / f"{reftype}.asdf", tmp_path / "bad.asdf", {array: values})
    status, said = files.run(name, tmp_path, **{reftype: bad})
    assert status == 0, said
    product = f"r_{chain.STEPS[name].suffix}.asdf"
    before, after = arrays_of(files.folder / product), arrays_of(tmp_path / product)
    columns = round(share * values.shape[-1]) - (0 if reftype == "flat" else 4)
    flagged, known = (after["dq"] & flag == flag) & (before["dq"] & flag == 0), before["dq"] & flag == 0
    if share < 0.03:
        assert "WARNING" not in said and not flagged.any()
        return
    assert "WARNING" in said and "bad.asdf" in said
    assert flagged[:, :columns][known[:, :columns]].all() and not flagged[:, columns:].any()
    for field, plane in after.items():
        if plane.shape[-2:] == after["dq"].shape:
            np.testing.assert_array_equal(plane[..., columns + 4 :], before[field][..., columns + 4 :], err_msg=field)


@pytest.mark.parametrize("rows", [1, 12, 128])
@pytest.mark.parametrize("reftype", ["linearity", "inverselinearity"])
def test_polynomials_wrong_in_a_band_of_rows_are_not_used_there(files, tmp_path, reftype, rows):
    """However narrow the band is, and wherever it lies: each row is checked."""
    values = arrays_of(files.folder / f"{reftype}.asdf")["coeffs"]
    band = np.s_[101 : 101 + rows]
    values[2:, band] *= 50  # the terms that make the correction
    bad = edited(files.folder / f"{reftype}.asdf", tmp_path / "bad.asdf", {"coeffs": values})
    status, said = files.run("linearity", tmp_path, **{reftype: bad})
    assert status == 0 and "bad.asdf" in said and "flagged NO_LIN_CORR, not corrected" in said
    assert ("WARNING" in said) == (rows > 0.01 * values.shape[1])
    product = f"r_{chain.STEPS['linearity'].suffix}.asdf"
    before, after = arrays_of(files.folder / product), arrays_of(tmp_path / product)
    newly = (after["pixeldq"] & ~before["pixeldq"])[4:-4, 4:-4]
    assert np.isin(newly, [0, dq.NO_LIN_CORR]).all()
    known = (before["pixeldq"][4:-4, 4:-4] & dq.NO_LIN_CORR) == 0
    assert newly[97 : 97 + rows][known[97 : 97 + rows]].all()
    others = np.delete(newly, np.s_[97 : 97 + rows], axis=0)
    assert not others.any()
    for field, plane in after.items():
        if plane.shape[-2:] == values.shape[1:]:
            np.testing.assert_array_equal(
                np.delete(plane, band, axis=-2), np.delete(before[field], band, axis=-2), err_msg=field
            )


#: What a reference says of what it was made for, where it isn't what the exposure (WFI18, F158, WFI_IMAGE) is.
DETECTOR_TYPES = [pair for pair in READ if pair[1] not in ("exposure", "darkdecaysignal")]
ELEMENT_TYPES = [("assign_wcs", "distortion"), ("flatfield", "flat"), ("source_catalog", "epsf")]
OTHERS = [
    *((*pair, {"instrument.detector": "WFI05"}, "meta.instrument.detector is WFI05", "WFI18") for pair in DETECTOR_TYPES),
    *(
        (
            *pair,
            {"instrument.optical_element": "F129", "instrument.p_optical_element": ...},
            "meta.instrument.optical_element is F129",
            "F158",
        )
        for pair in ELEMENT_TYPES
    ),
    ("dark_current", "dark", {"telescope": "JWST"}, "meta.telescope is JWST", "ROMAN"),
    ("flatfield", "flat", {"instrument.name": "CGI"}, "meta.instrument.name is CGI", "WFI"),
]


@pytest.mark.parametrize(
    ("name", "reftype", "entries", "theirs", "ours"), OTHERS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_references_for_other_exposures_are_refused(files, tmp_path, name, reftype, entries, theirs, ours):
    entries = {f"meta.{field}": value for field, value in entries.items()}
    bad = edited(files.folder / f"{reftype}.asdf", tmp_path / "bad.asdf", entries)
    line = refusal(*files.run(name, tmp_path, **{reftype: bad}), "bad.asdf")
    assert foreseen(line) and theirs in line and f"the exposure {ours}" in line and "--allow_mismatch" in line
    assert [p.name for p in tmp_path.iterdir()] == ["bad.asdf"]
    status, said = files.run(name, tmp_path, options=["--allow_mismatch"], **{reftype: bad})
    assert status == 0, said
    (warning,) = [line for line in said.splitlines() if "WARNING" in line and "bad.asdf" in line]
    assert theirs in warning and ours in warning
    if name != "source_catalog":
        product = f"r_{chain.STEPS[name].suffix}.asdf"
        assert changed(tmp_path / product, files.folder / product) == set()
    # CRDS may give one file to several elements, but not to several detectors.
    status, said = files.run(name, tmp_path, options=[f"--chosen_by_crds={reftype}"], **{reftype: bad})
    assert status == ("optical_element" not in theirs), said


#: What contradicts nothing: (type, entries of its metadata, options).
NO_CONTRADICTION = [
    ("flat", {"instrument.detector": "N/A"}, ()),
    ("flat", {"instrument.detector": "wfi18"}, ()),
    ("flat", {"instrument": {}}, ()),
    ("flat", {"instrument.optical_element": "N/A"}, ()),
    ("flat", {"instrument.optical_element": "F129", "instrument.p_optical_element": "F129|F158|"}, ()),
    ("flat", {"instrument.optical_element": "F062|F158", "instrument.p_optical_element": ...}, ()),
    # CRDS's rules may give one file to several elements, and its metadata have room for one.
    ("flat", {"instrument.optical_element": "F129", "instrument.p_optical_element": ...}, ("--chosen_by_crds=dark,flat",)),
    ("darkdecaysignal", {"instrument.detector": "WFI01"}, ()),
    ("dark", {"instrument.optical_element": "F213"}, ()),
]


@pytest.mark.parametrize(("reftype", "entries", "options"), NO_CONTRADICTION)
def test_references_that_do_not_say_for_which_exposures_are_accepted(files, tmp_path, reftype, entries, options):
    name = next(n for n, what in QUICK if what == reftype)
    given = edited(files.folder / f"{reftype}.asdf", tmp_path / "given.asdf", {f"meta.{f}": v for f, v in entries.items()})
    status, said = files.run(name, tmp_path, options=options, **{reftype: given})
    assert status == 0 and "WARNING" not in said, said


@pytest.mark.parametrize(
    ("reftype", "entries", "level", "message"),
    [
        ("dark", {"exposure.type": "WFI_FLAT", "exposure.p_exptype": "WFI_FLAT|"}, "WARNING", "meta.exposure.type is WFI_FLAT"),
        ("readnoise", {"exposure.type": "WFI_FLAT", "exposure.p_exptype": "WFI_FLAT|"}, "WARNING", "of the exposure WFI_IMAGE"),
        ("gain", {"useafter": "2031-05-06T00:00:00.000"}, "WARNING", "meta.useafter is 2031-05-06 00:00:00"),
        ("gain", {"reftype": ...}, "INFO", "has no meta.reftype"),
        ("gain", {}, "INFO", "is a dummy (meta.pedigree)"),
    ],
)
def test_warnings_about_a_reference_change_no_number(files, tmp_path, reftype, entries, level, message):
    name = next(n for n, what in QUICK if what == reftype)
    given = edited(files.folder / f"{reftype}.asdf", tmp_path / "given.asdf", {f"meta.{f}": v for f, v in entries.items()})
    status, said = files.run(name, tmp_path, **{reftype: given})
    assert status == 0, said
    (line,) = [line for line in said.splitlines() if "given.asdf" in line and message in line]
    assert f":: {level} ::" in line
    product = f"r_{chain.STEPS[name].suffix}.asdf"
    assert changed(tmp_path / product, files.folder / product) == set()


# ----------------------------------------------------------------------------------------- what the workflow reads first
def write_association(folder, *products, name="asn.json"):
    (folder / name).write_text(json.dumps({"products": [{"name": n, "members": m} for n, m in products]}))
    return name


@pytest.fixture
def raw(tmp_path):
    """A working folder with the raw file r1."""
    (tmp_path / "work").mkdir()
    write_exposure(tmp_path / "work", "r1")
    return tmp_path / "work"


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_of_an_association(raw, seed):
    """An error, or members that exist; never a file that the association does not name."""
    write_association(raw, ("visit", [{"expname": "r1_uncal.asdf", "exptype": "science"}]))
    content, rng = (raw / "asn.json").read_bytes(), random.Random(seed)
    for _ in range(100):
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        (raw / "asn.json").write_bytes(damaged)
        try:
            members = find_members("asn.json", raw)
            raise_problems([member.problem for member in members if member.problem])
        except RampflowError as error:
            assert "asn.json" in str(error) or "_uncal" in str(error)
        else:
            assert [m.path.resolve() for m in members] == [raw / "r1_uncal.asdf"]
            assert "/" not in members[0].association


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "not a readable JSON file"),
        ('{"products": ' + "[" * 100_000 + "]" * 100_000 + "}", "not a readable JSON file"),
        ('{"products": 1' + "0" * 10_000 + "}", "not a readable JSON file"),
        ('{"products": {"a": 1}}', "no list 'products'"),
        ('{"products": [{"name": 5, "members": []}]}', "'name' and a list 'members'"),
        ('{"products": [{"name": "a", "members": {"b": 1}}]}', "'name' and a list 'members'"),
        ('{"products": [{"name": "a", "members": [{"expname": 5}]}]}', "has no 'expname'"),
        ('{"products": [{"name": "a", "members": [{"expname": ["r1_uncal.asdf"]}]}]}', "has no 'expname'"),
        ('{"products": [{"name": "a", "members": [{"expname": "r1\\u0000_uncal.asdf"}]}]}', "can't be part of a file name"),
        ('{"products": [{"name": "a", "members": [{"expname": "/nowhere/r1_uncal.asdf"}]}]}', "does not exist"),
        ('{"products": [{"name": "a", "members": [{"expname": "../../r1_uncal.asdf"}]}]}', "does not exist"),
        ('{"products": [{"name": "a", "members": [{"expname": "r1_uncal.asdf/r1_uncal.asdf"}]}]}', "does not exist"),
        ('{"products": [{"name": "a", "members": [{"expname": "%s_uncal.asdf"}]}]}' % ("x1" * 4000), "can't be|has|ends"),
        ('{"products": [{"name": "../a", "members": []}]}', "can't be part of a file name"),
        ('{"products": [{"name": "/tmp/a", "members": []}]}', "can't be part of a file name"),
        ('{"products": [{"name": "a\\nb", "members": []}]}', "can't be part of a file name"),
        ('{"products": [{"name": "{stem}", "members": []}]}', "can't be part of a file name"),
        ('{"products": [{"name": "<results>", "members": []}]}', "can't be part of a file name"),
    ],
    ids=lambda text: text[:60],
)
def test_invalid_associations_are_named(raw, content, said):
    (raw / "asn.json").write_text(content)
    with time_limit(20), pytest.raises(RampflowError, match=said) as error:
        members = find_members("asn.json", raw)
        raise_problems([member.problem for member in members if member.problem])
    assert "asn.json" in str(error.value) or "_uncal" in str(error.value)


def test_members_may_be_in_other_folders_and_products_may_not(raw, tmp_path):
    """Members with absolute paths and `..` are read where they are; their products have the bare names."""
    (tmp_path / "other").mkdir()
    for n, expname in enumerate((str(raw / "r1_uncal.asdf"), "../work/r1_uncal.asdf", "../other/../work/r1_uncal.asdf")):
        name = write_association(tmp_path / "other", ("visit", [{"expname": expname}]), name=f"{n}.json")
        (member,) = find_members(str(tmp_path / "other" / name), raw)
        assert member.path.resolve() == raw / "r1_uncal.asdf" and member.association == "visit"


def test_all_bad_inputs_are_listed_in_one_error(raw):
    write_association(raw, ("a", [{"expname": "none1_uncal.asdf"}, {"expname": "none2_uncal.asdf"}, {}]))
    (raw / "broken.json").write_text("{")
    with pytest.raises(RampflowError) as error:
        find_members(["nowhere", "asn.json", "broken.json", "r1_uncal.asdf", "r2_cal.asdf"], raw)
    lines = str(error.value).splitlines()
    assert len(lines) == 6
    for line, said in zip(lines, ("nowhere", "no 'expname'", "none1", "none2", "broken.json", "r2_cal.asdf"), strict=True):
        assert said in line
    with pytest.raises(RampflowError) as error:
        find_members([f"nowhere{n}" for n in range(1000)], raw)
    assert len(str(error.value).splitlines()) == MAX_PROBLEMS + 1


@pytest.mark.parametrize("products", [[("v", ["r1"]), ("v", ["r2"])], [("v", ["r1"])]])
def test_two_associations_with_the_same_name_are_refused(raw, products):
    shutil.copy(raw / "r1_uncal.asdf", raw / "r2_uncal.asdf")
    members = [(name, [{"expname": f"{stem}_uncal.asdf"} for stem in stems]) for name, stems in products]
    write_association(raw, *members)
    write_association(raw, ("v", [{"expname": "r2_uncal.asdf"}]), name="other.json")
    with pytest.raises(RampflowError, match="the name 'v'"):
        find_members(["asn.json", "other.json"], raw)
    write_association(raw, ("r2", [{"expname": "r1_uncal.asdf"}]), name="like_a_stem.json")
    for inputs in (["like_a_stem.json", "r2_uncal.asdf"], ["r2_uncal.asdf", "like_a_stem.json"]):
        with pytest.raises(RampflowError, match="the name 'r2'"):
            find_members(inputs, raw)


@pytest.mark.parametrize(
    "stem",
    [
        ".hidden",
        "..",
        "a{b}",
        "{stem}",
        "a<b>",
        "a;touch PWNED",
        "a?b",
        "a#b",
        "a%20b",
        "a\nb",
        "\x7f",
        b"\xff".decode(errors="surrogateescape"),
        "xy" * 30,
    ],
)
def test_names_with_invalid_characters_are_refused(raw, stem):
    (raw / f"{stem}_uncal.asdf").symlink_to(raw / "r1_uncal.asdf")
    with pytest.raises(RampflowError, match="choose") as error:
        find_members(f"{stem}_uncal.asdf", raw)
    str(error.value).encode()
    with pytest.raises(RampflowError, match="choose"):
        write_association(raw, (stem, [{"expname": "r1_uncal.asdf"}]))
        find_members("asn.json", raw)


def test_too_long_names_are_refused(raw):
    stem = "".join(map(str, range(200)))[:LONGEST]
    (raw / f"{stem}_uncal.asdf").symlink_to(raw / "r1_uncal.asdf")
    (raw / f"{stem}x_uncal.asdf").symlink_to(raw / "r1_uncal.asdf")
    assert find_members(f"{stem}_uncal.asdf", raw)[0].association == stem
    with pytest.raises(RampflowError, match="has 201 bytes; choose one of at most 200"):
        find_members(f"{stem}x_uncal.asdf", raw)


def test_hidden_files_of_a_folder_are_ignored_and_broken_ones_are_named(raw):
    """Folders and hidden files (macOS makes them) are ignored; broken links and pipes are errors."""
    (raw / "folder_uncal.asdf").mkdir()
    (raw / "._r1_uncal.asdf").write_text("")
    assert [m.path.name for m in find_members(".", raw)] == ["r1_uncal.asdf"]
    (raw / "link_uncal.asdf").symlink_to("nowhere")
    os.mkfifo(raw / "pipe_uncal.asdf")
    (raw / "empty_uncal.asdf").write_text("")
    config = validated({"input": "."}, declarations.steps())
    with time_limit(20), pytest.raises(RampflowError) as error:
        build_inventory(config, raw, raw / ".rampflow/inventory.json", declarations.steps())
    *lines, remedy = str(error.value).splitlines()
    assert [line.partition(": ")[0].rpartition("/")[2] for line in lines] == [
        f"{n}_uncal.asdf" for n in ("empty", "link", "pipe")
    ]
    assert remedy == "to go on without: --config 'exclude=[empty,link,pipe]'"


@pytest.fixture
def alone(tmp_path):
    """Input of the inventory of one exposure with all references overridden, so that CRDS is not queried."""
    (tmp_path / "mine.asdf").write_text("")
    override = {t: str(tmp_path / "mine.asdf") for t in reference_types(declarations.steps().values())}
    references = {"override": override, "crds_context": None}
    config = validated({"input": "r1_uncal.asdf", "references": references}, declarations.steps())
    write_exposure(tmp_path, "r1")
    return tmp_path, config


def test_a_damaged_inventory_is_built_again(alone):
    """The inventory is a cache: a damaged one is built again."""
    folder, config = alone
    store, rng = folder / ".rampflow/inventory.json", random.Random(2)
    expected = build_inventory(config, folder, store, declarations.steps())
    kept = {path: path.read_bytes() for path in store.parent.iterdir()}
    for n in range(200):
        for path, content in kept.items():
            damaged = bytearray(content)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged[: rng.randrange(len(damaged))] if n % 4 == 0 else damaged)
        assert inventory.read(inventory.name_exposures_file(config, store)) is None
        assert build_inventory(config, folder, store, declarations.steps()) == expected


def test_paths_with_special_characters_of_snakemake_are_refused(alone):
    folder, config = alone
    (folder / "a {b}").mkdir()
    shutil.copy(folder / "r1_uncal.asdf", folder / "a {b}")
    (folder / "{flat}.asdf").write_text("")
    config["references"]["override"]["flat"] = str(folder / "{flat}.asdf")
    with pytest.raises(RampflowError, match="a path can't have") as error:
        build_inventory(config | {"input": "a {b}"}, folder, folder / ".rampflow/inventory.json", declarations.steps())
    assert len(str(error.value).splitlines()) == 2


# --------------------------------------------------------------------------------------------------------- the CRDS cache
def shorten(path, size=100):
    path.write_bytes(path.read_bytes()[:size])


CACHES = {
    "a mapping is missing": (lambda f: f("*_flat_0001.rmap").unlink(), "_flat_"),
    "a mapping is cut": (lambda f: shorten(f("*_flat_0001.rmap")), "_flat_"),
    "a mapping is empty": (lambda f: shorten(f("*_gain_0001.rmap"), 0), "_gain_"),
    "the instrument's is missing": (lambda f: f("*_0001.imap").unlink(), "roman_wfi_"),
    "the instrument's is cut": (lambda f: shorten(f("*_0001.imap")), "roman_wfi_"),
    "the context is cut": (lambda f: shorten(f("*1.pmap")), "roman_0001.pmap"),
    "the context is missing": (lambda f: f("*1.pmap").unlink(), "roman_0001.pmap"),
    "a mapping names a file that is not there": (lambda f: f("*_flat_wfi01*.asdf").unlink(), "_flat_wfi01"),
}


@pytest.mark.parametrize("fault", CACHES)
def test_an_incomplete_crds_cache_is_reported_in_one_line(raw, cache, tmp_path, fault):
    """Users see no traceback of CRDS."""
    damage, named = CACHES[fault]
    half = tmp_path / "cache"
    shutil.copytree(cache, half, ignore=shutil.ignore_patterns("*.asdf", "*.fits"))
    (half / "references/roman/wfi").mkdir(parents=True, exist_ok=True)
    for path in (cache / "references/roman/wfi").iterdir():
        os.link(path, half / "references/roman/wfi" / path.name)
    damage(lambda pattern: next(half.rglob(pattern)))
    done = ask(raw, half, {"input": "r1_uncal.asdf", "references": {"crds_context": "roman_0001.pmap"}})
    said = done.stderr.strip()
    assert done.returncode == 1 and said.startswith("refused: ") and len(said.splitlines()) == 1, said
    assert named in said and ("CRDS_PATH" in said or "references.override" in said)


@pytest.mark.parametrize("context", ["roman_0099.pmap", "nonsense", "../../x.pmap", "$(touch PWNED).pmap", "jwst_0001.pmap"])
def test_an_invalid_context_is_reported_in_one_line(raw, cache, context):
    done = ask(raw, cache, {"input": "r1_uncal.asdf"}, CRDS_CONTEXT=context)
    said = done.stderr.strip()
    assert done.returncode == 1 and said.startswith("refused: ") and len(said.splitlines()) == 1, said
    assert "CRDS" in said
    assert not list(raw.rglob("PWNED"))


# ---------------------------------------------------------------------------------------------------------- the workflow
ODD = "a ü星 'q' \"d\" $(touch PWNED) `touch PWNED` *[a]\\ &&touch PWNED|touch PWNED :: ~ $HOME !x -x"


def below(folder):
    """All files below a folder that are not Snakemake's own."""
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and ".snakemake" not in p.parts}


@pytest.mark.workflow
def test_shell_characters_in_names_are_never_executed(cache, tmp_path):
    """Names of files, folders and associations, and header texts, with special characters of shells, globs and formats."""
    inputs, run = tmp_path / f"in {ODD}", tmp_path / "run"
    inputs.mkdir()
    run.mkdir()
    header = {
        "observation.observation_id": "$(touch PWNED)",
        "filename": "../../../evil_uncal.asdf",
        "visit.type": "`touch PWNED`",
    }
    write_raw(inputs / f"{ODD}_uncal.asdf", ramp(rows=SIZE, columns=SIZE), {"instrument.detector": "WFI01", **header})
    stars = "\n".join(f"{270 + n / 1000},{66 + n / 2000}" for n in range(30))
    (inputs / "st ars&.csv").write_text(f"ra,dec\n{stars}\n")
    write_association(inputs, (f"visit {ODD}", [{"expname": f"../in {ODD}/{ODD}_uncal.asdf"}]), name=f"asn {ODD}.json")
    config = {"input": str(inputs / f"asn {ODD}.json"), "results": "re sults&&touch PWNED"}
    (run / "c f;.json").write_text(json.dumps(config | {"astrometric_catalog": str(inputs / "st ars&.csv")}))
    given = below(tmp_path)
    workflow = Workflow(run, cache)
    done = workflow.snakemake("--configfile", str(run / "c f;.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    results = run / "re sults&&touch PWNED"
    for product in ("cal.asdf", "wcs.asdf", "qa.json", "cat.parquet", "segm.asdf"):
        assert (results / f"{ODD}_{product}").is_file()
    assert (results / f"visit {ODD}_tweakreg.json").is_file()
    homes = {"re sults&&touch PWNED", "logs", "benchmarks", ".rampflow"}
    assert {p.parts[:2] for p in below(tmp_path) - given} <= {("run", home) for home in homes}
    assert not [p for p in (*tmp_path.rglob("PWNED"), ROOT / "PWNED") if p.exists()]


def test_the_file_name_in_the_header_does_not_change_the_output_path(files, tmp_path):
    bad = edited(files.before["source_catalog"], tmp_path / "bad.asdf", {"meta.filename": "../../../evil_flat.asdf"})
    (tmp_path / "out").mkdir()
    status, said = files.run("source_catalog", tmp_path / "out", exposure=bad)
    assert status == 0, said
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"bad.asdf", "r_cat.parquet", "r_segm.asdf"}


@pytest.mark.workflow
def test_all_bad_inputs_are_listed_before_any_job(cache, tmp_path):
    (tmp_path / "raw").mkdir()
    write_exposure(tmp_path / "raw", "good")
    content = (tmp_path / "raw/good_uncal.asdf").read_bytes()
    (tmp_path / "raw/short_uncal.asdf").write_bytes(content[:5000])
    (tmp_path / "raw/empty_uncal.asdf").write_bytes(b"")
    (tmp_path / "raw/link_uncal.asdf").symlink_to("nowhere")
    write_exposure(tmp_path / "raw", "nobody", detector="WFI99")
    write_image(tmp_path / "raw/image_uncal.asdf", DATA[0])
    done = Workflow(tmp_path, cache).snakemake("--config", "input=raw")
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in said
    for name, reason in (
        ("short", "truncated"),
        ("empty", "not an ASDF"),
        ("link", "can't be"),
        ("nobody", "WFI99"),
        ("image", "'wfi_image"),
    ):
        (line,) = [line for line in said.splitlines() if f"{name}_uncal.asdf: " in line]
        assert reason in line
    assert "good_uncal.asdf: " not in said and not (tmp_path / "logs").exists()


@pytest.mark.parametrize("results", ["", "-r", "--help", "a{stem}", "{", "<results>", "a;b", "a\nb"], ids=repr)
def test_an_invalid_results_folder_is_refused(results):
    from rampflow.workflow import configuration

    with pytest.raises(RampflowError, match="results is"):
        configuration.validated({"results": results}, declarations.steps())


# ----------------------------------------------------------------------------------------------- catalogs and alignment
@pytest.mark.parametrize("seed", range(3))
def test_damaged_source_catalogs_are_reported_or_finite(files, tmp_path, seed):
    """A source catalog on its way to the alignment: a line, or sources at finite places."""
    from rampflow.alignment.source_positions import read_sources

    content, rng = (files.folder / "r_cat.parquet").read_bytes(), random.Random(seed)
    bad = tmp_path / "bad_cat.parquet"
    for n in range(50):
        damaged = bytearray(content)
        if n % 5:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        else:
            damaged = damaged[: rng.randrange(len(damaged))]
        bad.write_bytes(damaged)
        try:
            with time_limit(20):
                sources = read_sources(bad)
        except RampflowError as error:
            assert "bad_cat.parquet" in str(error)
        else:
            assert np.isfinite(sources.x).all() and np.isfinite(sources.y).all()


# -------------------------------------------------------------------------------------------------------------- the table
def test_the_documented_table_of_faults_matches_these_tests():
    """Every test of this file has a row in docs/reliability.md, and every row has its tests and a number."""
    section = (ROOT / "docs" / "reliability.md").read_text().partition("## Bad input")[2]
    named = re.findall(r"`(test_\w+)`", section)
    here = [name for name in globals() if name.startswith("test_")]
    without = {"test_the_documented_table_of_faults_matches_these_tests", "test_an_unknown_optical_element_has_no_photometry"}
    assert sorted(named) == sorted(set(here) - without)
    tried = {test: int(number) for number, test in re.findall(r"\| (\d+) \|[^\n]*?\| `(test_\w+)`", section)}
    assert len(tried) == len(re.findall(r"^\|.*`test_\w+`", section, re.MULTILINE))
    assert tried["test_flipped_bits_are_reported_or_change_one_value"] == FLIPS * len(QUICK)
    assert tried["test_missing_metadata_and_wrong_types_are_named"] == sum(len(values) for *_, values in FIELDS)
    assert tried["test_an_incomplete_crds_cache_is_reported_in_one_line"] == len(CACHES)
    assert tried["test_references_with_impossible_values_are_named"] == len(IMPLAUSIBLE)
    assert tried["test_references_wrong_in_a_part_of_the_frame_are_flagged_there"] == 3 * len(WRONG_IN_A_PART)
    assert tried["test_pixels_with_impossible_values_are_flagged"] == len(IMPLAUSIBLE_PIXELS)
    assert tried["test_references_for_other_exposures_are_refused"] == len(OTHERS)
    assert tried["test_references_that_do_not_say_for_which_exposures_are_accepted"] == len(NO_CONTRADICTION)
