"""Read the YAML tree and the arrays of ASDF files, without building a data model.

``asdf.open`` imports every installed extension, which takes more than two seconds: half a minute for a chain of thirteen steps.
A step needs only the metadata (a YAML tree) and a few arrays (bytes behind a fixed header), and this module reads only these.
The final products are checked against the schemas of their data models in `rampflow.files.models`.

A file consists of comment lines, a YAML document, blocks, and an index of the blocks: ASDF standard, low-level file layout
(https://www.asdf-format.org/projects/asdf-standard).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rampflow.errors import RampflowError, one_line, shortened
from rampflow.files import tags
from rampflow.files.blocks import MAGIC, NO_CHECKSUM, UNCOMPRESSED, Block, RandomAccess, numpy_dtype, read_block
from rampflow.files.stored_array import StoredArray
from rampflow.files.yaml_tree import cut_entry, map_tree, parse_tree

_PREAMBLE = re.compile(rb"#ASDF \d+\.\d+\.\d+\r?\n")
_TREE_END = re.compile(rb"\r?\n\.\.\.[ ]*\r?\n")
_LARGEST_TREE = 1 << 26  #: bytes; a larger tree is damaged, or meant to exhaust the memory
_SAMPLES = 8  #: samples of a block that `AsdfFile.content_digest` covers besides the checksum of the block
_SAMPLE_SIZE = 4096  #: bytes of a sample
_GAPS = (1 << 12, 1 << 20)  #: bytes after the tree that are searched for the first block; there may be padding before it


class AsdfFile:
    """An ASDF file open for reading.

    Parameters
    ----------
    path : path-like
        Name of the file.
    parse : bool
        Whether to parse the tree. If False, `tree` is `None`; `text`, `content_digest` and `entry` work without it.
    source : RandomAccess, optional
        Source of the bytes, if they are not in a file on this machine.

    Attributes
    ----------
    path : pathlib.Path
        Name of the file.
    descriptor : int
        Descriptor of the open file; −1 after it is closed, and if `source` is given.
    tree : dict
        The YAML tree: tagged nodes keep their tag, and arrays are `StoredArray` (in a block) or `numpy.ndarray` (inline).
    text : bytes
        The tree as it is written in the file.
    standard : str
        Version of the ASDF standard, as the file declares it.
    intact : set of int
        Start of each block that is known to match its checksum. `verify_block` adds to this set, and does not read these blocks
        again.

    Raises
    ------
    RampflowError
        The file is not ASDF, is truncated, or its tree can't be parsed.
    """

    def __init__(self, path: str | os.PathLike, *, parse: bool = True, source: RandomAccess | None = None):
        self.path, self._source, self.descriptor = Path(path), source, -1
        self.intact: set[int] = set()
        try:
            self._size = source.size if source else self._open()
            self.text = self._read_text()
            self.standard = _standard_of(self.text)
            if self.standard not in tags.STANDARDS:
                raise RampflowError(
                    f"{self.path}: follows version {self.standard} of the ASDF standard; this program reads versions "
                    f"{', '.join(tags.STANDARDS)}"
                )
            raw = self._parse(self.text) if parse else None  # before the blocks, to report a damaged tree first
            self._blocks = self._find_blocks(len(self.text))
            self.tree: Any = map_tree(raw, self._resolve_array)
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        """Open the file; return its size."""
        try:
            # O_NONBLOCK: if the path is a named pipe, don't wait for a writer.
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise RampflowError(f"{self.path}: can't be opened ({error.strerror})") from None
        status = os.fstat(self.descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RampflowError(f"{self.path}: can't be opened (it is not a file)")
        return status.st_size

    def _read_at(self, size: int, offset: int) -> bytes:
        return self._source.read(size, offset) if self._source else os.pread(self.descriptor, size, offset)

    def __enter__(self) -> AsdfFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Arrays that have not been read can't be read afterward."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def read_into(self, buffer: np.ndarray, offset: int) -> None:
        """Read bytes of the file.

        Parameters
        ----------
        buffer : numpy.ndarray
            Array to fill, uint8, of shape (bytes,).
        offset : int
            Offset of the first byte in the file.

        Raises
        ------
        RampflowError
            The file ends too early, or can't be read.
        """
        view = buffer.data
        position = 0
        if self._source:
            content = self._source.read(len(view), offset)
            view[: len(content)] = content
            position = len(content)
            if position < len(view):
                raise RampflowError(f"{self.path}: ends too early (truncated); get the file again")
        while position < len(view):
            try:
                read = os.preadv(self.descriptor, [view[position : position + (1 << 30)]], offset + position)
            except OSError as error:
                raise RampflowError(f"{self.path}: can't be read ({error.strerror})") from None
            if not read:
                raise RampflowError(f"{self.path}: ends too early (truncated); get the file again")
            position += read

    def entry(self, *keys: str) -> Any:
        """Read one entry of the tree, if possible without parsing the rest.

        Parameters
        ----------
        *keys : str
            Keys from the root of the tree to the entry.

        Returns
        -------
        object
            The entry, as it is in `tree`; `None` where there is none.

        Raises
        ------
        RampflowError
            The tree is damaged.
        """
        if self.tree is None and keys:
            part = self._entry_alone(keys)
            if part is not None:
                return part
            self.tree = map_tree(self._parse(self.text), self._resolve_array)
        node = self.tree
        for key in keys:
            node = node.get(key) if isinstance(node, dict) else None
        return node

    def _entry_alone(self, keys: Sequence[str]) -> Any:
        """Parse an entry alone; return `None` if this takes the rest of the tree, as with an alias or another style of YAML."""
        text = cut_entry(self.text, keys)
        try:
            return None if text is None else map_tree(parse_tree(text), self._resolve_array)[keys[-1]]
        except Exception:  # YAML's errors have no common type; parsing the whole tree reports the damage
            return None

    def content_digest(self) -> str:
        """Compute a digest that identifies the content of the file.

        It covers the tree, and the checksum and samples of each block: a program that changes a block in place may not update
        its checksum. It covers all bytes of a block without a checksum.

        Returns
        -------
        str
            Sixteen hexadecimal digits.

        Raises
        ------
        RampflowError
            The file can't be read.
        """
        digest = hashlib.sha256(self.text)
        for block in self._blocks:
            digest.update(block.compression + struct.pack("<QQ", block.used, block.size) + block.checksum)
            if block.checksum == NO_CHECKSUM:
                size = 1 << 20
                places = list(range(0, block.used, size))
            else:
                size = _SAMPLE_SIZE
                places = [sample * block.used // _SAMPLES for sample in range(_SAMPLES)]
            for place in places:
                part = np.empty(min(size, block.used - place), np.uint8)
                self.read_into(part, block.start + place)
                digest.update(part.data)
        return digest.hexdigest()[:16]

    def verify(self, *, compressed: bool = False) -> None:
        """Check the bytes of each uncompressed block against its checksum, where its header has one.

        Compressed blocks are checked whenever they are read, because one wrong bit may corrupt all that follows it. To check
        the uncompressed ones, the whole file must be read.

        Parameters
        ----------
        compressed : bool
            Whether to check the compressed blocks, too.

        Raises
        ------
        RampflowError
            The bytes have changed since they were written.
        """
        for block in self._blocks:
            if compressed or block.compression == UNCOMPRESSED:
                self.verify_block(block)

    def verify_block(self, block: Block) -> None:
        """Check the stored bytes of a block against its checksum, if its header has one.

        Parameters
        ----------
        block : Block
            A block of this file.

        Raises
        ------
        RampflowError
            The bytes have changed since they were written.
        """
        if block.checksum == NO_CHECKSUM or block.start in self.intact:
            return
        digest = hashlib.md5(usedforsecurity=False)
        for _, part in self._parts(block.start, block.start + block.used):
            digest.update(part.data)
        self._compare(block, digest.digest())

    def verify_whole(self) -> str:
        """Check all blocks against their checksums, and compute the SHA-256 of the file, in one reading.

        Returns
        -------
        str
            The SHA-256, 64 hexadecimal digits.

        Raises
        ------
        RampflowError
            The bytes of a block have changed since they were written.
        """
        whole = hashlib.sha256()
        digests = [(block, hashlib.md5(usedforsecurity=False)) for block in self._blocks if block.checksum != NO_CHECKSUM]
        for position, part in self._parts(0, self._size):
            whole.update(part.data)
            for block, digest in digests:
                digest.update(part[max(block.start - position, 0) : max(block.start + block.used - position, 0)].data)
        for block, digest in digests:
            self._compare(block, digest.digest())
        return whole.hexdigest()

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Read the bytes from `start` to `stop` in parts: the offset of each part, and its bytes, in a buffer for all parts."""
        chunk = np.empty(1 << 20, np.uint8)
        for position in range(start, stop, chunk.nbytes):
            part = chunk[: stop - position]
            self.read_into(part, position)
            yield position, part

    def _compare(self, block: Block, checksum: bytes) -> None:
        """Refuse a block that has another checksum than it had when it was written."""
        if checksum != block.checksum:
            number = self._blocks.index(block)
            raise RampflowError(f"{self.path}: block {number} doesn't match its checksum (damaged); get the file again")
        self.intact.add(block.start)

    def status(self) -> os.stat_result:
        """Look up the status of the open file.

        Returns
        -------
        os.stat_result
            Its size and times.
        """
        return os.fstat(self.descriptor)

    def _parse(self, text: bytes) -> dict:
        try:
            tree = parse_tree(text)
        except Exception as error:  # YAML's errors have no common type
            raise RampflowError(f"{self.path}: its YAML tree is damaged ({one_line(error)}); get the file again") from None
        if not isinstance(tree, dict):
            raise RampflowError(f"{self.path}: holds no ASDF tree; get the file again")
        return tree

    def _read_text(self) -> bytes:
        text = bytearray()
        while True:
            chunk = self._read_at(1 << 17, len(text))
            if not text and not _PREAMBLE.match(chunk):
                raise RampflowError(f"{self.path}: is not an ASDF file (it does not begin with #ASDF)")
            if not chunk or len(text) > _LARGEST_TREE:
                raise RampflowError(f"{self.path}: its YAML tree has no end (truncated); get the file again")
            scan_from = max(len(text) - 8, 0)
            text += chunk
            if end := _TREE_END.search(text, scan_from):
                return bytes(text[: end.end()])

    def _find_blocks(self, position: int) -> list[Block]:
        gaps = (self._read_at(size, position).find(MAGIC) for size in _GAPS)
        position += next((gap for gap in gaps if gap >= 0), 0)
        blocks: list[Block] = []
        try:
            while found := read_block(self._read_at, position, self._size, len(blocks)):
                block, position = found
                blocks.append(block)
        except ValueError as error:
            raise RampflowError(f"{self.path}: {error}; get the file again") from None
        return blocks

    def _resolve_array(self, node: Any) -> Any:
        if not (isinstance(node, dict) and getattr(node, "tag", "").startswith(tags.NDARRAY_PREFIX)):
            return node
        if isinstance(node.get("source"), str):
            raise RampflowError(
                f"{self.path}: has an array in another file, {node['source']!r}; write it again with all arrays in it"
            )
        try:
            if "source" not in node:
                datatype = node.get("datatype", "float64")
                if not isinstance(datatype, str):
                    return node
                values = np.array(node["data"], numpy_dtype(datatype, "little"))
                # Nested lists without values don't determine the other axes.
                return values if values.size else values.reshape(node.get("shape", values.shape))
            if type(node["source"]) is not int or node["source"] < 0:
                raise ValueError("it is not in a block of this file")
            if node["source"] < len(self._blocks):
                return StoredArray(self, node, numpy_dtype(node["datatype"], node["byteorder"]), self._blocks[node["source"]])
        except Exception as error:  # an array with any kind of damage
            raise RampflowError(
                f"{self.path}: the array {shortened(dict(node))} can't be read ({one_line(error)}); get the file again"
            ) from None
        raise RampflowError(
            f"{self.path}: block {node['source']} of {len(self._blocks)} is missing (truncated); get the file again"
        )


def _standard_of(text: bytes) -> str:
    found = re.match(rb"#ASDF [^\n]*\n#ASDF_STANDARD ([\d.]+)", text)
    return found[1].decode() if found else tags.STANDARD
