"""Which blocks of a reference are known to be intact: noted beside the link to it, and forgotten when the file changes."""

import asdf
import numpy as np
import pytest

from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.verified import remembering_intact_blocks

COMPRESSED = {"all_array_compression": "lz4"}


@pytest.fixture
def link(tmp_path, monkeypatch):
    """The link of a run to a reference with two compressed blocks."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cache" / "flat.asdf"
    path.parent.mkdir()
    values = np.arange(40_000, dtype=np.float32).reshape(200, 200)
    asdf.AsdfFile({"roman": {"data": values, "err": values + 1}}).write_to(path, **COMPRESSED)
    link = links.link_of(links.content_of(path, trusted=True), path.name)
    links.make_link(link, path)
    return link


def read(given, *names):
    """Read arrays of a reference; which blocks were known to be intact before, and which are after."""
    with AsdfFile(links.original(given)) as file, remembering_intact_blocks(file, given):
        before = set(file.intact)
        for name in names:
            file.tree["roman"][name].read()
        return before, file.intact


def damage(path):
    """Change a byte in the middle of the last block."""
    content = bytearray(path.read_bytes())
    content[len(content) - 2000] ^= 0xFF
    with open(path, "r+b") as file:
        file.write(content)


def test_a_block_that_one_job_has_checked_is_known_to_the_next(link):
    assert read(link, "data") == (set(), {one := next(iter(read(link, "data")[1]))})
    before, after = read(link, "data", "err")
    assert before == {one}
    assert len(after) == 2
    assert read(link)[0] == after


def test_a_file_that_has_changed_is_checked_again(link):
    read(link, "data", "err")
    damage(links.original(link))
    assert read(link)[0] == set()
    with pytest.raises(RampflowError, match=r"flat\.asdf: block 1 doesn't match its checksum \(damaged\)"):
        read(link, "err")


def test_a_damaged_block_is_never_noted(link):
    damage(links.original(link))
    with pytest.raises(RampflowError, match="checksum"):
        read(link, "data", "err")
    assert len(read(link, "data")[1]) == 1


def test_without_a_link_every_job_checks(link):
    path = links.original(link)
    read(path, "data")
    assert read(path)[0] == set()
    assert [file.name for file in path.parent.iterdir()] == ["flat.asdf"]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"stamp": 1, "intact": 2}', "not json"])
def test_a_note_that_can_not_be_read_is_ignored(link, content):
    read(link, "data", "err")
    note = link.with_name("flat.asdf.intact")
    assert note.exists()
    note.write_text(content)
    assert read(link, "data")[0] == set()
