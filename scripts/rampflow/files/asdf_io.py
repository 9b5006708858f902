"""Read and write ASDF files by tree and by rows, without building the whole model.

``asdf.open`` imports every installed extension and takes more than two seconds before the first pixel is read; a chain of
thirteen steps would spend half a minute on that alone. A step needs the metadata (a YAML tree) and a few arrays (plain
bytes behind a fixed header), so this module reads just these. Tags that it does not know (a WCS, a time, a data model)
travel through untouched. Products are checked against the schemas of their models where they leave the pipeline
(`rampflow.files.models`).

The layout of the file is that of the ASDF standard (https://www.asdf-format.org/projects/asdf-standard), low-level file
layout: comment lines, a YAML document, then blocks of a 6 + 48 byte header and their bytes, and an index of
the blocks.
"""

from __future__ import annotations

import bisect
import bz2
import contextlib
import functools
import glob
import hashlib
import io
import math
import os
import re
import shutil
import stat
import struct
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from rampflow.errors import RampflowError
from rampflow.files import tags

_BLOCK_MAGIC = b"\xd3BLK"
# flags, compression, allocated size, used size, data size, MD5 of the bytes (zeros: not given, as the standard allows)
_BLOCK_HEADER = struct.Struct(">I4sQQQ16s")
_PREAMBLE = re.compile(rb"#ASDF \d+\.\d+\.\d+\r?\n")
_TREE_END = re.compile(rb"\r?\n\.\.\.[ ]*\r?\n")
# What no tree of a data model comes near: a file that holds more is damaged, or made to fill the memory.
_LARGEST_TREE = 1 << 26  # bytes
_LARGEST_EXPANSION = 10_000_000  # nodes, when each alias is written out
_DEEPEST = 500  # levels
_NESTING = (b"[", b"{", b"- ", b"? ")  # what may open a level
# Bytes that one stored byte can stand for.
_LARGEST_RATIO = {b"zlib": 1032, b"lz4\0": 255}
# Tree bytes kept free for what a step adds to the metadata (logs, status) after its arrays have found their places.
_HEADROOM = 1 << 17
# Bytes written at a time: with ext4 in Linux 6.18, those of 1 MB or more take four times as long for the same file.
_WRITE_SIZE = 1 << 18
_INLINE_SIZE = 256
# What tells the content of a block from that of another, besides its checksum: so many samples of so many bytes.
_SAMPLES, _SAMPLE = 8, 4096


# --------------------------------------------------------------------------------------------------------------- trees
class TaggedDict(dict):
    """A YAML mapping that keeps its tag."""

    tag: str


class TaggedList(list):
    """A YAML sequence that keeps its tag."""

    tag: str


class TaggedStr(str):
    """A YAML scalar that keeps its tag; its text is not interpreted."""

    tag: str


def tagged(value: dict | list | str, tag: str) -> TaggedDict | TaggedList | TaggedStr:
    """Give `value` a YAML tag."""
    kind = TaggedDict if isinstance(value, dict) else TaggedList if isinstance(value, list) else TaggedStr
    result = kind(value)
    result.tag = tag
    return result


# asdf reads the manifests of its extensions with PyYAML's loader in Python, 0.8 s whenever a step builds a whole model. The one
# in C gives the same in a tenth of that; it takes its place for all of the program, before asdf is imported.
_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
yaml.safe_load = functools.partial(yaml.load, Loader=_SafeLoader)


class _Loader(_SafeLoader):
    """A safe loader that keeps unknown tags instead of refusing them."""


def _refuse_merges(loader, node):
    if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):  # no ASDF writer uses them, and they multiply
        raise yaml.YAMLError("it has a merge key, <<, which ASDF files don't use")


_Loader.flatten_mapping = _refuse_merges


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
    """The inverse of `_Loader`."""


def _construct_tagged(loader, tag_suffix, node):
    if isinstance(node, yaml.MappingNode):
        result = TaggedDict()
        result.tag = node.tag
        yield result
        result.update(loader.construct_mapping(node))
    elif isinstance(node, yaml.SequenceNode):
        result = TaggedList()
        result.tag = node.tag
        yield result
        result.extend(loader.construct_sequence(node))
    else:
        result = TaggedStr(node.value)
        result.tag = node.tag
        yield result


