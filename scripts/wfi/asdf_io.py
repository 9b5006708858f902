"""Read and write ASDF files by tree and by rows, without building the whole model.

``asdf.open`` imports every installed extension and takes more than two seconds before the first pixel is read; a chain of
thirteen steps would spend half a minute on that alone. A step needs the metadata (a YAML tree) and a few arrays (plain
bytes behind a fixed header), so this module reads just these. Tags that it does not know (a WCS, a time, a data model)
travel through untouched. Whole models are built and validated by `roman_datamodels` where files enter and leave the
pipeline.

The layout of the file is that of the ASDF standard (https://www.asdf-format.org/projects/asdf-standard), low-level file
layout: comment lines, a YAML document, then blocks of a 6 + 48 byte header and their bytes.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import os
import re
import stat
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import yaml

from wfi.errors import RampflowError

CORE = "tag:stsci.edu:asdf/core/"
NDARRAY_TAG = CORE + "ndarray-1.1.0"

_BLOCK_MAGIC = b"\xd3BLK"
# flags, compression, allocated size, used size, data size, MD5 of the bytes (zeros: not given, as the standard allows)
_BLOCK_HEADER = struct.Struct(">I4sQQQ16s")
_PREAMBLE = re.compile(rb"#ASDF \d+\.\d+\.\d+\r?\n")
_TREE_END = re.compile(rb"\r?\n\.\.\.[ ]*\r?\n")
# Tree bytes kept free for what a step adds to the metadata (logs, status) after its arrays have found their places.
_HEADROOM = 1 << 17
_INLINE_SIZE = 256


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


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """A safe loader that keeps unknown tags instead of refusing them."""


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
def _numpy_dtype(datatype: str, byteorder: str) -> np.dtype:
    if datatype == "bool8":
        return np.dtype(bool)
    return np.dtype(datatype).newbyteorder("<" if byteorder == "little" else ">")


def _asdf_datatype(dtype: np.dtype) -> tuple[str, str]:
    if dtype.kind == "b":
        return "bool8", "little"
    big = dtype.byteorder == ">" or (dtype.byteorder == "=" and not np.little_endian)
    return dtype.newbyteorder("=").name, "big" if big else "little"


class StoredArray:
    """An array that lies in a file, read when and as far as it is asked for.

    Attributes
    ----------
    shape : tuple of int
    dtype : `numpy.dtype`
    nbytes : int
        Bytes when uncompressed.
    """

    def __init__(self, file: AsdfFile, node: dict, dtype: np.dtype, block: tuple[int, int, bytes, int]):
        self._file = file
        self.shape = tuple(int(n) for n in node["shape"])
        self.dtype = dtype
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * dtype.itemsize
        self._offset, self._stored, self._compression, self._size = block
        self._start, self._strides = node.get("offset", 0), node.get("strides")
        if min(self.shape, default=0) < 0 or (self._strides is None and self._start + self.nbytes > self._size):
            raise ValueError(f"its block has {self._size} bytes")
        self._decompressed, self._lock = None, threading.Lock()

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def _plain(self) -> bool:
        return self._compression == b"\0" * 4 and self._strides is None

    def read(self) -> np.ndarray:
        """Read the whole array into memory, in native byte order."""
        if not self._plain:
            return self._whole().astype(self.dtype.newbyteorder("="))
        result = np.empty(self.shape, self.dtype)
        self._file.read_into(result.reshape(-1).view(np.uint8), self._offset + self._start)
        return result if self.dtype.isnative else result.astype(self.dtype.newbyteorder("="))

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Read rows `start` to `stop` of every plane.

        Rows are the last axis but one, so a ramp of shape (resultant, row, column) gives (resultant, stop - start, column).
        """
        *planes, rows, columns = self.shape
        start, stop = max(start, 0), min(stop, rows)
        if not self._plain:
            return np.array(self._whole()[..., start:stop, :], self.dtype.newbyteorder("="), order="C")
        n_planes = int(np.prod(planes, dtype=np.int64))
        result = np.empty((n_planes, stop - start, columns), self.dtype)
        row = columns * self.dtype.itemsize
        for plane in range(n_planes):
            offset = self._offset + self._start + (plane * rows + start) * row
            self._file.read_into(result[plane].reshape(-1).view(np.uint8), offset)
        result = result.reshape(*planes, stop - start, columns)
        return result if self.dtype.isnative else result.astype(self.dtype.newbyteorder("="))

    def read_plane(self, index: int) -> np.ndarray:
        """Read one plane (one resultant) of a 3-D array."""
        if not self._plain:
            return np.array(self._whole()[index], self.dtype.newbyteorder("="), order="C")
        result = np.empty(self.shape[1:], self.dtype)
        self._file.read_into(result.reshape(-1).view(np.uint8), self._offset + self._start + index * result.nbytes)
        return result if self.dtype.isnative else result.astype(self.dtype.newbyteorder("="))

    def _whole(self) -> np.ndarray:
        # Compressed blocks can't be read by rows: they are kept whole once decompressed, by whichever thread comes first.
        with self._lock:
            if self._decompressed is None:
                stored = np.empty(self._stored, np.uint8)
                self._file.read_into(stored, self._offset)
                raw = _decompress(stored, self._compression, self._size, self._file.path)
                self._decompressed = np.ndarray(self.shape, self.dtype, raw, self._start, self._strides)
        return self._decompressed

    def copy_to(self, descriptor: int, position: int) -> None:
        """Copy the array's bytes into another file, in the kernel where it can."""
        if not self._plain:
            _write_all(descriptor, np.ascontiguousarray(self._whole()), position)
            return
        offset, left = self._offset + self._start, self.nbytes
        while left:
            try:
                copied = os.copy_file_range(self._file.descriptor, descriptor, left, offset, position)
            except OSError:
                copied = 0
            if not copied:  # across file systems that can't: through memory
                chunk = np.empty(min(left, 1 << 24), np.uint8)
                self._file.read_into(chunk, offset)
                _write_all(descriptor, chunk, position)
                copied = chunk.nbytes
            offset, position, left = offset + copied, position + copied, left - copied


