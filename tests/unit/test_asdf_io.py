"""ASDF files are read and written as asdf does, trees make a round trip, damage is named."""

import copy
import errno
import hashlib
import os
import re
import struct
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import asdf
import numpy as np
import pytest
import yaml
from astropy import units
from astropy.time import Time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_files import image, meta_of, opened, ramp, write_image, write_ramp, write_raw

from rampflow.errors import RampflowError
from rampflow.files import asdf_writer
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.asdf_writer import CompressedArray, EmptyArray, create_asdf
from rampflow.files.atomic import replacing
from rampflow.files.in_memory import InMemory, MemoryArray
from rampflow.files.stored_array import StoredArray
from rampflow.files.yaml_tree import TaggedDict, TaggedList, TaggedStr, cut_entry, tagged
from rampflow.folders import SCRIPTS

NAMES = ("u1", "<u2", ">u2", "<u4", ">u4", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "?", "<c16", ">c16", "<i2", ">i8")
DTYPES = [np.dtype(name) for name in NAMES]
SHAPE = (3, 11, 40)  # more values than are written in the tree


def values(dtype, shape=SHAPE):
    rng = np.random.default_rng(1)
    if dtype.kind == "c":
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    if dtype.kind == "f":
        return rng.normal(0, 1000, shape).astype(dtype)
    return rng.integers(0, 2 if dtype.kind == "b" else 250, shape).astype(dtype)


def write(path, tree, **kwargs):
    with create_asdf(path, tree, **kwargs):
        pass
    return path


def check_reads(stored, expected):
    """Compare all ways to read an array with the array itself."""
    assert stored.plane_shape == expected.shape[-2:]
    assert stored.shape == expected.shape and stored.ndim == expected.ndim and stored.nbytes == expected.nbytes
    for found, wanted in (
        (stored.read(), expected),
        (stored.read_rows(2, 7), expected[..., 2:7, :]),
        (stored.read_rows(-3, 4), expected[..., :4, :]),
        (stored.read_rows(5, 999), expected[..., 5:, :]),
        *(((stored.read_plane(1), expected[1]),) if expected.ndim == 3 else ()),
        *(((stored.read_rows(2, 7, 2), expected[:2, 2:7]),) if expected.ndim == 3 else ()),
    ):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == expected.dtype.newbyteorder("=") and found.dtype.isnative
        assert found.flags.writeable
    if expected.ndim == 3:  # planes of the file's own type, and of the one that a step works in
        for dtype in (found.dtype, np.result_type(found.dtype, np.float32)):
            out = np.zeros(expected.shape[1:], dtype)
            assert stored.read_plane(1, out=out) is out
            np.testing.assert_array_equal(out, expected[1])


# ---------------------------------------------------------------------------------------------------------- with asdf
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_asdf_reads_what_is_written(tmp_path, dtype):
    array = values(dtype)
    write(tmp_path / "a.asdf", {"a": array, "small": array[0, 0]})
    with asdf.open(tmp_path / "a.asdf", memmap=False) as file:
        for found, wanted in ((file["a"], array), (file["small"], array[0, 0])):
            np.testing.assert_array_equal(found, wanted)
            assert np.asarray(found).dtype.newbyteorder("=") == dtype.newbyteorder("=")


def test_a_file_ends_with_the_index_of_its_blocks(tmp_path):
    write(tmp_path / "a.asdf", {"a": values(np.dtype("f4")), "b": values(np.dtype("u1"))})
    content = (tmp_path / "a.asdf").read_bytes()
    blocks, index = content.rsplit(b"#ASDF BLOCK INDEX\n", 1)
    offsets = yaml.safe_load(index)
    assert len(offsets) == 2 and all(blocks[offset : offset + 4] == b"\xd3BLK" for offset in offsets)


@pytest.mark.parametrize("length", [5, 1000])  # a few values are written in the tree
def test_an_array_of_unknown_length_is_appended(tmp_path, length):
    frame, indices = values(np.dtype("f4")), np.arange(3 * length, dtype=np.int16).reshape(length, 3)
    tree = {"roman": {"frame": EmptyArray(frame.shape, "f4")}}
    with create_asdf(tmp_path / "a.asdf", tree) as writer:
        writer.write(tree["roman"]["frame"], frame)
        writer.append(indices)
        tree["roman"]["indices"] = indices
    with asdf.open(tmp_path / "a.asdf", memmap=False) as file:
        np.testing.assert_array_equal(file["roman"]["frame"], frame)
        np.testing.assert_array_equal(np.reshape(file["roman"]["indices"], (-1, 3)), indices)
    with AsdfFile(tmp_path / "a.asdf") as file:
        np.testing.assert_array_equal(file.tree["roman"]["frame"].read(), frame)
        assert file.tree["roman"]["indices"].shape == (length, 3)
        assert file.tree["roman"]["indices"].dtype == np.int16
    content = (tmp_path / "a.asdf").read_bytes()
    blocks, index = content.rsplit(b"#ASDF BLOCK INDEX\n", 1)
    offsets = yaml.safe_load(index)
    assert len(offsets) == 1 + (length == 1000) and all(blocks[offset : offset + 4] == b"\xd3BLK" for offset in offsets)