_Loader.add_multi_constructor("", _construct_tagged)
_Dumper.add_representer(TaggedDict, lambda d, v: d.represent_mapping(v.tag, dict(v)))
_Dumper.add_representer(TaggedList, lambda d, v: d.represent_sequence(v.tag, list(v)))
_Dumper.add_representer(TaggedStr, lambda d, v: d.represent_scalar(v.tag, str(v)))


def _parse(text: bytes):
    """The tree of a YAML document; any error when it is damaged, or made to fill memory or stack."""
    # libyaml composes by recursion, and tens of thousands of levels end the process: so many are counted first.
    if sum(text.count(opening) for opening in _NESTING) > 10 * _DEEPEST:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
    tree = yaml.load(text, Loader=_Loader)
    if _expansion(tree, {}) > _LARGEST_EXPANSION:
        raise ValueError("its aliases multiply beyond measure")
    return tree


def _expansion(node, known: dict) -> int:
    """Number of nodes of a tree when each alias is written out."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in known:
        known[id(node)] = None
        known[id(node)] = 1 + sum(_expansion(n, known) for n in (node.values() if isinstance(node, dict) else node))
    if known[id(node)] is None:
        raise ValueError("a node contains itself")
    return known[id(node)]


def _map_tree(node, function, seen=None):
    """Replace nodes from the leaves up, keeping tags and shared nodes."""
    seen = {} if seen is None else seen
    if isinstance(node, dict | list):
        if id(node) in seen:
            return seen[id(node)]
        result = type(node)()
        if hasattr(node, "tag"):
            result.tag = node.tag
        seen[id(node)] = result
        if isinstance(node, dict):
            result.update((key, _map_tree(value, function, seen)) for key, value in node.items())
        else:
            result.extend(_map_tree(value, function, seen) for value in node)
        replaced = function(result)
        seen[id(node)] = replaced
        return replaced
    return function(node)


# -------------------------------------------------------------------------------------------------------------- arrays
_DATATYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_DATATYPES |= {"float16", "float32", "float64", "complex64", "complex128"}


def _numpy_dtype(datatype: str, byteorder: str) -> np.dtype:
    if datatype == "bool8":
        return np.dtype(bool)
    if datatype not in _DATATYPES:
        raise ValueError(f"its datatype is {datatype!r}")
    return np.dtype(datatype).newbyteorder({"little": "<", "big": ">"}[byteorder])


def _asdf_datatype(dtype: np.dtype) -> tuple[str, str]:
    if dtype.kind == "b":
        return "bool8", "little"
    big = dtype.byteorder == ">" or (dtype.byteorder == "=" and not np.little_endian)
    return dtype.newbyteorder("=").name, "big" if big else "little"


NO_CHECKSUM = b"\0" * 16
UNCOMPRESSED = b"\0" * 4
LZ4 = b"lz4\0"
_LZ4_FRAME = 1 << 22  # bytes that are compressed at a time, as by asdf


class _Block(NamedTuple):
    start: int  # of its bytes in the file
    used: int  # bytes in the file
    compression: bytes
    size: int  # bytes when uncompressed
    checksum: bytes


class StoredArray:
    """An array that lies in a file, read when and as far as it is asked for.

    Attributes
    ----------
    shape : tuple of int
    dtype : `numpy.dtype`
    nbytes : int
        Bytes when uncompressed.
    """

    def __init__(self, file: AsdfFile, node: dict, dtype: np.dtype, block: _Block):
        self._file = file
        self.shape = tuple(int(n) for n in node["shape"])
        self.dtype = dtype
        self.nbytes = math.prod(self.shape) * dtype.itemsize
        self._block = block
        self._offset, self._stored, self._compression, self._size, _ = block
        self._start = int(node.get("offset", 0))
        self._strides = None if node.get("strides") is None else tuple(int(n) for n in node["strides"])
        steps = [] if self._strides is None else [(n - 1) * step for n, step in zip(self.shape, self._strides, strict=True)]
        first = self._start + sum(min(step, 0) for step in steps)
        last = self._start + (sum(max(step, 0) for step in steps) + dtype.itemsize if steps else self.nbytes)
        if min(self.shape, default=0) < 0 or first < 0 or max(last, self.nbytes) > self._size or len(self.shape) > 32:
            raise ValueError(f"its block has {self._size} bytes")
        self._decompressed, self._frames, self._lock = None, None, threading.Lock()

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def _plain(self) -> bool:
        return self._compression == UNCOMPRESSED and self._strides is None

    @property
    def _in_order(self) -> bool:
        # Whether any part of it can be had without the rest.
        return self._compression in (UNCOMPRESSED, LZ4) and self._strides is None

    def read(self) -> np.ndarray:
        """Read the whole array into memory, in native byte order."""
        if not self._in_order:
            return self._whole().astype(self.dtype.newbyteorder("="))
        result = np.empty(self.shape, self.dtype)
        self._read_into(result.reshape(-1).view(np.uint8), 0)
        return result if self.dtype.isnative else result.astype(self.dtype.newbyteorder("="))

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Read rows `start` to `stop` of every plane.

        Rows are the last axis but one, so a ramp of shape (resultant, row, column) gives (resultant, stop - start, column).
        """
        *planes, rows, columns = self.shape
        start, stop = max(start, 0), min(stop, rows)
        if not self._in_order:
            return np.array(self._whole()[..., start:stop, :], self.dtype.newbyteorder("="), order="C")
        n_planes = math.prod(planes)
        result = np.empty((n_planes, stop - start, columns), self.dtype)
        row = columns * self.dtype.itemsize
        for plane in range(n_planes):
            self._read_into(result[plane].reshape(-1).view(np.uint8), (plane * rows + start) * row)
        result = result.reshape(*planes, stop - start, columns)
        return result if self.dtype.isnative else result.astype(self.dtype.newbyteorder("="))

    def read_plane(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read one plane (one resultant) of a 3-D array, into `out` (contiguous) if it is given."""
        result = np.empty(self.shape[1:], self.dtype) if out is None else out
        if self._in_order and result.dtype == self.dtype:
            self._read_into(result.reshape(-1).view(np.uint8), index * result.nbytes)
        else:
            result[...] = self.read_plane(index) if self._in_order else self._whole()[index]
        return result if result.dtype.isnative else result.astype(result.dtype.newbyteorder("="))

    def _read_into(self, buffer: np.ndarray, position: int) -> None:
        # Bytes of the array from `position` on.
        if self._plain:
            self._file.read_into(buffer, self._offset + self._start + position)
            return
        with self._lock:
            if self._frames is None:
                self._file.verify_block(self._block)
                # Blocks of rows of all planes come one after the other: each plane goes on in a frame that it has begun.
                self._frames = _Lz4Frames(self._file, self._block, kept=2 * math.prod(self.shape[:-2]))
        self._frames.read_into(buffer, self._start + position)

    def _whole(self) -> np.ndarray:
        # What can't be read by rows is kept whole, once decompressed by whichever thread comes first.
        with self._lock:
            if self._decompressed is None:
                if self._compression != UNCOMPRESSED:
                    self._file.verify_block(self._block)
                raw = _decompress(self._file, self._block)
                self._decompressed = np.ndarray(self.shape, self.dtype, raw, self._start, self._strides)
        return self._decompressed

    def copy_to(self, descriptor: int, position: int) -> None:
        """Copy the array's bytes into another file, in the kernel where it can."""
        if not self._in_order:
            _write_all(descriptor, np.ascontiguousarray(self._whole()), position)
            return
        done = 0
        while left := self.nbytes - done:
            copied = 0
            if self._plain:
                with contextlib.suppress(OSError):
                    source = self._offset + self._start + done
                    copied = os.copy_file_range(self._file.descriptor, descriptor, left, source, position + done)
            if not copied:  # compressed, or across file systems that can't: through memory
                chunk = np.empty(min(left, 1 << 24), np.uint8)
                self._read_into(chunk, done)
                _write_all(descriptor, chunk, position + done)
                copied = chunk.nbytes
            done += copied


def _decompress(file: AsdfFile, block: _Block) -> np.ndarray:
    """The bytes of a block, uncompressed."""
    size = block.size
    decompress = {
        UNCOMPRESSED: lambda stored: stored,
        b"zlib": lambda stored: zlib.decompressobj().decompress(stored, size),
        b"bzp2": lambda stored: bz2.BZ2Decompressor().decompress(stored.tobytes(), size),  # it takes bytes alone
    }
    if block.compression == LZ4:
        result = np.empty(size, np.uint8)
        _Lz4Frames(file, block, kept=0).read_into(result, 0)
        return result
    if block.compression not in decompress:
        raise RampflowError(f"{file.path}: a block is compressed with {block.compression!r}, which can't be read; use lz4")
    stored = np.empty(block.used, np.uint8)
    file.read_into(stored, block.start)
    with _damage_named(file):
        if size > block.used * _LARGEST_RATIO.get(block.compression, math.inf):
            raise ValueError(f"{size} bytes can't come from {block.used}")
        raw = decompress[block.compression](stored)
        if len(raw) < size:
            raise ValueError(f"{len(raw)} bytes of {size}")
        return np.frombuffer(raw, np.uint8)


@contextlib.contextmanager
def _damage_named(file: AsdfFile):
    try:
        yield
    except RampflowError:
        raise
    except Exception as error:  # each format has its own
        raise RampflowError(f"{file.path}: a compressed block is damaged ({_one_line(error)}); get the file again") from None


class _Lz4Frames:
    """The uncompressed bytes of an lz4 block, from any place on.

    Such a block is a series of frames: the length of what follows (big-endian), then an lz4 block that begins with its own
    length (little-endian). Frames that were read in part are kept for the next part, `kept` of them.
    """

    def __init__(self, file: AsdfFile, block: _Block, kept: int):
        self._file, self._kept, self._lock = file, kept, threading.Lock()
        self._recent: dict[int, bytes] = {}
        self._starts, self._places = [0], []  # uncompressed; of the stored bytes in the file
        header, position, end = np.empty(8, np.uint8), block.start, block.start + block.used
        with _damage_named(file):
            while position < end:
                file.read_into(header[: end - position], position)
                (length,), (size,) = struct.unpack(">I", header[:4]), struct.unpack("<I", header[4:])
                position += 4
                if not 0 < size <= min(block.size - self._starts[-1], length * _LARGEST_RATIO[LZ4]):
                    raise ValueError("a frame has another length than its block")
                if length > end - position:
                    raise ValueError("its last frame is cut")
                self._places.append((position, length))
                self._starts.append(self._starts[-1] + size)
                position += length
            if self._starts[-1] != block.size:
                raise ValueError(f"{self._starts[-1]} bytes of {block.size}")

    def read_into(self, buffer: np.ndarray, start: int) -> None:
        """Fill `buffer` (bytes) from the uncompressed byte `start` on."""
        stop, position = start + len(buffer), start
        number = bisect.bisect_right(self._starts, start) - 1
        while position < stop:
            first, last = self._starts[number], self._starts[number + 1]
            content = self._content(number, to_keep=first < start or last > stop)
            end = min(last, stop)
            buffer[position - start : end - start] = np.frombuffer(content, np.uint8)[position - first : end - first]
            position, number = end, number + 1

    def _content(self, number: int, *, to_keep: bool) -> bytes:
        import lz4.block

        with self._lock:
            content = self._recent.pop(number, None)
            if content is None:
                position, length = self._places[number]
                stored = np.empty(length, np.uint8)
                self._file.read_into(stored, position)
                with _damage_named(self._file):
                    content = lz4.block.decompress(stored)
            if to_keep and self._kept:
                self._recent[number] = content  # the last of them is the newest
                if len(self._recent) > self._kept:
                    del self._recent[next(iter(self._recent))]
        return content


class EmptyArray:
    """The place of an array that will be written by rows or planes."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class CompressedArray:
    """An array in memory that is written compressed (lz4): for those that are nearly all zero, as a map of sources is."""

    def __init__(self, values: np.ndarray):
        import lz4.block

        self.shape, self.dtype, self.nbytes = values.shape, values.dtype, values.nbytes
        raw = memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
        frames = (lz4.block.compress(raw[start : start + _LZ4_FRAME]) for start in range(0, len(raw), _LZ4_FRAME))
        self.stored = b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)


# --------------------------------------------------------------------------------------------------------------- files
class AsdfFile:
    """An ASDF file open for reading.

    Parameters
    ----------
    path : path-like
    parse : bool
        False leaves `tree` None, for what needs no more than `content` or `text`.

    Attributes
    ----------
    path : `pathlib.Path`
    tree : dict
        The YAML tree: tagged nodes keep their tag, and arrays are `StoredArray` (in a block) or `numpy.ndarray` (inline).
    text : bytes
        The tree as it is written in the file.
    standard : str
        The version of the ASDF standard that the file says it follows.

    Raises
    ------
    RampflowError
        The file is not ASDF, is truncated, or its tree can't be parsed.
    """

    def __init__(self, path, *, parse: bool = True):
        self.path = Path(path)
        try:
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to doesn't block
        except OSError as error:
            raise RampflowError(f"{self.path}: can't be opened ({error.strerror})") from None
        try:
            status = os.fstat(self.descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise RampflowError(f"{self.path}: can't be opened (it is not a file)")
            self._size = status.st_size
            header = self._read_header()
            self.standard = _standard(header)
            if self.standard not in tags.STANDARDS:
                raise RampflowError(
                    f"{self.path}: follows version {self.standard} of the ASDF standard, none of {', '.join(tags.STANDARDS)}"
                )
            raw = self._parsed(header) if parse else None
            self.text, self._blocks = header, self._find_blocks(len(header))
            self.tree = _map_tree(raw, self._resolve_array)
        except BaseException:
            os.close(self.descriptor)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self) -> None:
        """Close the file; arrays that were not read can't be read any more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def read_into(self, buffer: np.ndarray, offset: int) -> None:
        """Fill `buffer` (bytes) from `offset` on."""
        view, position = memoryview(buffer), 0
        while position < len(view):
            try:
                read = os.preadv(self.descriptor, [view[position : position + (1 << 30)]], offset + position)
            except OSError as error:
                raise RampflowError(f"{self.path}: can't be read ({error.strerror})") from None
            if not read:
                raise RampflowError(f"{self.path}: ends too early (truncated); get the file again")
            position += read

    def content(self) -> str:
        """What the file holds, as 16 hexadecimal digits.

        It is of the tree, and of each block the checksum with samples of the bytes (a program that changes a file in place may
        leave the checksum as it was), or all bytes where there is none.
        """
        digest = hashlib.sha256(self.text)
        for block in self._blocks:
            digest.update(block.compression + struct.pack("<QQ", block.used, block.size) + block.checksum)
            size, places = 1 << 20, range(0, block.used, 1 << 20)
            if block.checksum != NO_CHECKSUM:
                size, places = _SAMPLE, [part * block.used // _SAMPLES for part in range(_SAMPLES)]
            for place in places:
                part = np.empty(min(size, block.used - place), np.uint8)
                self.read_into(part, block.start + place)
                digest.update(part)
        return digest.hexdigest()[:16]

    def verify(self) -> None:
        """Check the bytes of each uncompressed block against their checksum, where its header has one.

        Compressed ones are checked when they are read, because one wrong bit may change all that follows it. To check the
        others takes a pass over the file: it is for those whose values don't stay where they are.

        Raises
        ------
        RampflowError
            They have changed since they were written.
        """
        for block in self._blocks:
            if block.compression == UNCOMPRESSED:
                self.verify_block(block)

    def verify_block(self, block: _Block) -> None:
        """Check the stored bytes of a block against their checksum, if its header has one.

        Raises
        ------
        RampflowError
            They have changed since they were written.
        """
        if block.checksum == NO_CHECKSUM:
            return
        digest, chunk = hashlib.md5(usedforsecurity=False), np.empty(1 << 20, np.uint8)
        for position in range(0, block.used, chunk.nbytes):
            part = chunk[: block.used - position]
            self.read_into(part, block.start + position)
            digest.update(part)
        if digest.digest() != block.checksum:
            number = self._blocks.index(block)
            raise RampflowError(f"{self.path}: block {number} doesn't have its checksum (damaged); get the file again")

    def _parsed(self, header: bytes) -> dict:
        try:
            tree = _parse(header)
        except Exception as error:  # what YAML's constructors say of a damaged scalar has no common name
            raise RampflowError(f"{self.path}: its YAML tree is damaged ({_one_line(error)}); get the file again") from None
        if not isinstance(tree, dict):
            raise RampflowError(f"{self.path}: holds no ASDF tree; get the file again")
        return tree

    def _read_header(self) -> bytes:
        header = bytearray()
        while True:
            chunk = os.pread(self.descriptor, 1 << 17, len(header))
            if not header and not _PREAMBLE.match(chunk):
                raise RampflowError(f"{self.path}: is not an ASDF file (it does not begin with #ASDF)")
            if not chunk or len(header) > _LARGEST_TREE:
                raise RampflowError(f"{self.path}: its YAML tree has no end (truncated); get the file again")
            scan_from = max(len(header) - 8, 0)
            header += chunk
            if end := _TREE_END.search(header, scan_from):
                return bytes(header[: end.end()])

    def _find_blocks(self, position: int) -> list[_Block]:
        blocks = []
        gap = os.pread(self.descriptor, 1 << 20, position)  # what lies between the tree and the first block is padding
        if not gap.startswith(_BLOCK_MAGIC):
            position += max(gap.find(_BLOCK_MAGIC), 0)
        while os.pread(self.descriptor, 4, position) == _BLOCK_MAGIC:
            raw = os.pread(self.descriptor, 2 + _BLOCK_HEADER.size, position + 4)
            if len(raw) < 2 + _BLOCK_HEADER.size:
                raise RampflowError(f"{self.path}: ends inside a block header (truncated); get the file again")
            (header_size,) = struct.unpack_from(">H", raw)
            _, compression, allocated, used, size, checksum = _BLOCK_HEADER.unpack_from(raw, 2)
            start = position + 6 + header_size
            if header_size < _BLOCK_HEADER.size or used > allocated or (compression == UNCOMPRESSED and size != used):
                raise RampflowError(f"{self.path}: the header of block {len(blocks)} is damaged; get the file again")
            if start + used > self._size:
                raise RampflowError(
                    f"{self.path}: block {len(blocks)} ends at byte {start + used} of a file of {self._size} bytes "
                    "(truncated); get the file again"
                )
            blocks.append(_Block(start, used, compression, size, checksum))
            position = min(start + allocated, self._size)
        return blocks

    def _resolve_array(self, node):
        if not (isinstance(node, dict) and getattr(node, "tag", "").startswith(tags.NDARRAY_PREFIX)):
            return node
        try:
            if "source" not in node:
                datatype = node.get("datatype", "float64")
                return np.array(node["data"], _numpy_dtype(datatype, "little")) if isinstance(datatype, str) else node
            if type(node["source"]) is not int or node["source"] < 0:
                raise ValueError("it is not in a block of this file")
            if node["source"] < len(self._blocks):
                return StoredArray(self, node, _numpy_dtype(node["datatype"], node["byteorder"]), self._blocks[node["source"]])
        except Exception as error:  # whatever doesn't make an array
            raise RampflowError(
                f"{self.path}: the array {_short(dict(node))} can't be read ({_one_line(error)}); get the file again"
            ) from None
        raise RampflowError(
            f"{self.path}: block {node['source']} of {len(self._blocks)} is missing (truncated); get the file again"
        )


def _standard(header: bytes) -> str:
    found = re.match(rb"#ASDF [^\n]*\n#ASDF_STANDARD ([\d.]+)", header)
    return found[1].decode() if found else tags.STANDARD


def _one_line(error: Exception) -> str:
    return _short(" ".join((str(error) or type(error).__name__).split()))


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _write_all(descriptor: int, array: np.ndarray, position: int) -> None:
    view, done = memoryview(array.reshape(-1).view(np.uint8)), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + _WRITE_SIZE], position + done)


