"""YAML trees of ASDF files, with the tags of their nodes kept as text instead of resolved to objects.

A tag that no code here knows (a WCS, a time, a data model) passes through unchanged.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml

from rampflow.files import tags

_LARGEST_EXPANSION = 10_000_000  #: nodes, with each alias written out; far beyond any data model
_DEEPEST = 500  #: levels of nesting; far beyond any data model
_LEVEL_MARKS = (b"[", b"{", b"- ", b"? ")  #: what may open a level

# libyaml's loader and dumper, ten times as fast as PyYAML's own, where PyYAML was built with them.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class TaggedDict(dict):
    """A YAML mapping that keeps its tag."""

    tag: str


class TaggedList(list):
    """A YAML sequence that keeps its tag."""

    tag: str


class TaggedStr(str):
    """A YAML scalar that keeps its tag; its text is not interpreted."""

    tag: str


def tagged(value: dict | list | str, tag: str) -> Any:
    """Give a node a YAML tag.

    Parameters
    ----------
    value : dict, list or str
        The node. It is copied.
    tag : str
        The tag, in full.

    Returns
    -------
    TaggedDict, TaggedList or TaggedStr
        The tagged node.
    """
    kind: Any = TaggedDict if isinstance(value, dict) else TaggedList if isinstance(value, list) else TaggedStr
    result = kind(value)
    result.tag = tag
    return result


class _Loader(_SafeLoader):
    """A safe loader that keeps unknown tags instead of refusing them."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse merge keys: no ASDF writer uses them, and they multiply."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("it has a merge key, <<, which ASDF files don't use")


class _Dumper(_SafeDumper):
    """The inverse of `_Loader`."""


def _construct_tagged(loader: Any, tag_suffix: str, node: yaml.Node) -> Iterator[Any]:
    if isinstance(node, yaml.MappingNode):
        mapping = tagged({}, node.tag)
        yield mapping
        mapping.update(loader.construct_mapping(node))
    elif isinstance(node, yaml.SequenceNode):
        sequence = tagged([], node.tag)
        yield sequence
        sequence.extend(loader.construct_sequence(node))
    else:
        yield tagged(node.value, node.tag)


_Loader.add_multi_constructor("", _construct_tagged)
_Dumper.add_representer(TaggedDict, lambda dumper, node: dumper.represent_mapping(node.tag, dict(node)))
_Dumper.add_representer(TaggedList, lambda dumper, node: dumper.represent_sequence(node.tag, list(node)))
_Dumper.add_representer(TaggedStr, lambda dumper, node: dumper.represent_scalar(node.tag, str(node)))


def load_yaml(text: bytes) -> Any:
    """Parse a trusted YAML document with plain tags, such as a schema.

    Parameters
    ----------
    text : bytes
        The document.

    Returns
    -------
    object
        Its tree.
    """
    return yaml.load(text, Loader=_SafeLoader)


def parse_tree(text: bytes) -> Any:
    """Parse the YAML document of an ASDF file.

    Parameters
    ----------
    text : bytes
        The document.

    Returns
    -------
    object
        Its tree. Nodes with tags are `TaggedDict`, `TaggedList` and `TaggedStr`.

    Raises
    ------
    Exception
        The document is damaged, or would fill memory or stack. YAML's constructors raise errors of many types.
    """
    # libyaml composes by recursion, and tens of thousands of levels end the process: count the levels first.
    if sum(text.count(mark) for mark in _LEVEL_MARKS) > 10 * _DEEPEST:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
    tree = yaml.load(text, Loader=_Loader)
    if _count_nodes(tree, {}) > _LARGEST_EXPANSION:
        raise ValueError(f"its aliases stand for more than {_LARGEST_EXPANSION} nodes")
    return tree


def _count_nodes(node: Any, known: dict[int, int | None]) -> int:
    """Count the nodes of a tree with each alias written out."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in known:
        known[id(node)] = None
        known[id(node)] = 1 + sum(_count_nodes(n, known) for n in (node.values() if isinstance(node, dict) else node))
    count = known[id(node)]
    if count is None:
        raise ValueError("a node contains itself")
    return count


def dump_tree(tree: Any) -> bytes:
    """Write a tree as a YAML document, with its begin and end marks.

    Parameters
    ----------
    tree : object
        Nodes that YAML has, some of them with tags.

    Returns
    -------
    bytes
        The document, in UTF-8.
    """
    out = io.BytesIO()
    yaml.dump(
        tree,
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


def map_tree(node: Any, function: Callable[[Any], Any]) -> Any:
    """Replace the nodes of a tree from the leaves up; tags and shared nodes are kept.

    Parameters
    ----------
    node : object
        The tree.
    function : callable
        Takes a node whose children are replaced already, and returns its replacement.

    Returns
    -------
    object
        The new tree; the old one stays as it is.
    """
    return _map_node(node, function, {})


def _map_node(node: Any, function: Callable[[Any], Any], seen: dict[int, Any]) -> Any:
    """Replace a node and those below; `seen` holds the replacements of shared nodes by `id`."""
    if not isinstance(node, dict | list):
        return function(node)
    if id(node) not in seen:
        result: Any = type(node)()
        if hasattr(node, "tag"):
            result.tag = node.tag
        seen[id(node)] = result
        if isinstance(node, dict):
            result.update((key, _map_node(value, function, seen)) for key, value in node.items())
        else:
            result.extend(_map_node(value, function, seen) for value in node)
        seen[id(node)] = function(result)
    return seen[id(node)]


def cut_entry(text: bytes, keys: Sequence[str]) -> bytes | None:
    """Cut one entry of nested block mappings out of a YAML document, without parsing the rest.

    A file with the solutions of a thousand exposures takes seconds to parse, and one of them is needed.

    Parameters
    ----------
    text : bytes
        A document of ASDF: its first keys are not indented, and each level below by two spaces, as PyYAML and asdf write it.
    keys : sequence of str
        The keys on the way to the entry.

    Returns
    -------
    bytes or None
        A document with the tag handles of the whole, and the entry as a mapping of its last key. `None` where there is no such
        entry in block style: the caller then parses the whole document, which may spell it in another way.
    """
    begin = text.find(b"\n---")
    head, start = text[: begin + 1], begin + 1
    for level, key in enumerate(keys):
        indent = b" " * (2 * level)
        found = re.compile(rb"\n" + indent + re.escape(key.encode()) + rb":(?=[ \n])").search(text, start - 1)
        # Only up to the key: to find the end of its mapping in each file takes longer than all the rest.
        if not found or (level and _end_of_entry(level - 1, text, start - 1, found.end())):
            return None
        start = found.start() + 1
        if level < len(keys) - 1:
            start = text.find(b"\n", start) + 1
    end = _end_of_entry(len(keys) - 1, text, start, len(text))
    return head + b"---\n" + text[start : end.start() + 1 if end else len(text)] + b"...\n"


def _end_of_entry(level: int, text: bytes, start: int, stop: int) -> re.Match[bytes] | None:
    """The end of the line before the first one that is not part of an entry.

    All that belongs to a key is indented further than the key, also what continues a text or a list in brackets. A list in
    block style may begin at the key's own indentation.
    """
    return re.compile(rb"\n {0,%d}(?![ \n-])" % (2 * level)).search(text, start, stop)