@pytest.mark.parametrize("shape", [(3, 5), (1100, 1030), (0, 4)])  # the second takes two frames
def test_a_compressed_array_is_read_by_asdf_and_by_rampflow(tmp_path, shape):
    labels = np.zeros(shape, np.uint32)
    labels[:2, 1:3] = 7
    write(tmp_path / "a.asdf", {"labels": CompressedArray(labels), "other": values(np.dtype("f4"))})
    with asdf.open(tmp_path / "a.asdf", memmap=False, validate_checksums=True) as file:
        np.testing.assert_array_equal(file["labels"], labels)
        np.testing.assert_array_equal(file["other"], values(np.dtype("f4")))
        assert file["labels"].dtype == np.uint32
    with AsdfFile(tmp_path / "a.asdf") as file:
        np.testing.assert_array_equal(file.tree["labels"].read(), labels)
    assert (tmp_path / "a.asdf").stat().st_size < 200_000


def test_an_array_in_another_file_is_named(tmp_path):
    asdf.AsdfFile({"a": np.arange(1000)}).write_to(tmp_path / "a.asdf", all_array_storage="external")
    with pytest.raises(RampflowError, match=r"a\.asdf: has an array in another file, 'a0000\.asdf'; write it again with all"):
        AsdfFile(tmp_path / "a.asdf")