def _takes_block(node) -> bool:
    """Whether a node of a tree is an array that is written as a block; a small one in memory is written in the tree."""
    if isinstance(node, np.ndarray):
        return node.size > _INLINE_SIZE or node.dtype.kind == "c"  # YAML has no complex numbers
    return isinstance(node, StoredArray | EmptyArray | CompressedArray)


class AsdfWriter:
    """An ASDF file being written; use `create_asdf`.

    Attributes
    ----------
    tree : dict
        The tree that will be written when the file is finished: metadata may change until then, arrays may not be added.
    """

    def __init__(self, descriptor: int, tree: dict, standard: str):
        self.tree, self._descriptor, self._standard = tagged(tree, tags.ROOT), descriptor, standard
        self._arrays = []  # each with the position of its bytes
        _map_tree(self.tree, self._collect)
        self._head = len(self._dump()) + _HEADROOM
        position, blocks = self._head, []
        for index, (array, _) in enumerate(self._arrays):
            blocks.append(position)
            self._arrays[index] = array, position + 6 + _BLOCK_HEADER.size
            position += 6 + _BLOCK_HEADER.size + (len(array.stored) if isinstance(array, CompressedArray) else array.nbytes)
        os.ftruncate(descriptor, position)
        if blocks:  # without their index, asdf reads a whole file in search of it whenever it opens one
            index = b"#ASDF BLOCK INDEX\n%YAML 1.1\n---\n" + b"".join(b"- %d\n" % block for block in blocks) + b"...\n"
            _write_all(descriptor, np.frombuffer(index, np.uint8), position)
        for array, place in self._arrays:
            content = UNCOMPRESSED, array.nbytes, NO_CHECKSUM
            if isinstance(array, CompressedArray):
                content = LZ4, len(array.stored), hashlib.md5(array.stored, usedforsecurity=False).digest()
                _write_all(descriptor, np.frombuffer(array.stored, np.uint8), place)
            compression, used, checksum = content
            header = _BLOCK_HEADER.pack(0, compression, used, used, array.nbytes, checksum)
            _write_all(
                descriptor,
                np.frombuffer(_BLOCK_MAGIC + struct.pack(">H", _BLOCK_HEADER.size) + header, np.uint8),
                place - 6 - _BLOCK_HEADER.size,
            )
            if isinstance(array, StoredArray):
                array.copy_to(descriptor, place)
            elif isinstance(array, np.ndarray):
                _write_all(descriptor, np.ascontiguousarray(array), place)

    def write_rows(self, array: EmptyArray, start: int, values: np.ndarray) -> None:
        """Write rows from `start` on of every plane of an array of the tree."""
        place = self._place(array)
        *planes, rows, columns = array.shape
        n_planes = int(np.prod(planes, dtype=np.int64))
        if values.shape != (*planes, values.shape[-2], columns) or start + values.shape[-2] > rows:
            raise ValueError(f"rows of shape {values.shape} from {start} on don't fit an array of shape {array.shape}")
        values = np.ascontiguousarray(values, array.dtype).reshape(n_planes, -1, columns)
        for plane in range(n_planes):
            _write_all(self._descriptor, values[plane], place + (plane * rows + start) * columns * array.dtype.itemsize)

    def write_plane(self, array: EmptyArray, index: int, values: np.ndarray) -> None:
        """Write one plane (one resultant) of a 3-D array of the tree."""
        if values.shape != array.shape[1:]:
            raise ValueError(f"a plane of shape {values.shape} doesn't fit an array of shape {array.shape}")
        values = np.ascontiguousarray(values, array.dtype)
        _write_all(self._descriptor, values, self._place(array) + index * values.nbytes)

    def write(self, array: EmptyArray, values: np.ndarray) -> None:
        """Write a whole array of the tree."""
        if values.shape != array.shape:
            raise ValueError(f"values of shape {values.shape} don't fit an array of shape {array.shape}")
        _write_all(self._descriptor, np.ascontiguousarray(values, array.dtype), self._place(array))

    def finish(self) -> None:
        """Write the tree in front of the blocks."""
        text = self._dump()
        padding = self._head - len(text)
        if padding < 0:
            raise ValueError(f"the metadata grew by {_HEADROOM - padding} bytes, more than the {_HEADROOM} kept free")
        # The room left is filled with empty lines before the end mark of the document, where YAML ignores them.
        end = b"...\n"
        _write_all(self._descriptor, np.frombuffer(text[: -len(end)] + b"\n" * padding + end, np.uint8), 0)

    def _place(self, array) -> int:
        for candidate, place in self._arrays:
            if candidate is array:
                return place
        raise ValueError("that array is not in the tree of this file")

    def _collect(self, node):
        if _takes_block(node) and all(node is not array for array, _ in self._arrays):
            self._arrays.append((node, None))
        return node

    def _dump(self) -> bytes:
        def describe(node):
            if isinstance(node, np.ndarray) and not _takes_block(node):
                description = {"data": node.tolist(), "datatype": _asdf_datatype(node.dtype)[0], "shape": list(node.shape)}
                return tagged(description, tags.NDARRAY)
            if not _takes_block(node):
                return node
            datatype, byteorder = _asdf_datatype(node.dtype)
            source = next(i for i, (array, _) in enumerate(self._arrays) if array is node)
            return tagged(
                {"source": source, "datatype": datatype, "byteorder": byteorder, "shape": list(node.shape)}, tags.NDARRAY
            )

        out = io.BytesIO()
        out.write(f"#ASDF {tags.FILE_FORMAT}\n#ASDF_STANDARD {self._standard}\n".encode())
        yaml.dump(
            _map_tree(self.tree, describe),
            out,
            Dumper=_Dumper,
            encoding="utf-8",
            allow_unicode=True,
            explicit_start=True,
            explicit_end=True,
            version=(1, 1),
            tags={"!": tags.ASDF_PREFIX},
            sort_keys=False,
            width=120,
        )
        return out.getvalue()


