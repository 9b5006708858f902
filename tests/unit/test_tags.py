"""Tags: those in rampflow.files.tags are the installed packages' own, and no other module has any."""

import ast
import json
import re
import subprocess
import sys

import asdf
import pytest
import yaml
from repository import ROOT

from rampflow.files import models, tags
from rampflow.files.newer_schemas import SCHEMAS

SCRIPTS = ROOT / "scripts"
MODULE = SCRIPTS / "rampflow" / "files" / "tags.py"
#: The beginning of a tag or schema, or a name with a version as tags end with.
LITERAL = re.compile(r"asdf://|tag:[a-z.]+(org|edu):|[a-z0-9_]-\d+\.\d+\.\d+$")


@pytest.fixture(scope="module")
def installed():
    """What the generator finds in the installed packages."""
    run = subprocess.run(
        [sys.executable, ROOT / "envs" / "write_tags.py", "describe"], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


@pytest.mark.slow
def test_tags_are_those_of_the_installed_packages(installed):
    known = tags.DATA_MODELS.get(installed["data_model"])
    assert known == installed["models"], f"the data model {installed['data_model']} has changed or is new: run make lock"
    is_default = installed["data_model"] == tags.DEFAULT_DATA_MODEL
    for name, (_, value) in installed["constants"].items():
        written = getattr(tags, name)
        if is_default or name != "CATALOG_COLUMNS":  # the columns of a catalog are those of the default data model
            assert written == (tuple(value) if isinstance(value, list) else value), name
    assert set(installed["raw_tags"]) <= set(tags.RAW_TAGS)
    for name, version in installed["references"].items():
        assert tuple(map(int, version.split("."))) <= tuple(map(int, tags.REFERENCE_VERSIONS[name].split("."))), name


def test_each_tag_is_in_the_installed_manifests():
    resources = asdf.get_config().resource_manager
    known = set()
    for uri in resources:
        if "/manifests/" in uri:
            known |= {entry["tag_uri"] for entry in yaml.load(resources[uri], Loader=yaml.CSafeLoader).get("tags", ())}
    written = [value for value in vars(tags).values() if isinstance(value, str) and re.fullmatch(r"\w+:.*-[\d.]+", value)]
    written += tags.DATA_MODELS[tags.DEFAULT_DATA_MODEL].values()
    assert len(written) >= 11
    assert set(written) <= known
    assert tags.ROMAN_SCHEMAS + tags.CATALOG_COLUMNS in resources


def test_newer_schemas_are_those_of_the_data_models(installed):
    """Where the installed rad has them, as in `make test-next`; elsewhere they fit those that it has."""
    for name, text in SCHEMAS.items():
        uri = tags.ROMAN_SCHEMAS + name
        assert json.loads(text)["id"] == uri
        assert installed["schemas"].get(uri) in (None, json.loads(text)), name
    for version, kinds in tags.DATA_MODELS.items():
        for tag in kinds.values():
            assert "meta" in models.read_schema(tag.removeprefix(tags.ROMAN_PREFIX))["properties"], (version, tag)


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
    assert found == {MODULE, MODULE.with_name("newer_schemas.py")}


def test_no_rule_has_a_tag():
    for path in [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk"), ROOT / "workflow" / "Snakefile"]:
        assert not re.search(r"asdf://|tag:stsci", path.read_text()), path


@pytest.mark.parametrize("text", ["asdf://stsci.edu/x", "tag:stsci.edu:asdf/", "tag:astropy.org:astropy/a", "ramp-2.1.0"])
def test_a_tag_in_a_module_is_found(tmp_path, text):
    (tmp_path / "module.py").write_text(f'"""See ramp-2.1.0 and {text}"""\nTAG = "{text}"\n')
    assert literals(tmp_path / "module.py") == [(2, text)]