@pytest.mark.parametrize("compression", [None, "lz4", "zlib", "bzp2"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_asdf_writes_is_read(tmp_path, dtype, compression):
    array = values(dtype)
    asdf.AsdfFile({"a": array, "b": 7}).write_to(tmp_path / "a.asdf", all_array_compression=compression)
    with AsdfFile(tmp_path / "a.asdf") as file:
        assert isinstance(file.tree["a"], StoredArray) and file.tree["b"] == 7
        check_reads(file.tree["a"], array)
        # Carried over to another file, too.
        write(tmp_path / "b.asdf", {"a": file.tree["a"]})
    with asdf.open(tmp_path / "b.asdf", memmap=False) as file:
        np.testing.assert_array_equal(file["a"], array)


@pytest.mark.parametrize("compression", [None, "lz4", "zlib"])
def test_arrays_that_were_read_can_be_changed_without_effect_on_the_file(tmp_path, compression):
    # Steps correct what they read in place; the next reader must find the file's values, not those.
    array = values(np.dtype("<f4"))
    asdf.AsdfFile({"a": array}).write_to(tmp_path / "a.asdf", all_array_compression=compression)
    with AsdfFile(tmp_path / "a.asdf") as file:
        stored = file.tree["a"]
        for read in (stored.read, lambda: stored.read_rows(0, 11), lambda: stored.read_plane(1)):
            read()[:] = 0
        np.testing.assert_array_equal(stored.read(), array)


# asdf wrote an array and its views to one block until version 6, and writes each to a block of its own since.
@pytest.mark.parametrize(("compression", "shared"), [(None, True), ("lz4", True), (None, False)])
@pytest.mark.parametrize("view", ["offset", "strided", "transposed", "reversed rows"])
def test_views_of_a_block_are_read(tmp_path, view, compression, shared):
    base = values(np.dtype("<f4"), (3, 20, 40))
    array = {
        "offset": base[1:],
        "strided": base[:, ::2, ::3],
        "transposed": base.transpose(0, 2, 1),
        "reversed rows": base[:, ::-1],
    }[view]
    with asdf.config_context() as config:
        config.default_array_save_base = shared
        asdf.AsdfFile({"whole": base, "view": array}).write_to(tmp_path / "a.asdf", all_array_compression=compression)
    with AsdfFile(tmp_path / "a.asdf") as file:
        assert (file.tree["view"]._block == file.tree["whole"]._block) == shared
        np.testing.assert_array_equal(file.tree["whole"].read(), base)
        stored = file.tree["view"]
        np.testing.assert_array_equal(stored.read(), array)
        np.testing.assert_array_equal(stored.read_rows(2, 9), array[:, 2:9])
        np.testing.assert_array_equal(stored.read_plane(1), array[1])
        write(tmp_path / "b.asdf", {"view": stored, "whole": file.tree["whole"]})
    with AsdfFile(tmp_path / "b.asdf") as file:
        np.testing.assert_array_equal(file.tree["view"].read(), array)
        np.testing.assert_array_equal(file.tree["whole"].read(), base)


def test_rows_of_a_compressed_array_are_read_without_the_whole(tmp_path):
    array = np.random.default_rng(1).normal(0, 1, (3, 512, 500)).astype("<f4")
    frames = {"compression_block_size": 1 << 16}  # bytes: no row begins with one
    asdf.AsdfFile({"a": array}).write_to(tmp_path / "a.asdf", all_array_compression="lz4", compression_kwargs=frames)
    with AsdfFile(tmp_path / "a.asdf") as file:
        stored, starts = file.tree["a"], np.arange(0, 512, 16)
        stored.read_rows(0, 1)  # what is imported and checked once
        tracemalloc.start()
        for start in starts:
            np.testing.assert_array_equal(stored.read_rows(start, start + 16), array[:, start : start + 16])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < array.nbytes / 2
        with ThreadPoolExecutor(4) as pool:
            for start, rows in zip(starts, pool.map(lambda start: stored.read_rows(start, start + 16), starts), strict=True):
                np.testing.assert_array_equal(rows, array[:, start : start + 16])
        np.testing.assert_array_equal(stored.read(), array)
        np.testing.assert_array_equal(stored.read_plane(2), array[2])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_arrays_without_values_keep_their_shape(tmp_path, shape):
    write(tmp_path / "a.asdf", {"a": np.empty(shape, np.int16)})
    asdf.AsdfFile({"a": np.empty(shape, np.int16)}).write_to(tmp_path / "b.asdf", all_array_storage="inline")
    for name in ("a.asdf", "b.asdf"):
        with AsdfFile(tmp_path / name) as file:
            array = file.tree["a"]
            assert (array.shape, array.dtype) == (shape, np.int16)


@pytest.mark.parametrize("dtype", ["<f4", "<u2", "<i8", "?", "<c16"])
def test_arrays_in_the_tree_are_read(tmp_path, dtype):
    array = values(np.dtype(dtype), (4, 5))
    asdf.AsdfFile({"a": array}).write_to(tmp_path / "a.asdf", all_array_storage="inline")
    with AsdfFile(tmp_path / "a.asdf") as file:
        np.testing.assert_array_equal(file.tree["a"], array)
        assert file.tree["a"].dtype == array.dtype
        write(tmp_path / "b.asdf", file.tree)
    with asdf.open(tmp_path / "b.asdf") as file:
        np.testing.assert_array_equal(file["a"], array)


def test_an_array_in_the_tree_is_read_as_one_in_a_block():
    array = values(np.dtype("<u2"), (3, 11, 4))
    check_reads(MemoryArray(array), array)


def test_not_a_number_in_the_tree(tmp_path):
    array = np.array([1, np.nan, np.inf, -np.inf])
    write(tmp_path / "a.asdf", {"a": array, "n": float("nan"), "i": float("-inf")})
    with asdf.open(tmp_path / "a.asdf") as file:
        np.testing.assert_array_equal(file["a"], array)
        assert np.isnan(file["n"]) and file["i"] == -np.inf
    with AsdfFile(tmp_path / "a.asdf") as file:
        np.testing.assert_array_equal(file.tree["a"], array)


def test_tagged_nodes_survive_unchanged(tmp_path):
    from gwcs import WCS
    from gwcs.coordinate_frames import Frame2D
    from gwcs.examples import gwcs_2d_shift_scale

    wcs, time, quantity = gwcs_2d_shift_scale(), Time("2027-01-02T03:04:05.678"), np.arange(300.0) * units.Unit("DN / s")
    before = {"wcs": wcs, "time": time, "quantity": quantity, "unit": units.Unit("MJy / sr"), "frame": Frame2D(name="f")}
    asdf.AsdfFile(before).write_to(tmp_path / "a.asdf")
    with AsdfFile(tmp_path / "a.asdf") as file:
        assert file.tree["quantity"].tag.startswith("tag:stsci.edu:asdf/unit/quantity")
        write(tmp_path / "b.asdf", file.tree, standard=file.standard)
    with asdf.open(tmp_path / "b.asdf", memmap=False) as file:
        assert isinstance(file["wcs"], WCS)
        np.testing.assert_allclose(file["wcs"](3, 4), wcs(3, 4))
        assert file["time"].isot == time.isot
        assert (file["quantity"] == quantity).all() and file["unit"] == before["unit"]
        assert file["frame"].name == "f"


def test_written_files_validate_as_data_models(tmp_path):
    write_raw(tmp_path / "raw.asdf", ramp())
    write_ramp(tmp_path / "ramp.asdf", ramp())
    write_image(tmp_path / "image.asdf", image())
    for name in ("raw", "ramp", "image"):
        with opened(tmp_path / f"{name}.asdf") as model:
            model.save(tmp_path / f"{name}_again.asdf")
            expected = np.asarray(model.data).copy()
        with AsdfFile(tmp_path / f"{name}_again.asdf") as file:
            np.testing.assert_array_equal(file.tree["roman"]["data"].read(), expected)


# ---------------------------------------------------------------------------------------------------------- round trips
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)
tricky = st.sampled_from(["", "...", "---", "true", "null", "1e3", "~", "- a", "a: b", "#x", "'", '"', "%TAG", "0x1F", "1:30"])
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts | tricky
tags = st.sampled_from(
    ["tag:stsci.edu:asdf/core/software-1.0.0", "asdf://stsci.edu/datamodels/roman/tags/ramp-2.1.0", "!local"]
)
trees = st.recursive(
    scalars | st.builds(tagged, texts, tags),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | tricky, inner, max_size=4)
        | st.builds(tagged, st.lists(inner, max_size=3), tags)
        | st.builds(tagged, st.dictionaries(texts, inner, max_size=3), tags)
    ),
    max_leaves=20,
)


def same_tree(one, two):
    assert type(one) is type(two) and getattr(one, "tag", None) == getattr(two, "tag", None)
    if isinstance(one, dict):
        assert list(one) == list(two)
        for key in one:
            same_tree(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            same_tree(a, b)
    else:
        assert one == two


in_one_folder = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_one_folder
@given(st.dictionaries(texts, trees, max_size=5))
@pytest.mark.slow
def test_trees_make_a_round_trip(tmp_path, tree):
    with AsdfFile(write(tmp_path / "a.asdf", tree)) as file:
        assert file.tree.tag == "tag:stsci.edu:asdf/core/asdf-1.1.0"
        same_tree(dict(file.tree), tree)


shapes = st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 40))


