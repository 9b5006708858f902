"""Fingerprint of the code of a script: an edited step runs again, and a changed comment or docstring does not.

The fingerprint hashes the syntax tree of the script and of all modules of this project that it imports, directly or not.
Comments, docstrings, layout and the version number are left out.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rampflow.folders import LIBRARY, SCRIPTS

#: Fields of a syntax node that do not change what it does.
_WORDLESS = frozenset({"ctx", "kind", "type_comment", "type_params"})
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Code(NamedTuple):
    """One file of code: a hash of its syntax tree, and the names of what it may import."""

    digest: str
    imports: tuple[str, ...]


def _is_docstring_or_version(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring or the version number."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    return isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == ["__version__"]


def spell_out(node: ast.AST) -> str:
    """Write a syntax tree as text, without docstrings and positions.

    `ast.dump` does not serve: which fields of a node it writes depends on the version of Python.

    Parameters
    ----------
    node : ast.AST
        Root of the tree.

    Returns
    -------
    str
        The text, the same for every version of Python.
    """
    pieces: list[str] = []

    def _add(value, name=""):
        if isinstance(value, ast.AST):
            pieces.append(f"{name}{type(value).__name__}(")
            for field in value._fields:
                content = getattr(value, field, None)
                if content is None and not (field == "value" and isinstance(value, ast.Constant)):
                    continue
                if content == [] or field in _WORDLESS:
                    continue
                if field == "body" and isinstance(value, _WITH_DOCSTRING):
                    content = [statement for statement in content if not _is_docstring_or_version(statement)]
                _add(content, f"{field}=")
            pieces.append(")")
        elif isinstance(value, list):
            pieces.append(f"{name}[")
            for item in value:
                _add(item)
            pieces.append("]")
        else:
            pieces.append(f"{name}{value!r},")

    _add(node)
    return "".join(pieces)


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the dotted names that a module imports. A name may be a module, or an object in one.

    Parameters
    ----------
    tree : ast.AST
        Syntax tree of the module.
    package : str
        Package of the module, for relative imports; empty for a script.

    Yields
    ------
    str
        Dotted name.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def _root(scripts: Path) -> Path:
    """Folder that has the library: that of the scripts in a clone, another one in the installed package."""
    return scripts if (scripts / LIBRARY.name).is_dir() else LIBRARY.parent


def _relative(path: Path, scripts: Path) -> Path:
    """Path of a file as in a clone, so that the package has the fingerprints of the clone."""
    return path.relative_to(scripts if path.is_relative_to(scripts) else _root(scripts))


@functools.cache
def read_code(path: Path, scripts: Path) -> Code:
    """Parse one file.

    Parameters
    ----------
    path : pathlib.Path
        File to parse.
    scripts : pathlib.Path
        Folder of the scripts.

    Returns
    -------
    Code
        Hash and imports of the file.
    """
    tree = ast.parse(path.read_bytes())
    package = ".".join(_relative(path, scripts).parent.parts)
    text = spell_out(tree)
    return Code(hashlib.sha256(text.encode()).hexdigest(), tuple(sorted(set(imported(tree, package)))))


def files_of(name: str, scripts: Path = SCRIPTS) -> list[Path]:
    """List the files with the code of a script: itself, and all that it imports of this project.

    Parameters
    ----------
    name : str
        Name of the script, without ``.py``.
    scripts : pathlib.Path
        Folder of the scripts.

    Returns
    -------
    list of pathlib.Path
        Sorted files.
    """
    found, waiting = set(), [scripts / f"{name}.py"]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            for module in read_code(path, scripts).imports:
                waiting += _files_of_module(module, scripts)
    return sorted(found)


@functools.cache
def _files_of_module(name: str, scripts: Path) -> tuple[Path, ...]:
    """The file of a module and those of the packages that contain it; none for a module of another project."""
    files: list[Path] = []
    place = _root(scripts) if name.partition(".")[0] == LIBRARY.name else scripts
    for part in name.split("."):
        place = place / part
        files += [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
    return tuple(files)


@functools.cache
def fingerprint(name: str, scripts: Path = SCRIPTS) -> str:
    """Hash the code of a script.

    Parameters
    ----------
    name : str
        Name of the script, without ``.py``.
    scripts : pathlib.Path
        Folder of the scripts.

    Returns
    -------
    str
        Hash of 16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(files_of(name, scripts), key=lambda path: _relative(path, scripts)):
        digest.update(f"{_relative(path, scripts)} {read_code(path, scripts).digest}\n".encode())
    return digest.hexdigest()[:16]
