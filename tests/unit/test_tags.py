"""Tags: those in rampflow.files.tags are the installed packages' own, and no other module has any."""

import ast
import re
import subprocess
import sys

import asdf
import pytest
import yaml
from repository import ROOT

from rampflow.files import tags

SCRIPTS = ROOT / "scripts"
MODULE = SCRIPTS / "rampflow" / "files" / "tags.py"
#: The beginning of a tag or schema, or a name with a version as tags end with.
LITERAL = re.compile(r"asdf://|tag:[a-z.]+(org|edu):|[a-z0-9_]-\d+\.\d+\.\d+$")


def test_tags_are_those_of_the_installed_packages():
    run = subprocess.run([sys.executable, ROOT / "envs" / "write_tags.py"], capture_output=True, text=True, check=True)
    assert run.stdout == MODULE.read_text(), "run: python envs/write_tags.py > scripts/rampflow/files/tags.py"


def test_each_tag_is_the_newest_of_the_installed_manifests():
    resources = asdf.get_config().resource_manager
    newest = {}
    for uri in resources:
        if "/manifests/" in uri:
            for entry in yaml.load(resources[uri], Loader=yaml.CSafeLoader)["tags"]:
                name, _, version = entry["tag_uri"].rpartition("-")
                newest[name] = max(newest.get(name, (0,)), tuple(map(int, version.split("."))))
    written = [value for value in vars(tags).values() if isinstance(value, str) and re.fullmatch(r"\w+:.*-[\d.]+", value)]
    assert len(written) >= 12
    for tag in written:
        name, _, version = tag.rpartition("-")
        assert newest[name] == tuple(map(int, version.split("."))), tag
    assert tags.ROMAN_SCHEMAS + tags.CATALOG_COLUMNS in resources


def literals(path):
    """Strings of a module that look like tags, but for docstrings, with their lines."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
    docstrings = {id(node.body[0].value) for node in nodes if node.body and isinstance(node.body[0], ast.Expr)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if id(node) not in docstrings and LITERAL.search(node.value)
    ]


def test_no_other_module_has_a_tag():
    found = {path for path in SCRIPTS.rglob("*.py") if literals(path)}
    assert found == {MODULE}


def test_no_rule_has_a_tag():
    for path in [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk"), ROOT / "workflow" / "Snakefile"]:
        assert not re.search(r"asdf://|tag:stsci", path.read_text()), path


@pytest.mark.parametrize("text", ["asdf://stsci.edu/x", "tag:stsci.edu:asdf/", "tag:astropy.org:astropy/a", "ramp-2.1.0"])
def test_a_tag_in_a_module_is_found(tmp_path, text):
    (tmp_path / "module.py").write_text(f'"""See ramp-2.1.0 and {text}"""\nTAG = "{text}"\n')
    assert literals(tmp_path / "module.py") == [(2, text)]