@in_one_folder
@given(st.lists(st.tuples(st.sampled_from(DTYPES), shapes), min_size=1, max_size=4), st.data())
@pytest.mark.slow
def test_arrays_make_a_round_trip_whole_by_rows_and_by_planes(tmp_path, kinds, data):
    arrays = {f"a{i}": values(dtype, shape) for i, (dtype, shape) in enumerate(kinds)}
    with AsdfFile(write(tmp_path / "a.asdf", dict(arrays))) as file:
        for name, array in arrays.items():
            stored = file.tree[name]
            if isinstance(stored, np.ndarray):
                np.testing.assert_array_equal(stored, array)
                assert stored.dtype == array.dtype.newbyteorder("=")
                continue
            start = data.draw(st.integers(0, array.shape[1]))
            stop = data.draw(st.integers(start, array.shape[1]))
            np.testing.assert_array_equal(stored.read(), array)
            np.testing.assert_array_equal(stored.read_rows(start, stop), array[:, start:stop])
            plane = data.draw(st.integers(0, array.shape[0] - 1))
            np.testing.assert_array_equal(stored.read_plane(plane), array[plane])


@in_one_folder
@given(st.sampled_from(["<f4", ">f4", "<f2", "u1", "<u4"]), shapes, st.data())
@pytest.mark.slow
def test_arrays_can_be_written_in_pieces(tmp_path, dtype, shape, data):
    array = values(np.dtype(dtype), shape)
    cuts = sorted(data.draw(st.sets(st.integers(0, shape[1]))) | {0, shape[1]})
    tree = {k: EmptyArray(shape, dtype) for k in ("rows", "planes", "whole", "nothing")}
    with create_asdf(tmp_path / "a.asdf", dict(tree)) as writer:
        for start, stop in data.draw(st.permutations(list(zip(cuts, cuts[1:], strict=False)))):
            writer.write_rows(tree["rows"], start, array[:, start:stop])
        for plane in range(shape[0]):
            writer.write_plane(tree["planes"], plane, array[plane])
        writer.write(tree["whole"], array)
    with AsdfFile(tmp_path / "a.asdf") as file:
        for name in ("rows", "planes", "whole"):
            np.testing.assert_array_equal(file.tree[name].read(), array)
        assert not file.tree["nothing"].read().any()


def test_a_two_dimensional_array_has_rows(tmp_path):
    array = values(np.dtype("<f4"), (30, 40))
    empty = EmptyArray(array.shape, array.dtype)
    with create_asdf(tmp_path / "a.asdf", {"a": empty}) as writer:
        writer.write_rows(empty, 10, array[10:])
        writer.write_rows(empty, 0, array[:10])
    with AsdfFile(tmp_path / "a.asdf") as file:
        check_reads(file.tree["a"], array)


def test_values_of_another_type_or_shape_are_refused(tmp_path):
    empty, array = EmptyArray((2, 100, 4), "f4"), np.zeros((2, 3, 4))
    with create_asdf(tmp_path / "a.asdf", {"a": empty}) as writer:
        for misfit in (
            lambda: writer.write_rows(empty, 98, array),
            lambda: writer.write_rows(empty, 0, array[:1]),
            lambda: writer.write_rows(empty, 0, array[..., :3]),
            lambda: writer.write_plane(empty, 0, array),
            lambda: writer.write(empty, array),
        ):
            with pytest.raises(ValueError, match="fit"):
                misfit()
        with pytest.raises(ValueError, match="not in the tree"):
            writer.write(EmptyArray((2, 3, 4), "f4"), array)


def test_shared_nodes_stay_shared(tmp_path):
    node, array = {"x": [1, 2]}, np.arange(1000.0)
    write(tmp_path / "a.asdf", {"one": node, "two": node, "first": array, "second": array})
    with AsdfFile(tmp_path / "a.asdf") as file:
        assert file.tree["one"] == node and file.tree["one"] is file.tree["two"]
        assert file.tree["first"]._block == file.tree["second"]._block  # one block
        write(tmp_path / "b.asdf", file.tree)
    with asdf.open(tmp_path / "b.asdf") as file:
        assert file["one"] is file["two"]
        np.testing.assert_array_equal(file["second"], array)


def test_anchors_of_asdf_are_followed(tmp_path):
    shared = {"x": 1}
    asdf.AsdfFile({"one": shared, "two": [shared, shared]}).write_to(tmp_path / "a.asdf")
    assert b"&id" in (tmp_path / "a.asdf").read_bytes()
    with AsdfFile(tmp_path / "a.asdf") as file:
        assert file.tree["one"] is file.tree["two"][0] is file.tree["two"][1]


def test_tagged_nodes_keep_type_and_tag():
    nodes = [tagged({"a": 1}, "!t"), tagged([1], "!t"), tagged("1", "!t")]
    assert [type(n) for n in nodes] == [TaggedDict, TaggedList, TaggedStr]
    assert [copy.deepcopy(n).tag for n in nodes] == ["!t"] * 3


