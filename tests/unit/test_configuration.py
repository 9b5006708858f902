"""The configuration: defaults, texts of the command line, and errors that name the key and what it takes."""

import functools
import shlex

import declarations
import jsonschema
import pytest

from rampflow.chain import STEPS
from rampflow.errors import RampflowError
from rampflow.workflow import configuration
from rampflow.workflow.configuration import command_line

schema = functools.partial(configuration.configuration_schema, declarations.steps())
validated = functools.partial(configuration.validated, steps=declarations.steps())


def refused(config):
    with pytest.raises(RampflowError) as error:
        validated(config)
    return str(error.value)


def test_an_empty_configuration_is_the_defaults():
    config = validated({})
    assert config["input"] == [] and config["results"] == "results" and config["keep_intermediates"] == ["ramp_fitting"]
    assert config["references"] == {
        "crds_context": None,
        "override": {},
        "allow_mismatch": False,
        "step_parameters": True,
    }
    assert set(config["steps"]) == set(STEPS)
    for step in declarations.steps().values():
        defaults = {"skip": False, **{p.name: p.default for p in step.parameters}}
        assert {name: config["steps"][step.name][name] for name in defaults} == defaults


def test_the_image_of_ramp_fitting_is_kept_where_a_later_job_would_read_it():
    assert validated({"job_per": "exposure"})["keep_intermediates"] == []
    assert validated({"job_per": "step", "keep_intermediates": None})["keep_intermediates"] == ["ramp_fitting"]
    assert validated({"job_per": "exposure", "keep_intermediates": ["ramp_fitting"]})["keep_intermediates"] == ["ramp_fitting"]


def test_the_data_model_is_one_that_is_known():
    assert validated({})["data_model"] == "1.1"
    for given in ("1.2", 1.2):  # the command line gives a number
        assert validated({"data_model": given})["data_model"] == "1.2"
    assert "data_model is '3.0'; it takes one of 1.1, 1.2" in refused({"data_model": "3.0"})


def test_given_values_replace_defaults():
    given = {
        "input": "raw",
        "results": "out",
        "keep_intermediates": ["linearity"],
        "references": {"override": {"flat": "f.asdf"}},
        "steps": {"ramp_fitting": {"rejection_threshold": 5}, "refpix": {"skip": True}},
    }
    config = validated(given)
    assert config["steps"]["ramp_fitting"]["rejection_threshold"] == 5
    assert config["steps"]["ramp_fitting"]["algorithm"] == "likely"
    assert config["steps"]["refpix"]["skip"] is True
    assert config["references"] == {**validated({})["references"], "override": {"flat": "f.asdf"}}
    assert (config["input"], config["results"], config["keep_intermediates"]) == ("raw", "out", ["linearity"])


def test_parameters_that_the_user_gives_are_told_from_the_file_of_defaults():
    """Only these have precedence over CRDS's parameters, even where they are equal to the default."""
    own = {"steps": {"refpix": {"skip": "false"}, "saturation": None, "linearity": {}}}
    shipped = {"steps": {"refpix": {"skip": False, "remove_trends": True}, "saturation": {"backup": 0}}}
    config = configuration.validated(shipped, declarations.steps(), own)
    assert config["given"] == {"refpix": ["skip"]}
    assert validated(own)["given"] == config["given"] and validated({})["given"] == {}


def test_command_line_texts_are_parsed():
    config = validated(
        {
            "keep_intermediates": "true",
            "input": "true",
            "steps": {
                "saturation": {"backup": "4", "n_pix_grow_sat": "1"},
                "refpix": {"remove_trends": "false", "skip": "true"},
                "ramp_fitting": {"rejection_threshold": "5.5", "algorithm": "likely"},
            },
        }
    )
    assert config["keep_intermediates"] is True and config["input"] == "true"
    assert config["steps"]["saturation"] == {"skip": False, "backup": 4, "n_pix_grow_sat": 1}
    assert config["steps"]["refpix"]["remove_trends"] is False and config["steps"]["refpix"]["skip"] is True
    assert config["steps"]["ramp_fitting"]["rejection_threshold"] == 5.5


def test_lists_and_mappings_are_parsed_from_text():
    config = validated({"keep_intermediates": "[linearity, refpix]", "steps": "{saturation: {backup: 2}}"})
    assert config["keep_intermediates"] == ["linearity", "refpix"]
    assert config["steps"]["saturation"]["backup"] == 2


@pytest.mark.parametrize("name", ["steps", "references"])
def test_empty_sections_are_defaults(name):
    assert validated({name: None}) == validated({})
    assert validated({"steps": {"saturation": None}}) == validated({})
    assert validated({"references": {"override": None}}) == validated({})


