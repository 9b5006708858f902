"""The generated documents match the declarations, and the defaults are valid."""

import configparser
import functools
import importlib
import re
import subprocess

import declarations
import document_parameters
import pytest
import yaml
from repository import with_commented_keys
from small_files import SCRIPTS

from rampflow.chain import STEPS
from rampflow.errors import RampflowError
from rampflow.version import RELEASE
from rampflow.workflow import configuration

CONFIG = SCRIPTS.parent / "config"
DOCUMENTS = document_parameters.documents()
validated = functools.partial(configuration.validated, steps=declarations.steps())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_generated_documents_match_the_declarations(path):
    assert path.read_text() == DOCUMENTS[path], "run python scripts/document_parameters.py"


@pytest.mark.parametrize("text", ["", "begin a", "end a\nbegin a\n", "begin a\nbegin a\nend a"])
def test_a_document_without_a_place_for_a_generated_part_is_refused(tmp_path, text):
    document = tmp_path / "page.md"
    document.write_text(text)
    with pytest.raises(RampflowError, match="begin a"):
        document_parameters.replace_parts(document, {"a": "new\n"})
    document.write_text("above\n# begin a\nold\n# end a\nbelow\n")
    assert document_parameters.replace_parts(document, {"a": "new\n"}) == "above\n# begin a\nnew\n# end a\nbelow\n"


def test_config_yaml_holds_the_defaults():
    text = (CONFIG / "config.yaml").read_text()
    given = yaml.safe_load(with_commented_keys(text))
    assert validated(given, given={}) == validated({})
    # As the configuration of a deployed workflow, it leaves the parameters of the steps to CRDS.
    active = yaml.safe_load(text)
    assert active == {key: value for key, value in given.items() if key != "steps"}
    assert validated(active) == validated({})


def test_every_parameter_is_in_both_documents_with_its_default_and_unit():
    given = yaml.safe_load(with_commented_keys(DOCUMENTS[CONFIG / "config.yaml"]))["steps"]
    readme = DOCUMENTS[CONFIG / "README.md"]
    assert list(given) == list(STEPS)
    for step in declarations.steps().values():
        defaults = {p.name: p.default for p in step.parameters}
        if STEPS[step.name].optional:
            defaults["skip"] = False
        assert {name: given[step.name][name] for name in defaults} == defaults
        section = readme.split(f"\n### {step.name}\n")[1].split("\n### ")[0]
        for p in step.parameters:
            row = next(line for line in section.splitlines() if line.startswith(f"| `{p.name}` |"))
            assert f"| {p.unit} |" in row and p.meaning in row
        for reference in step.references:
            assert f"| `{reference.type}` | {reference.meaning} |" in section


def test_every_key_of_the_schema_is_in_the_configuration():
    schema = configuration.configuration_schema(declarations.steps())
    given = yaml.safe_load(with_commented_keys((CONFIG / "config.yaml").read_text()))
    assert set(schema["properties"]) - {"demo"} == set(given)
    assert set(schema["properties"]["references"]["properties"]) == set(given["references"])
    for name, section in schema["properties"]["steps"]["properties"].items():
        assert set(section["properties"]) == set(given["steps"][name])
        for key, value in section["properties"].items():
            assert value["default"] == given["steps"][name][key]


def test_algorithms_page_has_every_step_and_its_functions():
    """A section for each step, in the order of the chain; each function that it names exists and documents its parameters."""
    text = (CONFIG.parent / "docs" / "algorithms.md").read_text()
    sections = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in sections] == [*STEPS, "finalize"]
    for name, section in sections:
        first = re.search(r"Functions?: (.*?)\n\n", section, re.DOTALL)[1]
        functions = [f for f in re.findall(r"`([\w.]+)`", first) if "." in f]
        assert functions or name == "tweakreg"
        for function in functions:
            module, _, attribute = function.rpartition(".")
            assert "Parameters\n" in getattr(importlib.import_module(module), attribute).__doc__ or name == "source_catalog"
        assert name == "finalize" or f"(../config/README.md#{name})" in section


@pytest.mark.parametrize("step", STEPS)
def test_a_step_has_its_script_and_its_tests(step):
    """README.md and CONTRIBUTING.md name them by the step."""
    assert (SCRIPTS / f"{step}.py").is_file()
    assert (CONFIG.parent / "tests" / "steps" / f"test_{step}.py").is_file()


def test_the_repository_has_no_built_files():
    """What .gitignore names is made on each machine; a copy in the repository goes out of date."""
    listed = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    found = subprocess.run(listed, cwd=CONFIG.parent, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not in a git repository")
    assert found.stdout == ""


def test_the_layers_of_the_architecture_page_are_those_that_are_checked():
    contracts = configparser.ConfigParser()
    contracts.read(CONFIG.parent / ".importlinter")
    lines = contracts["importlinter:contract:layers"]["layers"].split("\n")
    page = (CONFIG.parent / "docs" / "architecture.md").read_text()
    cells = re.findall(r"^\| ((?:`rampflow\.\w+`(?:, )?)+) \|", page, re.MULTILINE)
    layers = [set(re.findall(r"rampflow\.(\w+)", cell)) for cell in cells]
    assert layers == [set(line.split(" | ")) for line in lines if line]


def test_the_tests_that_documents_name_exist():
    tests = CONFIG.parent / "tests"
    defined = set(re.findall(r"^def (test_\w+)\(", "".join(p.read_text() for p in tests.rglob("test_*.py")), re.MULTILINE))
    pages = [CONFIG.parent / "CONTRIBUTING.md", tests / "README.md", *(CONFIG.parent / "docs").rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert len(named) > 50
    assert named <= defined


def test_configurations_that_reproduce_romancal_are_valid():
    text = (CONFIG.parent / "docs" / "from-romancal.md").read_text()
    (given,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    given = yaml.safe_load(given)
    assert validated(given) != validated({})
    for step, options in given["steps"].items():
        declared = configuration.parameters_of(declarations.steps()[step])
        assert set(options) <= {parameter.name for parameter in declared if not parameter.in_romancal}


def test_the_citation_is_complete():
    citation = yaml.safe_load((CONFIG.parent / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == RELEASE
    assert citation["license"] == "BSD-3-Clause" and (CONFIG.parent / "LICENSE").read_text().startswith("BSD 3-Clause")
    for reference in citation["references"]:
        assert reference["doi"] in (CONFIG.parent / "docs" / "algorithms.md").read_text()


def test_the_workflow_catalog_entry_is_complete():
    usage = yaml.safe_load((CONFIG.parent / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["mandatory-flags"]["desc"] and usage["mandatory-flags"]["flags"].startswith("--config input=")
    assert usage["software-stack-deployment"]["conda"] is True
    assert usage["report"] is usage["software-stack-deployment"]["report"] is True