def test_the_version_of_the_standard_is_kept(tmp_path):
    write(tmp_path / "a.asdf", {}, standard="1.5.0")
    with AsdfFile(tmp_path / "a.asdf") as file:
        assert file.standard == "1.5.0"
    with asdf.open(tmp_path / "a.asdf") as file:
        assert str(file.version) == "1.5.0"


# ------------------------------------------------------------------------------------------------- the tree grows later
def test_the_tree_may_grow_after_arrays_were_written(tmp_path):
    array, tree = np.arange(1000.0), {"logs": []}
    with create_asdf(tmp_path / "a.asdf", {**tree, "a": array, "meta": (meta := {})}) as writer:
        writer.tree["logs"] = [f"line {i}: {'x' * 80}" for i in range(1000)]
        meta["status"] = "COMPLETE"
    with asdf.open(tmp_path / "a.asdf") as file:
        np.testing.assert_array_equal(file["a"], array)
        assert len(file["logs"]) == 1000 and file["meta"]["status"] == "COMPLETE"


def test_a_tree_that_outgrows_its_space_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="grew"):
        with create_asdf(tmp_path / "a.asdf", {"a": np.arange(1000.0)}) as writer:
            writer.tree["logs"] = "x" * 200_000
    assert not any(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------ whole or nothing
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, RampflowError, OSError])
@pytest.mark.parametrize("existing", [False, True])
def test_an_error_while_writing_leaves_no_file(tmp_path, error, existing):
    path = tmp_path / "a.asdf"
    if existing:
        path.write_text("before")
    empty = EmptyArray((2, 300, 3), "f4")
    with pytest.raises(RampflowError if error is OSError else error):
        with create_asdf(path, {"a": empty}) as writer:
            writer.write_rows(empty, 0, np.zeros((2, 5, 3)))
            assert not path.exists() or existing
            raise error
    assert [p.name for p in tmp_path.iterdir()] == (["a.asdf"] if existing else [])
    assert not existing or path.read_text() == "before"


def test_a_folder_that_can_t_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RampflowError, match=r"file/a\.asdf: can't be written"):
        write(tmp_path / "file" / "a.asdf", {})


def test_a_folder_is_made(tmp_path):
    assert write(tmp_path / "one/two/a.asdf", {}).is_file()


# --------------------------------------------------------------------------------------------------------------- damage
@pytest.fixture
def good(tmp_path):
    """The bytes of a good file of asdf with two blocks, and where its blocks begin."""
    asdf.AsdfFile({"a": np.arange(1000.0), "b": np.arange(2000.0)}).write_to(tmp_path / "good.asdf")
    content = (tmp_path / "good.asdf").read_bytes()
    return content, [m.start() for m in re.finditer(b"\xd3BLK", content)]


def read_all(path, content):
    path.write_bytes(content)
    with AsdfFile(path) as file:
        return {k: v.read() for k, v in file.tree.items() if hasattr(v, "read")}


@pytest.mark.parametrize(
    "cut", ["in the comments", "in the tree", "in a header", "at a header", "in a block", "in the last block"]
)
def test_a_truncated_file_is_named(tmp_path, good, cut):
    content, (first, second) = good
    length = {
        "in the comments": 20,
        "in the tree": first // 2,
        "in a header": second + 20,
        "at a header": second,
        "in a block": first + 1000,
        "in the last block": second + 6 + 48 + 2000 * 8 - 1,
    }[cut]
    with pytest.raises(RampflowError, match=r"cut\.asdf: .*truncated"):
        read_all(tmp_path / "cut.asdf", content[:length])


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_file_cut_at_any_length_is_an_error(tmp_path, length):
    write(tmp_path / "a.asdf", {"a": np.arange(300.0), "b": np.arange(400, dtype=np.uint8)})
    content = (tmp_path / "a.asdf").read_bytes()
    for end in [length, *range(4 + length, len(content), 4099)]:
        with pytest.raises(RampflowError, match=r"cut\.asdf: "):
            read_all(tmp_path / "cut.asdf", content[:end])
    assert len(read_all(tmp_path / "cut.asdf", content)) == 2


@pytest.mark.parametrize("content", [b"", b"SIMPLE  =                    T", b"{}", b"#ASDFx", b"\0" * 5000])
def test_a_file_that_is_not_asdf_is_named(tmp_path, content):
    with pytest.raises(RampflowError, match=r"x\.asdf: is not an ASDF file"):
        read_all(tmp_path / "x.asdf", content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RampflowError, match=r"none\.asdf: can't be opened \(No such file"):
        AsdfFile(tmp_path / "none.asdf")
    with pytest.raises(RampflowError, match="Is a directory|is not an ASDF file|can't be"):
        AsdfFile(tmp_path)


HEAD = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n--- "


