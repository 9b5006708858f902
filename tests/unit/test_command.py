"""The command lines that `rampflow` writes, and the files and folders that it chooses."""

import os

import pytest
import yaml
from repository import ROOT, with_commented_keys

from rampflow.chain import STEPS
from rampflow.command import main, runs
from rampflow.command.caches import find_cache_folder
from rampflow.command.runs import snakemake_command
from rampflow.command.settings import SCHEMA, commented_configuration
from rampflow.errors import RampflowError

DEFAULTS = (ROOT / "config" / "config.yaml").read_text()


@pytest.fixture(autouse=True)
def no_profile(monkeypatch):
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)


def words_of(*words, target=""):
    """Words that follow the name of the Snakefile."""
    command = snakemake_command(target, words)
    assert command[1:5] == ["-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
    return command[5:]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a.json"], ["--cores", "all", "--config", 'input=["a.json"]']),
        (["a b", "c", "-n", "-c8"], ["-n", "-c8", "--config", 'input=["a b", "c"]']),
        (["a", "--results", "R", "--cores=2"], ["--cores=2", "--config", 'input=["a"]', "results=R"]),
        (
            ["a", "--cores", "2", "--config", "x=1", "y=2", "--forcerun", "photom"],
            ["--cores", "2", "--forcerun", "photom", "--config", 'input=["a"]', "x=1", "y=2"],
        ),
        (["-j", "3", "--configfile", "my.yaml"], ["-j", "3", "--configfile", "my.yaml"]),
        (["--conf", "x"], ["--conf", "x", "--cores", "all"]),
    ],
)
def test_options_of_snakemake_pass_through(given, expected):
    assert words_of(*given) == expected


def test_a_target_comes_before_the_options():
    assert words_of("a", "-n", target="report")[0] == "report"


def test_inputs_are_read_as_they_were_given():
    (word,) = (word for word in words_of('a "b".asdf', "c,d") if word.startswith("input="))
    assert yaml.safe_load(word.removeprefix("input=")) == ['a "b".asdf', "c,d"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", "--config", "input=b"], "input is given as input, too"),
        (["a", "--results", "r", "--config", "results=s"], "results is given as --results, too"),
        (["--config", "x=1", "x=2"], "x is given as --config, too"),
        (["--config", "a.json"], "'a.json' is not KEY=VALUE; inputs come before all options"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(given, message, capsys):
    with pytest.raises(RampflowError, match=message):
        snakemake_command("", given)
    assert main(["run", *given]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "late"),
    [
        (["--cores", "2", "a_asn.json"], "a_asn.json"),
        (["--configfile", "my.yaml", "a_asn.json"], "a_asn.json"),
        (["--results", "R", "L1"], "L1"),
        (["-n", "s3://raw/l1/"], "s3://raw/l1/"),
        (["--forcerun", "L1/x_uncal.asdf"], "L1/x_uncal.asdf"),
    ],
)
def test_inputs_after_an_option_are_refused(given, late, tmp_path, monkeypatch):
    """Snakemake would take them for targets, or for configuration files."""
    (tmp_path / "L1").mkdir()
    (tmp_path / "L1" / "x_uncal.asdf").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RampflowError, match=f"^{late}: follows an option; write inputs first: rampflow report {late} --cores 8$"
    ):
        snakemake_command("report", given)
    for value in (
        ["--directory", "L1"],
        ["--conda-prefix", "L1"],
        ["--default-storage-prefix", "s3://b"],
        ["-n", "remove_stale"],
    ):
        assert words_of("a_asn.json", *value)[:2] == value


