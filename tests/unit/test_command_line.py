"""The targets and the options ``--config`` and ``--configfile`` on the command line of a run."""

import shlex

import pytest

from rampflow.errors import RampflowError
from rampflow.workflow.command_line import (
    given_configurations,
    is_dry_run,
    possible_targets,
    refuse_lost_keys,
    refuse_repeated_keys,
)


def test_values_of_options_are_no_targets():
    def found(words):
        return possible_targets(shlex.split(words))

    assert found("a --cores all -n b --config input=x report --keep-going c --directory survey d") == ["a", "b", "c", "d"]
    assert found("--cores=2 --config=input=x results=y -k report") == ["report"]


def test_the_words_of_each_option_are_found():
    words = shlex.split("snakemake --config input=x results=y --cores 2 report -C a=b --config=c=d -k")
    assert given_configurations(words) == [["input=x", "results=y"], ["a=b"], ["c=d"]]
    assert given_configurations(["snakemake", "report"]) == []


def test_a_second_option_that_replaces_keys_of_the_first_is_refused():
    given = "--config input=x steps='{refpix: {skip: true}}' --cores 2 --config results=y"
    with pytest.raises(RampflowError) as error:
        refuse_lost_keys(shlex.split(given))
    said = str(error.value)
    assert "--config is given 2 times" in said and "input, steps would be ignored" in said
    assert said.endswith("--config input=x 'steps={refpix: {skip: true}}' results=y")


@pytest.mark.parametrize("given", ["", "--config input=x", "--config input=x --cores 2 --config input=y results=z"])
def test_options_that_lose_nothing_are_accepted(given):
    refuse_lost_keys(shlex.split(given))


REPEATED = """\
steps:
  refpix: {skip: true}
results: out
steps:
  linearity: {skip: true}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (REPEATED, "my.yaml: the key 'steps' is in line 1 and again in line 4"),
        ("steps: {refpix: {skip: true, skip: false}}\n", "my.yaml: the key 'skip' is in line 1 and again in line 1"),
        (
            "overrides:\n- steps:\n    refpix: {}\n    refpix: {skip: true}\n",
            "the key 'refpix' is in line 3 and again in line 4",
        ),
    ],
)
def test_a_key_that_a_section_has_twice_is_refused(text, expected, tmp_path, monkeypatch):
    (tmp_path / "my.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    for given in ("--configfile my.yaml --cores 1", "-k --configfile=my.yaml", "--configfiles absent my.yaml"):
        with pytest.raises(RampflowError) as error:
            refuse_repeated_keys(given.split())
        assert expected in str(error.value)
    refuse_repeated_keys(["--config", "my.yaml"])
    # --directory changes the working folder, and the name is relative to the one before.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PWD", str(tmp_path))
    with pytest.raises(RampflowError):
        refuse_repeated_keys(["--configfile", "my.yaml", "--directory", "elsewhere"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "steps: [",
        "a: &a {skip: true}\nb: *a\nc: *a\n",
        "a: &a [*a]\n",
        "steps:\n  refpix: {skip: true}\n  photom: {skip: true}\n",
        "overrides:\n- {select: {pass: 1}}\n- {select: {pass: 2}}\n",
    ],
)
def test_keys_of_different_sections_and_files_that_yaml_refuses_are_accepted(text, tmp_path):
    (tmp_path / "my.yaml").write_text(text)
    refuse_repeated_keys(["--configfile", str(tmp_path / "my.yaml"), str(tmp_path), str(tmp_path / "absent.yaml")])


@pytest.mark.parametrize("words", ["-n", "--dry-run", "report --dryrun --cores 2", "-np", "-Fn", "--unlock"])
def test_a_dry_run_is_known(words):
    assert is_dry_run(words.split())


@pytest.mark.parametrize("words", ["", "--cores 2 report", "-F", "--notemp", "-c 2 --nolock", "--config input=n"])
def test_a_run_is_no_dry_run(words):
    assert not is_dry_run(words.split())