@pytest.mark.parametrize(
    "tree",
    [
        b"{a: [1, 2",
        b"a: *nowhere",
        b"[1, 2]",
        b"just text",
        b"",
        b"a: \xff\xfe",
        b"a: !core/ndarray-1.1.0 {source: 0, datatype: float64, byteorder: little, shape: [3]}",
        b"a: !core/ndarray-1.1.0 {source: 0, datatype: float99, byteorder: little, shape: [3]}",
        b"a: !core/ndarray-1.1.0 {datatype: float64, shape: [3]}",
        b"a: !core/ndarray-1.1.0 {data: [1, x], datatype: float64, shape: [2]}",
    ],
)
def test_a_damaged_tree_is_named(tmp_path, tree):
    with pytest.raises(RampflowError, match=r"x\.asdf: "):
        read_all(tmp_path / "x.asdf", HEAD + tree + b"\n...\n")


@pytest.mark.parametrize("node", [b"shape: [999999]", b"shape: [-3]", b"datatype: [a]", b"source: 2", b"offset: 8000"])
def test_an_array_larger_than_its_block_is_named(tmp_path, good, node):
    content, (first, _) = good
    fields = {b"source": b"source: 0", b"datatype": b"datatype: float64", b"shape": b"shape: [1000]", b"offset": b"offset: 0"}
    fields[node.split(b":")[0]] = node
    tree = b"\na: !core/ndarray-1.1.0 {byteorder: little, " + b", ".join(fields.values()) + b"}\n...\n"
    with pytest.raises(RampflowError, match=r"x\.asdf: "):
        read_all(tmp_path / "x.asdf", HEAD + tree + content[first:])


@pytest.mark.parametrize("compression", ["lz4", "zlib", "bzp2"])
def test_a_damaged_compressed_block_is_named(tmp_path, compression):
    asdf.AsdfFile({"a": np.arange(3000.0)}).write_to(tmp_path / "a.asdf", all_array_compression=compression)
    content = bytearray((tmp_path / "a.asdf").read_bytes())
    start = content.index(b"\xd3BLK") + 54
    content[start + 4 : start + 40] = b"\xff" * 36
    with pytest.raises(RampflowError, match=r"x\.asdf: block 0 doesn't match its checksum"):
        read_all(tmp_path / "x.asdf", bytes(content))
    content[start - 16 : start] = bytes(16)  # the standard allows a block without
    with pytest.raises(RampflowError, match=r"x\.asdf: a compressed block is damaged"):
        read_all(tmp_path / "x.asdf", bytes(content))


def test_an_unknown_compression_is_named(tmp_path, good):
    content, (first, _) = good
    content = content[: first + 10] + b"blsc" + content[first + 14 :]
    with pytest.raises(RampflowError, match=r"x\.asdf: a block is compressed with b'blsc'"):
        read_all(tmp_path / "x.asdf", content)


def test_a_damaged_block_header_is_named(tmp_path, good):
    content, (first, _) = good
    content = content[: first + 4] + struct.pack(">H", 3) + content[first + 6 :]
    with pytest.raises(RampflowError, match=r"x\.asdf: the header of block 0 is damaged"):
        read_all(tmp_path / "x.asdf", content)


def test_reading_from_a_closed_file_is_an_error(tmp_path, good):
    with AsdfFile(tmp_path / "good.asdf") as file:
        array = file.tree["a"]
    with pytest.raises(RampflowError, match=r"good\.asdf: can't be read"):
        array.read()


# ------------------------------------------------------------------------------------------------------------ the bytes
def test_the_file_is_laid_out_as_the_standard_says(tmp_path):
    array = np.arange(1000, dtype=">u2")
    content = write(tmp_path / "a.asdf", {"a": array}).read_bytes()
    head = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n--- !core/asdf-1.1.0\n"
    assert content.startswith(head)
    end = content.index(b"\n...\n") + 5
    assert content[end : end + 4] == b"\xd3BLK"
    size, flags, compression, allocated, used, data = struct.unpack(">HI4sQQQ", content[end + 4 : end + 38])
    assert (size, flags, compression) == (48, 0, b"\0" * 4)
    assert allocated == used == data == 2000
    assert content[end + 54 :] == array.tobytes() + b"#ASDF BLOCK INDEX\n%YAML 1.1\n---\n- " + str(end).encode() + b"\n...\n"


@pytest.mark.parametrize("tree", ["of a file", "new"])
def test_the_root_has_the_tag_of_the_standard(tmp_path, good, tree):
    if tree == "new":
        write(tmp_path / "b.asdf", {"a": 1})
    else:
        # What the steps do: the tree of their input, with something changed.
        with AsdfFile(tmp_path / "good.asdf") as file:
            write(tmp_path / "b.asdf", dict(file.tree, c=3))
    assert b"\n--- !core/asdf-1.1.0\n" in (tmp_path / "b.asdf").read_bytes()
    with asdf.open(tmp_path / "b.asdf", memmap=False, lazy_load=False) as file:
        file.write_to(tmp_path / "c.asdf")  # asdf refuses to write a tree without


def test_metadata_is_read_as_it_was_given(tmp_path):
    path = write_image(tmp_path / "a.asdf", image(), {"exposure.frame_time": 1.5, "observation.program": 7})
    assert meta_of(path)["exposure"]["frame_time"] == 1.5 and meta_of(path)["observation"]["program"] == 7