def test_the_given_configuration_is_not_changed():
    given = {"keep_intermediates": "true", "steps": {"saturation": {"backup": "4"}}}
    validated(given)
    assert given == {"keep_intermediates": "true", "steps": {"saturation": {"backup": "4"}}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": "raw"}, "unknown key 'inputs'; did you mean 'input'?"),
        ({"steps": {"saturaton": {}}}, "unknown key 'steps.saturaton'; did you mean 'saturation'?"),
        ({"steps": {"saturation": {"back_up": 1}}}, "unknown key 'steps.saturation.back_up'; did you mean 'backup'?"),
        ({"steps": {"photom": {"zzz": 1}}}, "unknown key 'steps.photom.zzz'; steps.photom takes skip"),
        ({"steps": {"dq_init": {"skip": True}}}, "unknown key 'steps.dq_init.skip'"),
        ({"steps": {"ramp_fitting": {"skip": True}}}, "unknown key 'steps.ramp_fitting.skip'"),
        ({"references": {"override": {"flatt": "x"}}}, "unknown key 'references.override.flatt'; did you mean 'flat'?"),
        ({"references": {"context": "x"}}, "unknown key 'references.context'; did you mean 'crds_context'?"),
        ({5: 1}, "unknown key '5'"),
        ({"rejection_threshold": 5}, "'rejection_threshold'; did you mean 'steps.ramp_fitting.rejection_threshold'?"),
        ({"ramp_fitting": {}}, "unknown key 'ramp_fitting'; did you mean 'steps.ramp_fitting'?"),
        ({"steps": {"linearity": {"backup": 1}}}, "'steps.linearity.backup'; did you mean 'steps.saturation.backup'?"),
        ({"skip": True}, "unknown key 'skip'; the configuration takes"),
        ({"references": {"override": {"flat:my.asdf": None}}}, "a space is missing after the colon: write 'flat: my.asdf'"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(given, message):
    assert message in refused(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": {"saturation": {"backup": 1.5}}}, "steps.saturation.backup is 1.5; it takes a whole number not below 0"),
        ({"steps": {"saturation": {"backup": "many"}}}, "steps.saturation.backup is 'many'; it takes a whole number"),
        ({"steps": {"saturation": {"backup": True}}}, "steps.saturation.backup is True; it takes a whole number"),
        ({"steps": {"saturation": {"backup": -1}}}, "steps.saturation.backup is -1; it takes a whole number not below 0"),
        (
            {"steps": {"source_catalog": {"kernel_fwhm": 60}}},
            "steps.source_catalog.kernel_fwhm is 60; it takes a number not below 0.1 and not above 50",
        ),
        ({"steps": {"saturation": {"backup": None}}}, "steps.saturation.backup is None"),
        ({"steps": {"saturation": "backup:2"}}, "a space is missing after the colon: write 'backup: 2'; it takes a mapping"),
        ({"steps": {"saturation": [1]}}, "steps.saturation is [1]; it takes a mapping of keys"),
        ({"steps": {"refpix": {"remove_trends": 1}}}, "steps.refpix.remove_trends is 1; it takes true or false"),
        ({"steps": {"refpix": {"skip": "no way"}}}, "steps.refpix.skip is 'no way'; it takes true or false"),
        ({"steps": {"ramp_fitting": {"algorithm": "x"}}}, "steps.ramp_fitting.algorithm is 'x'; it takes one of"),
        ({"keep_intermediates": ["flatt"]}, "keep_intermediates is ['flatt']; it takes true or false or a list of one of"),
        ({"keep_intermediates": 3}, "keep_intermediates is 3; it takes true or false or a list"),
        ({"input": 3}, "input is 3; it takes a text or a list of a text"),
        ({"results": ""}, "results is ''"),
        ({"references": {"override": {"flat": 3}}}, "references.override.flat is 3; it takes a text"),
        ({"references": {"crds_context": 7}}, "references.crds_context is 7; it takes a text or null"),
    ],
)
def test_a_wrong_value_is_named_with_what_the_key_takes(given, message):
    assert message in refused(given)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", ".nan", "-.inf"])
def test_numbers_that_are_not_finite_are_refused(value):
    # As on the command line: else the first job that needs it would fail.
    assert "steps.ramp_fitting.rejection_threshold" in refused({"steps": {"ramp_fitting": {"rejection_threshold": value}}})


def test_all_errors_are_listed():
    said = refused({"inputs": 1, "results": 3, "steps": {"saturation": {"backup": -1, "n_pix_grow_sat": "x"}}})
    assert len(said.splitlines()) == 4 and all(line.startswith("configuration: ") for line in said.splitlines())


def test_options_become_arguments_that_the_script_reads():
    options = validated({"steps": {"ramp_fitting": {"rejection_threshold": 1e-7, "use_ramp_jump_detection": "false"}}})
    for step in declarations.steps().values():
        given = options["steps"][step.name]
        references = [f"--{r.type}=x" for r in step.references]
        places = ["x"] * (1 + len(step.outputs))
        arguments = step.parser().parse_args([*places, *references, *shlex.split(command_line(step.parameters, given))])
        assert {p.name: getattr(arguments, p.name) for p in step.parameters} == {p.name: given[p.name] for p in step.parameters}


def test_the_json_schema_is_valid():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema() is not schema()