@contextlib.contextmanager
def replacing(path, *, shared: bool = False):
    """A file of the same name in a folder beside `path`, put in its place at the end: it appears whole or not at all.

    What a killed writer of the same file has left is removed; after a day, where `shared` says that others may be writing it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".rampflow-*/{glob.escape(path.name)}"):
            with contextlib.suppress(FileNotFoundError):  # its writer has ended since
                if not shared or time.time() - leftover.stat().st_mtime > 86400:
                    shutil.rmtree(leftover.parent, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".rampflow-", dir=path.parent, ignore_cleanup_errors=True) as folder:
            partial = Path(folder) / path.name
            yield partial
            partial.replace(path)
    except OSError as error:
        raise RampflowError(f"{path}: can't be written ({error.strerror or error})") from error


@contextlib.contextmanager
def create_asdf(path, tree: dict, standard: str = tags.STANDARD):
    """Write an ASDF file: arrays that are in memory or in another file at once, the others as the caller gives them.

    Parameters
    ----------
    path : path-like
        Final name. The file appears there when the block ends without an error.
    tree : dict
        Tree with `numpy.ndarray`, `CompressedArray`, `StoredArray` (copied from their file) and `EmptyArray` (to be written by
        the caller).
    standard : str
        Version of the ASDF standard to declare.

    Yields
    ------
    AsdfWriter
    """
    with replacing(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            writer = AsdfWriter(descriptor, tree, standard)
            yield writer
            writer.finish()
        finally:
            os.close(descriptor)
