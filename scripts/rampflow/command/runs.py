"""Runs of Snakemake and of scripts: their command lines."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rampflow import command_line
from rampflow.command.caches import find_cache_folder
from rampflow.command.parser import add_settings
from rampflow.errors import RampflowError
from rampflow.folders import HOME, SCRIPTS, SNAKEFILE, WORKFLOW
from rampflow.remote.addresses import is_remote

if TYPE_CHECKING:
    from rampflow.command.parser import Subcommand

#: Options of snakemake that say how many jobs run at a time, or name a profile that does.
PARALLEL = ("-c", "--cores", "-j", "--jobs", "-e", "--executor", "--profile", "--workflow-profile")
#: Options of snakemake without a value, and with one or more, that are not worth the second that its parser takes to import.
FLAGS = ("-n", "--dry-run", "-k", "--keep-going", "-F", "--forceall", "--notemp", "--nt", "-p", "--unlock")
WITH_ONE_VALUE = (*PARALLEL, "-d", "--directory")
WITH_VALUE = (*WITH_ONE_VALUE, "--configfile", "-R", "--forcerun", "-U", "--until", "--resources")
#: Where the demonstration finds references: its own cache, and no server.
DEMO_CRDS = {
    "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu",
    "CRDS_OBSERVATORY": "roman",
}


def snakemake_command(target: str, words: Sequence[str]) -> list[str]:
    """Write the command line of a run.

    Parameters
    ----------
    target : str
        Target of the workflow; empty for all products.
    words : sequence of str
        Inputs, then ``--results``, ``--config`` and options of snakemake.

    Returns
    -------
    list of str
        The command line.

    Raises
    ------
    RampflowError
        A key of the configuration is given twice, or without a value, or an input follows an option.
    """
    first_option = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
    inputs, rest = list(words[:first_option]), list(words[first_option:])
    given, options = _read_settings(rest)
    named = [("input", json.dumps(inputs), "input")] * bool(inputs)
    named += [("results", given.results, "--results")] * (given.results is not None)
    config = [f"{key}={value}" for key, value, _ in named]
    places = {key: place for key, _, place in named}
    for word in given.config:
        key, equals, _ = word.partition("=")
        if not equals:
            raise RampflowError(f"--config: {word!r} is not KEY=VALUE; inputs come before all options")
        if key in places:
            raise RampflowError(f"--config {key} is given as {places[key]}, too; take one of them out")
        places[key] = "--config"
        config.append(word)
    refuse_late_inputs(options, target or "run")
    if not any(_is_option(word, PARALLEL) for word in options) and "SNAKEMAKE_PROFILE" not in os.environ:
        options += ["--cores", "all"]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), *([target] if target else [])]
    return [*command, *with_own_profile(options), *(["--config", *config] if config else [])]


def _read_settings(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options that become keys of the configuration, and the other words."""
    reader = argparse.ArgumentParser(prog="rampflow", add_help=False, allow_abbrev=False)
    add_settings(reader)
    return reader.parse_known_args(words)


def refuse_late_inputs(options: Sequence[str], name: str) -> None:
    """Refuse an input that follows an option. Snakemake would take it for a target, or for one more value of the option.

    Parameters
    ----------
    options : sequence of str
        Options of snakemake.
    name : str
        Name of the subcommand.

    Raises
    ------
    RampflowError
        There is such an input.
    """
    for before, word in zip(["", *options], options, strict=False):
        if word.startswith("-") or before in WITH_ONE_VALUE:
            continue
        is_raw = word.endswith("_uncal.asdf") and Path(word).exists()
        is_value = before.startswith("-") and before not in FLAGS  # of an option
        is_place = not is_value and (is_remote(word) or Path(word).is_dir())
        if word.endswith("_asn.json") or is_raw or is_place:
            raise RampflowError(f"{word}: follows an option; write inputs first: rampflow {name} {word} --cores 8")


def refuse_absent_results(words: Sequence[str]) -> None:
    """Refuse a folder of ``--results`` that does not exist, for a command that only reads it.

    The workflow refuses it, too, after some seconds, when Snakemake has made its own folder. It also knows folders of the
    configuration, and relative ones with ``--directory``.

    Parameters
    ----------
    words : sequence of str
        Arguments of the command.

    Raises
    ------
    RampflowError
        There is no such folder.
    """
    given, options = _read_settings(words)
    elsewhere = any(_is_option(word, ("-d", "--directory")) for word in options)
    if given.results is None or is_remote(given.results) or elsewhere or Path(given.results).expanduser().is_dir():
        return
    raise RampflowError(f"--results: the folder {given.results} does not exist; name the folder of the products")