@pytest.fixture
def started(monkeypatch):
    """Command lines of the processes that would be started."""
    lines = []
    monkeypatch.setattr(runs.os, "execve", lambda program, command, environment: lines.append(command))
    return lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "a.json", "--bogus"], "rampflow run: error: unrecognized arguments: --bogus"),
        (["report", "--cores", "2", "--boguss=3"], "rampflow report: error: unrecognized arguments: --boguss=3"),
        (["run", "a.json", "--cores"], "rampflow run: error: argument --cores/-c: expected one argument"),
        (["run", "--cores", "--dry-run"], "rampflow run: error: argument --cores/-c: expected one argument"),
    ],
)
def test_the_usage_of_a_wrong_option_is_that_of_the_command(words, message, started, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and not started
    assert said.startswith(f"usage: rampflow {words[0]} [-h]") and message in said
    assert "--help` lists" in said and len(said.splitlines()) <= 4


def test_options_of_snakemake_start_a_run(started):
    given = [
        "a.json",
        "--cores",
        "2",
        "-n",
        "--seconds-between-status-checks",
        "9",
        "--config",
        "x=-1",
        "--rerun-triggers",
        "mtime",
    ]
    assert main(["run", *given]) is None
    assert main(["affected", "a.json"]) is None
    assert started == [snakemake_command("", given), snakemake_command("affected", ["a.json"])]


def test_the_help_is_found_after_other_words(started, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "a.json", "--dry-run", "--help"])
    assert ended.value.code == 0 and not started
    assert capsys.readouterr().out.startswith("usage: rampflow run")


def test_a_survey_of_a_folder_that_does_not_exist_is_refused_and_nothing_is_made(tmp_path, monkeypatch, started, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["survey", "--results", "nowhere"]) == 1
    expected = "rampflow survey: --results: the folder nowhere does not exist; name the folder of the products\n"
    assert capsys.readouterr().err == expected and not started and not list(tmp_path.iterdir())
    # Of these, the workflow knows the folder.
    for words in (["--results", "s3://b/r/"], ["--results", "r", "--directory", "d"], ["--config", "results=r"], []):
        main(["survey", *words])
    (tmp_path / "r").mkdir()
    main(["survey", "--results", "r"])
    assert len(started) == 5


def test_a_profile_of_the_package_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = str(ROOT / "workflow" / "profiles" / "slurm")
    assert words_of("--workflow-profile", "slurm") == ["--workflow-profile", own]
    assert words_of("--workflow-profile=slurm") == [f"--workflow-profile={own}"]
    assert words_of("--workflow-profile", "none") == ["--workflow-profile", "none"]
    assert words_of("--workflow-profile", "my/slurm") == ["--workflow-profile", "my/slurm"]
    (tmp_path / "slurm").mkdir()
    assert words_of("--workflow-profile", "slurm") == ["--workflow-profile", "slurm"]


def test_caches_go_to_the_working_folder_where_the_home_folder_is_of_no_use(tmp_path):
    home, working = tmp_path / "home", tmp_path / "working"
    home.mkdir()
    assert find_cache_folder({"XDG_CACHE_HOME": str(home)}, working) is None
    assert find_cache_folder({"XDG_CACHE_HOME": str(home / "a" / "b")}, working) is None
    (home / "file").write_text("")
    assert find_cache_folder({"XDG_CACHE_HOME": str(home / "file" / "b")}, working) == working / ".rampflow" / "cache"
    assert find_cache_folder({"XDG_CACHE_HOME": "/dev/null/x"}, working) == working / ".rampflow" / "cache"
    assert find_cache_folder({"XDG_CACHE_HOME": "~/.cache"}, working) == working / ".rampflow" / "cache"


def test_the_commented_configuration_has_every_key():
    text = commented_configuration(DEFAULTS, "my.yaml")
    assert yaml.safe_load(text) == {"results": "results"} and "begin steps" not in text and "# begin steps" in DEFAULTS
    assert f"$schema={SCHEMA}" in text and SCHEMA.is_file()
    body = text.partition("\n\n")[2]
    found = yaml.safe_load(with_commented_keys(body))
    assert found == yaml.safe_load(with_commented_keys(DEFAULTS)) and list(found["steps"]) == list(STEPS)


def test_a_configuration_is_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["config", "my.yaml"]) == 0
    before = os.stat("my.yaml").st_mtime_ns
    assert main(["config", "my.yaml"]) == 1
    assert capsys.readouterr().err == "rampflow config: my.yaml exists; give another name, or remove it first\n"
    assert os.stat("my.yaml").st_mtime_ns == before


def test_unknown_commands_are_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["proces"])
    assert ended.value.code == 2
    assert "invalid choice: 'proces'" in capsys.readouterr().err