def _decompress(stored: np.ndarray, compression: bytes, size: int, path):
    """The bytes of a block; `size` is how many they are when uncompressed."""
    try:
        if compression == b"\0" * 4:
            return stored
        if compression == b"zlib":
            return zlib.decompress(stored)
        if compression == b"bzp2":
            return bz2.decompress(stored.tobytes())  # it takes bytes alone
        if compression == b"lz4\0":
            return _decompress_lz4(stored, size)
    except (zlib.error, OSError, ValueError, RuntimeError, struct.error) as error:
        raise RampflowError(f"{path}: a compressed block is damaged ({_one_line(error)}); get the file again") from None
    raise RampflowError(f"{path}: a block is compressed with {compression!r}, which can't be read; write it with lz4")


def _decompress_lz4(stored: np.ndarray, size: int) -> np.ndarray:
    # A series of frames: the length of what follows (big-endian), then an lz4 block that begins with its own length.
    import lz4.block

    result, filled, position, view = np.empty(size, np.uint8), 0, 0, memoryview(stored)
    while position < len(view):
        (length,) = struct.unpack_from(">I", view, position)
        frame = lz4.block.decompress(view[position + 4 : position + 4 + length])
        result[filled : filled + len(frame)] = np.frombuffer(frame, np.uint8)
        filled, position = filled + len(frame), position + 4 + length
    if filled != size:
        raise ValueError(f"{filled} bytes of {size}")
    return result


