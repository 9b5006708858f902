"""The targets and the option ``--config`` on the command line of a run."""

import shlex

import pytest

from rampflow.errors import RampflowError
from rampflow.workflow.command_line import given_configurations, possible_targets, refuse_lost_keys


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