def refuse_unknown_options(command: Subcommand, words: Sequence[str]) -> None:
    """End with the usage of the subcommand where snakemake would refuse the options, and show its own usage of 100 lines.

    Parameters
    ----------
    command : Subcommand
        The subcommand.
    words : sequence of str
        Command line of `snakemake_command`, without ``python -m snakemake``.
    """
    if all(_is_common(word, following) for word, following in zip(words, [*words[1:], "-"], strict=True)):
        return
    from snakemake.cli import get_argument_parser  # takes a second

    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages), contextlib.redirect_stdout(io.StringIO()):
            get_argument_parser().parse_args(list(words))
    except SystemExit as ended:
        if ended.code:
            reason = messages.getvalue().strip().rpartition("error: ")[2]
            command.parser().error(f"{reason} (`snakemake --help` lists the options of snakemake)")


def _is_common(word: str, following: str) -> bool:
    """Whether a word is a value, or an option that is known without snakemake's parser, with its value where it takes one."""
    if not word.startswith("-") or word in FLAGS:
        return True
    name, equals, value = word.partition("=")
    return name in (*WITH_VALUE, "--snakefile", "--config") and bool(value if equals else not following.startswith("-"))


def _is_option(word: str, names: Sequence[str]) -> bool:
    """Whether a word is one of some options, with or without its value: ``-c``, ``-c8``, ``--cores=8``."""
    return any(word.partition("=")[0] == name or (len(name) == 2 and word.startswith(name)) for name in names)


def with_own_profile(options: Sequence[str]) -> list[str]:
    """Put the folder of a profile of the package in place of its name.

    Parameters
    ----------
    options : sequence of str
        Options of snakemake.

    Returns
    -------
    list of str
        The options. A profile of the user with this name has precedence.
    """
    result = list(options)
    for number, word in enumerate(result):
        option, equals, value = word.partition("=")
        if option == "--workflow-profile":
            place = number if equals else number + 1
            value = value if equals or place >= len(result) else result[place]
            own = WORKFLOW / "profiles" / value
            if value and Path(value).name == value and not Path(value).exists() and own.is_dir():
                result[place] = f"{option}={own}" if equals else str(own)
    return result


def _environment() -> dict[str, str]:
    """The environment of what is started: that of this process, with a folder for caches that can be written."""
    environment = dict(os.environ)
    if folder := find_cache_folder(environment, Path.cwd()):
        environment["XDG_CACHE_HOME"] = str(folder)
        print(f"rampflow: the folder for caches in HOME can't be written, {folder} is used instead", file=sys.stderr)
    return environment


def _become(command: Sequence[str]) -> NoReturn:
    """Replace this process, so that signals and the exit status are those of the program."""
    sys.stdout.flush()
    os.execve(command[0], list(command), _environment())


def become_script(name: str, words: Sequence[str], program: str | None = None) -> NoReturn:
    """Replace this process by a script.

    Parameters
    ----------
    name : str
        Name of the script, without ``.py``.
    words : sequence of str
        Its arguments.
    program : str, optional
        Command that the help of the script names, such as ``rampflow view``; by default the script.
    """
    if program:
        os.environ[command_line.VARIABLE] = program
    _become([sys.executable, str(SCRIPTS / f"{name}.py"), *words])


def run(command: Subcommand, words: list[str]) -> int:
    """Process exposures, or make another target of the workflow.

    Parameters
    ----------
    command : Subcommand
        ``run``, or the subcommand with the name of the target.
    words : list of str
        Its arguments.

    Returns
    -------
    int
        Exit status.
    """
    if {*words} & {"-h", "--help"}:
        command.parser().parse_args(["--help"])
    if command.name == "survey":
        refuse_absent_results(words)
    line = snakemake_command("" if command.name == "run" else command.name, words)
    refuse_unknown_options(command, line[3:])
    _become(line)


def demo(command: Subcommand, words: list[str]) -> int:
    """Simulate a visit and process it.

    Parameters
    ----------
    command : Subcommand
        The subcommand.
    words : list of str
        Its arguments.

    Returns
    -------
    int
        Exit status.
    """
    arguments = command.parser().parse_args(words)
    # A context or a mode of CRDS for real exposures is none of this cache.
    environment = {name: value for name, value in _environment().items() if not name.startswith("CRDS_")}
    environment |= DEMO_CRDS | {"CRDS_PATH": str(Path("demo/crds_cache").absolute())}
    snakemake, options = [sys.executable, "-m", "snakemake"], ["--configfile", str(HOME / "config" / "demo.yaml")]
    options += ["--cores", arguments.cores]
    simulation = ["--snakefile", str(WORKFLOW / "simulate.smk"), "--quiet", "progress", "rules", "host"]
    lines = [
        [*snakemake, *simulation, *options],
        [*snakemake, "--snakefile", str(SNAKEFILE), *(["report"] if arguments.report else []), *options],
        [sys.executable, str(SCRIPTS / "show_products.py"), "demo/results"],
    ]
    for line in lines:
        if status := subprocess.run(line, env=environment, check=False).returncode:
            return status
    return 0