class EmptyArray:
    """The place of an array that will be written by rows or planes."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


# --------------------------------------------------------------------------------------------------------------- files
class AsdfFile:
    """An ASDF file open for reading.

    Attributes
    ----------
    path : `pathlib.Path`
    tree : dict
        The YAML tree: tagged nodes keep their tag, and arrays are `StoredArray` (in a block) or `numpy.ndarray` (inline).
    standard : str
        The version of the ASDF standard that the file says it follows.

    Raises
    ------
    RampflowError
        The file is not ASDF, is truncated, or its tree can't be parsed.
    """

    def __init__(self, path):
        self.path = Path(path)
        try:
            self.descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise RampflowError(f"{self.path}: can't be opened ({error.strerror})") from None
        try:
            status = os.fstat(self.descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise RampflowError(f"{self.path}: can't be opened (it is not a file)")
            self._size = status.st_size
            header = self._read_header()
            self.standard = _standard(header)
            try:
                raw = yaml.load(header, Loader=_Loader)
            except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
                raise RampflowError(f"{self.path}: its YAML tree is damaged ({_one_line(error)}); get the file again") from None
            if not isinstance(raw, dict):
                raise RampflowError(f"{self.path}: holds no ASDF tree; get the file again")
            self._blocks = self._find_blocks(len(header))
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
            read = os.preadv(self.descriptor, [view[position : position + (1 << 30)]], offset + position)
            if not read:
                raise RampflowError(f"{self.path}: ends too early (truncated); get the file again")
            position += read

    def _read_header(self) -> bytes:
        header = b""
        while True:
            chunk = os.pread(self.descriptor, 1 << 17, len(header))
            if not header and not _PREAMBLE.match(chunk):
                raise RampflowError(f"{self.path}: is not an ASDF file (it does not begin with #ASDF)")
            if not chunk:
                raise RampflowError(f"{self.path}: its YAML tree has no end (truncated); get the file again")
            scan_from = max(len(header) - 8, 0)
            header += chunk
            if end := _TREE_END.search(header, scan_from):
                return header[: end.end()]

    def _find_blocks(self, position: int) -> list[tuple[int, int, bytes, int]]:
        blocks = []
        gap = os.pread(self.descriptor, 1 << 20, position)  # what lies between the tree and the first block is padding
        if not gap.startswith(_BLOCK_MAGIC):
            position += max(gap.find(_BLOCK_MAGIC), 0)
        while os.pread(self.descriptor, 4, position) == _BLOCK_MAGIC:
            raw = os.pread(self.descriptor, 2 + _BLOCK_HEADER.size, position + 4)
            if len(raw) < 2 + _BLOCK_HEADER.size:
                raise RampflowError(f"{self.path}: ends inside a block header (truncated); get the file again")
            (header_size,) = struct.unpack_from(">H", raw)
            _, compression, allocated, used, size, _ = _BLOCK_HEADER.unpack_from(raw, 2)
            start = position + 6 + header_size
            if header_size < _BLOCK_HEADER.size or used > allocated:
                raise RampflowError(f"{self.path}: the header of block {len(blocks)} is damaged; get the file again")
            if start + used > self._size:
                raise RampflowError(
                    f"{self.path}: block {len(blocks)} ends at byte {start + used} of a file of {self._size} bytes "
                    "(truncated); get the file again"
                )
            blocks.append((start, used, compression, size))
            position = start + allocated
        return blocks

    def _resolve_array(self, node):
        if not (isinstance(node, dict) and getattr(node, "tag", "").startswith(CORE + "ndarray-")):
            return node
        datatype = node.get("datatype", "float64")
        if "source" not in node:
            return np.array(node["data"], dtype=_numpy_dtype(datatype, "little")) if isinstance(datatype, str) else node
        if isinstance(node["source"], int) and node["source"] >= len(self._blocks):
            raise RampflowError(
                f"{self.path}: block {node['source']} of {len(self._blocks)} is missing (truncated); get the file again"
            )
        try:
            dtype = _numpy_dtype(datatype, node.get("byteorder", "big"))
            return StoredArray(self, node, dtype, self._blocks[node["source"]])
        except (TypeError, KeyError, ValueError) as error:
            raise RampflowError(f"{self.path}: the array {dict(node)} can't be read ({_one_line(error)})") from None


def _standard(header: bytes) -> str:
    found = re.match(rb"#ASDF [^\n]*\n#ASDF_STANDARD ([\d.]+)", header)
    return found[1].decode() if found else "1.6.0"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _write_all(descriptor: int, array: np.ndarray, position: int) -> None:
    view, done = memoryview(array.reshape(-1).view(np.uint8)), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + (1 << 30)], position + done)


def _takes_block(node) -> bool:
    """Whether a node of a tree is an array that is written as a block; a small one in memory is written in the tree."""
    if isinstance(node, np.ndarray):
        return node.size > _INLINE_SIZE or node.dtype.kind == "c"  # YAML has no complex numbers
    return isinstance(node, StoredArray | EmptyArray)


class AsdfWriter:
    """An ASDF file being written; use `create_asdf`.

    Attributes
    ----------
    tree : dict
        The tree that will be written when the file is finished: metadata may change until then, arrays may not be added.
    """

    def __init__(self, descriptor: int, tree: dict, standard: str):
        self.tree, self._descriptor, self._standard = tagged(tree, CORE + "asdf-1.1.0"), descriptor, standard
        self._arrays = []  # each with the position of its bytes
        _map_tree(self.tree, self._collect)
        self._head = len(self._dump()) + _HEADROOM
        position = self._head
        for index, (array, _) in enumerate(self._arrays):
            self._arrays[index] = array, position + 6 + _BLOCK_HEADER.size
            position += 6 + _BLOCK_HEADER.size + array.nbytes
        os.ftruncate(descriptor, position)
        for array, place in self._arrays:
            header = _BLOCK_HEADER.pack(0, b"\0" * 4, array.nbytes, array.nbytes, array.nbytes, b"\0" * 16)
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
                return tagged(description, NDARRAY_TAG)
            if not _takes_block(node):
                return node
            datatype, byteorder = _asdf_datatype(node.dtype)
            source = next(i for i, (array, _) in enumerate(self._arrays) if array is node)
            return tagged(
                {"source": source, "datatype": datatype, "byteorder": byteorder, "shape": list(node.shape)}, NDARRAY_TAG
            )

        out = io.BytesIO()
        out.write(b"#ASDF 1.0.0\n#ASDF_STANDARD " + self._standard.encode() + b"\n")
        yaml.dump(
            _map_tree(self.tree, describe),
            out,
            Dumper=_Dumper,
            encoding="utf-8",
            allow_unicode=True,
            explicit_start=True,
            explicit_end=True,
            version=(1, 1),
            tags={"!": "tag:stsci.edu:asdf/"},
            sort_keys=False,
            width=120,
        )
        return out.getvalue()


@contextlib.contextmanager
def replacing(path):
    """A name beside `path` to write to, renamed to `path` at the end: the file appears whole or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise RampflowError(f"{path}: can't be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def create_asdf(path, tree: dict, standard: str = "1.6.0"):
    """Write an ASDF file: arrays that are in memory or in another file at once, the others as the caller gives them.

    Parameters
    ----------
    path : path-like
        Final name. The file appears there when the block ends without an error.
    tree : dict
        Tree with `numpy.ndarray`, `StoredArray` (copied from their file) and `EmptyArray` (to be written by the caller).
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
