"""The configuration's documents are what the declarations say, and the defaults are valid."""

import document_parameters
import pytest
import yaml
from small_files import SCRIPTS

from wfi import configuration, pipeline

CONFIG = SCRIPTS.parent / "config"
DOCUMENTS = document_parameters.documents()


@pytest.mark.parametrize("name", ["config.yaml", "README.md"])
def test_documents_are_what_the_declarations_say(name):
    assert (CONFIG / name).read_text() == DOCUMENTS[CONFIG / name], "run python scripts/document_parameters.py"


def test_the_configuration_is_the_defaults():
    given = yaml.safe_load((CONFIG / "config.yaml").read_text())
    assert configuration.validated(given) == configuration.validated({})


def test_every_parameter_is_in_both_documents_with_its_default_and_unit():
    given = yaml.safe_load(DOCUMENTS[CONFIG / "config.yaml"])["steps"]
    readme = DOCUMENTS[CONFIG / "README.md"]
    assert list(given) == list(pipeline.APPLIES_TO)
    for step in pipeline.steps():
        defaults = {p.name: p.default for p in step.parameters}
        if step.name not in pipeline.INDISPENSABLE:
            defaults["skip"] = False
        assert {name: given[step.name][name] for name in defaults} == defaults
        section = readme.split(f"\n### {step.name}\n")[1].split("\n### ")[0]
        for p in step.parameters:
            row = next(line for line in section.splitlines() if line.startswith(f"| `{p.name}` |"))
            assert f"| {p.unit} |" in row and p.meaning in row
        for reference in step.references:
            assert f"`{reference.type}`, {reference.meaning}" in section


def test_every_key_of_the_schema_is_in_the_configuration():
    schema, given = configuration.schema(), yaml.safe_load((CONFIG / "config.yaml").read_text())
    assert set(schema["properties"]) - {"demo"} == set(given)
    assert set(schema["properties"]["references"]["properties"]) == set(given["references"])
    for name, section in schema["properties"]["steps"]["properties"].items():
        assert set(section["properties"]) == set(given["steps"][name])
        for key, value in section["properties"].items():
            assert value["default"] == given["steps"][name][key]