# ---------------------------------------------------------------------------------------------------- an entry of a large tree
ENTRIES = {
    "a": {"text": "long enough to be folded " * 20 + "\n    b: not an entry\n", "list": ["x", {"b": 1}]},
    "b": {"empty": {}, "array": np.arange(12.0).reshape(3, 4)},
    "c": {"wcs": tagged({"name": "w", "parts": [tagged("u", "tag:x/unit-1")]}, "tag:x/wcs-1"), "none": None},
    "d: e": {"odd": "name"},
}


@pytest.mark.parametrize("written_by", ["rampflow", "asdf"])
def test_an_entry_is_read_without_the_others(tmp_path, written_by):
    entries = ENTRIES if written_by == "rampflow" else {name: ENTRIES[name] for name in ("a", "b", "d: e")}
    tree = {"before": ["entries:", "    b:"], "top": {"logs": ["    b: 3"] * 3, "entries": entries, "after": [1]}, "last": 2}
    path = tmp_path / "a.asdf"
    if written_by == "rampflow":
        write(path, copy.deepcopy(tree))
    else:
        asdf.AsdfFile(copy.deepcopy(tree)).write_to(path, all_array_storage="inline")
    with AsdfFile(path) as whole:
        expected = whole.tree["top"]
    for name in entries:
        with AsdfFile(path, parse=False) as file:
            found = file.entry("top", "entries", name)
            assert (file.tree is None) == (":" not in name)  # a name in quotes takes the whole tree
            assert str(found) == str(expected["entries"][name]) and getattr(found, "tag", "") == ""
            np.testing.assert_array_equal(found.get("array", 0), expected["entries"][name].get("array", 0))
            if "wcs" in found:
                assert found["wcs"].tag == "tag:x/wcs-1" and found["wcs"]["parts"][0].tag == "tag:x/unit-1"
    with AsdfFile(path, parse=False) as file:
        assert file.entry("top", "logs") == tree["top"]["logs"] and file.entry("top", "after") == [1]
        assert file.tree is None
        assert file.entry("top", "entries", "e") is None is file.entry("top", "b") and file.entry("last") == 2
        assert file.entry("last", "deeper") is None


def test_an_entry_ends_where_less_is_indented():
    text = b"#ASDF\n%YAML 1.1\n---\none:\n\n  a: {x: 1,\n\n    y: 2}\n  b:\n  - 1\n  c: 3\ntwo:\n  d: 4\n...\n"
    head = b"#ASDF\n%YAML 1.1\n---\n"
    assert cut_entry(text, ("one", "a")) == head + b"  a: {x: 1,\n\n    y: 2}\n...\n"
    assert cut_entry(text, ("one", "b")) == head + b"  b:\n  - 1\n...\n"
    assert cut_entry(text, ("two", "d")) == head + b"  d: 4\n...\n"
    assert cut_entry(text, ("one", "d")) is None is cut_entry(text, ("two", "a"))


def test_an_entry_with_an_alias_of_another_is_read(tmp_path):
    shared = {"x": [1, {"y": 2}]}
    write(tmp_path / "a.asdf", {"one": {"s": shared}, "two": {"s": shared}})
    with AsdfFile(tmp_path / "a.asdf", parse=False) as file:
        assert file.entry("two") == {"s": shared}


def test_an_entry_of_a_damaged_tree_is_refused(tmp_path):
    path = write(tmp_path / "a.asdf", {"one": {"a": 1}, "two": {"b": 1}})
    path.write_bytes(path.read_bytes().replace(b"b: 1", b"{: 1"))
    with AsdfFile(path, parse=False) as file, pytest.raises(RampflowError, match=r"a\.asdf: its YAML tree is damaged"):
        file.entry("two")


# ----------------------------------------------------------------------------------------------------------- in memory
def test_an_exposure_is_written_in_memory_as_to_a_file(tmp_path):
    old, given, inline = values(np.dtype("<f4"), (3, 40, 30)), values(np.dtype("<u2"), (40, 30)), np.arange(5)
    write(tmp_path / "before.asdf", {"stored": values(np.dtype("<f8"), (3, 40, 30))})
    results = []
    with AsdfFile(tmp_path / "before.asdf") as before:
        for create in (create_asdf, (destination := InMemory()).create):
            kept = old.copy()
            tree = {
                "new": EmptyArray((3, 40, 30), np.uint8),
                "replaced": EmptyArray(kept.shape, kept.dtype, replaces=kept),
                "given": given,
                "inline": inline,
                "stored": before.tree["stored"],
            }
            with create(tmp_path / "a.asdf", tree) as writer:
                writer.write_rows(tree["new"], 10, np.ones((3, 5, 30), np.uint8))
                writer.write_plane(tree["replaced"], 1, np.full((40, 30), 7.0))
                for plane in (0, 2):
                    writer.write_plane(tree["replaced"], plane, old[plane])
            results.append(kept)
    with AsdfFile(tmp_path / "a.asdf") as file:
        for name, node in file.tree.items():
            expected = node.read() if isinstance(node, StoredArray) else node
            held = destination.file.tree[name]
            assert held.dtype == expected.dtype
            np.testing.assert_array_equal(held, expected)
    assert destination.file.tree["given"] is given, "handed on, not copied"
    assert destination.file.tree["replaced"] is results[1] and (results[1][1] == 7).all(), "written in place"
    np.testing.assert_array_equal(results[0], old)


def test_what_does_not_fit_an_array_in_memory_is_refused(tmp_path):
    array = EmptyArray((2, 8, 4), np.float32)
    with InMemory().create(tmp_path / "a.asdf", {"a": array}) as writer:
        with pytest.raises(ValueError, match="rows of shape"):
            writer.write_rows(array, 6, np.zeros((2, 3, 4)))
        with pytest.raises(ValueError, match="a plane of shape"):
            writer.write_plane(array, 0, np.zeros((4, 4)))
        with pytest.raises(ValueError, match="values of shape"):
            writer.write(array, np.zeros((8, 4)))
        with pytest.raises(ValueError, match="not in the tree"):
            writer.write(EmptyArray((1,), np.float32), np.zeros(1))


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, ": make room there, then start the same command again"), (errno.EIO, "")]
)
def test_a_disk_that_is_full_is_named_with_the_final_file_and_a_remedy(tmp_path, number, remedy):
    """A product may be written in the temporary folder of another writer; libraries have texts of their own."""
    with pytest.raises(RampflowError) as full, replacing(tmp_path / "a_cal.asdf") as partial, replacing(partial):
        raise OSError(number, os.strerror(number))
    assert str(full.value) == f"{tmp_path / 'a_cal.asdf'}: can't be written ({os.strerror(number)}{remedy})"
    assert not list(tmp_path.iterdir())


def test_a_file_without_room_is_refused_before_its_arrays_are_computed(tmp_path):
    """A limit of the size of files stands for the end of the disk; a process can't lift its own again."""
    program = f"""
import resource
import numpy as np
from rampflow.files.asdf_writer import EmptyArray, create_asdf

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with create_asdf({str(tmp_path / "a.asdf")!r}, {{"a": EmptyArray((9, 256, 256), np.float32)}}):
    print("computing")
"""
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert run.returncode and not run.stdout
    assert "a.asdf: can't be written (File too large)" in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_gives_no_room_beforehand_is_written_to(tmp_path, monkeypatch, number):
    def refuse(descriptor, offset, length):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(asdf_writer.os, "posix_fallocate", refuse)
    array = EmptyArray((3, 64, 64), np.float32)
    with create_asdf(tmp_path / "a.asdf", {"a": array}) as writer:
        writer.write_plane(array, 1, np.ones((64, 64), np.float32))
        writer.write_plane(array, 2, np.full((64, 64), 2, np.float32))
    with asdf.open(tmp_path / "a.asdf") as file:
        assert np.array(file["a"]).sum(axis=(1, 2)).tolist() == [0, 64 * 64, 2 * 64 * 64]


def test_rows_that_are_not_written_are_zero(tmp_path):
    array = EmptyArray((3, 64, 64), np.float32)
    with create_asdf(tmp_path / "a.asdf", {"a": array}) as writer:
        writer.write_rows(array, 10, np.ones((3, 2, 64), np.float32))
    with asdf.open(tmp_path / "a.asdf") as file:
        values = np.array(file["a"])
    assert (values[:, 10:12] == 1).all() and values.sum() == 3 * 2 * 64


def test_a_plane_in_memory_is_changed_where_it_lies(tmp_path):
    old = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    replacing_array, new_array = EmptyArray((2, 3, 4), np.float32, replaces=old), EmptyArray((2, 3, 4), np.float32)
    tree = {"update": replacing_array, "new": new_array}
    destination = InMemory()
    with destination.create(tmp_path / "a.asdf", tree) as writer:
        assert writer.plane_in_place(new_array, 1) is None
        plane = writer.plane_in_place(replacing_array, 1)
        np.testing.assert_array_equal(plane, np.arange(12, 24).reshape(3, 4))
        plane += 100
        writer.write_plane(replacing_array, 1, plane)
        writer.write_plane(replacing_array, 0, plane)  # a plane of the same memory at another place is copied
    assert destination.file.tree["update"] is old
    np.testing.assert_array_equal(old, [np.arange(112, 124).reshape(3, 4)] * 2)
    with create_asdf(tmp_path / "b.asdf", {"a": new_array}) as writer:
        assert writer.plane_in_place(new_array, 0) is None


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_all_blocks_and_the_whole_file_are_checked_in_one_reading(tmp_path, compression):
    """Blocks begin and end inside the parts that are read at a time."""
    rng = np.random.default_rng(4)
    arrays = {name: rng.integers(0, 60_000, size, np.uint16) for name, size in (("a", 700_001), ("b", 40), ("c", 1_300_000))}
    asdf.AsdfFile(arrays).write_to(tmp_path / "a.asdf", all_array_compression=compression)
    content = (tmp_path / "a.asdf").read_bytes()
    with AsdfFile(tmp_path / "a.asdf") as file:
        assert file.verify_whole() == hashlib.sha256(content).hexdigest()
        assert len(file.intact) == 3
        starts = sorted(file.intact)
    for number, start in enumerate(starts):
        damaged = bytearray(content)
        damaged[start + 20] ^= 1
        (tmp_path / "b.asdf").write_bytes(damaged)
        with AsdfFile(tmp_path / "b.asdf") as file:
            with pytest.raises(RampflowError, match=rf"b\.asdf: block {number} doesn't match its checksum \(damaged\)"):
                file.verify_whole()
            assert start not in file.intact
