"""The subcommands of ``rampflow``: name, options and what each starts."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from rampflow.folders import SCRIPTS

#: How shtab completes an argument that is a file, in each shell.
FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


class Command(NamedTuple):
    """A subcommand.

    Attributes
    ----------
    summary : str
        What it does, one line.
    place : str
        Script that has its own command line; or module of `rampflow.command` and function in it, ``runs.run``. The function
        takes the subcommand and its arguments, and returns the exit status.
    options : callable or None
        Adds the options to a parser; None for a script.
    """

    summary: str
    place: str
    options: Callable[[argparse.ArgumentParser], None] | None = None


def _add_files(parser: argparse.ArgumentParser, name: str, **settings: Any) -> None:
    """Add an argument that shells complete with names of files."""
    vars(parser.add_argument(name, **settings))["complete"] = FILE


def _run_options(parser: argparse.ArgumentParser) -> None:
    inputs = "raw files, folders of raw files or association files; before all options"
    _add_files(parser, "input", metavar="INPUT", nargs="*", help=inputs)
    add_settings(parser)
    parser.epilog = (
        "All other options are those of snakemake, such as --cores 8, --dry-run, --configfile my.yaml, --directory DIR. "
        "Without --cores, all cores are used. --workflow-profile slurm names the profile of the package."
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that become keys of the configuration.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser to add to.
    """
    _add_files(parser, "--results", metavar="DIR", help="folder of the products (default: results)")
    parser.add_argument(
        "--config", "-C", metavar="KEY=VALUE", nargs="+", default=[], help="other keys of the configuration, as for snakemake"
    )


def step_scripts() -> list[str]:
    """List the scripts that process one exposure, or align an association.

    Returns
    -------
    list of str
        Names of the steps, and ``finalize``.
    """
    from rampflow.chain import STEPS  # imports numpy

    return [*STEPS, "finalize"]


def _step_options(parser: argparse.ArgumentParser) -> None:
    names = step_scripts()
    parser.add_argument("step", metavar="STEP", choices=names, help=f"one of {', '.join(names)}")
    _add_files(parser, "arguments", metavar="...", nargs=argparse.REMAINDER, help="INPUT, OUTPUT and options of its script")
    parser.epilog = (
        "References and parameters that are not given are those of CRDS. `rampflow step STEP --help` lists the options."
    )


def _script_options(parser: argparse.ArgumentParser) -> None:
    """Add what stands for the options of a script, which its own command line has."""
    _add_files(parser, "arguments", metavar="...", nargs=argparse.REMAINDER, help="arguments of the script, see --help")


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", action="store_true", help="make the report page, too")
    parser.add_argument("--cores", metavar="N", default="all", help="cores to use (default: all)")


def _config_options(parser: argparse.ArgumentParser) -> None:
    _add_files(parser, "file", metavar="FILE", nargs="?", help="file to write, such as my.yaml (default: standard output)")


def _completion_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell")
    parser.epilog = 'For bash: eval "$(rampflow completion bash)" in ~/.bashrc.'


#: All subcommands, in the order of the help.
COMMANDS = {
    "run": Command("process exposures, from raw files to products", "runs.run", _run_options),
    "report": Command("the same, with a report page of each association", "runs.run", _run_options),
    "survey": Command("make the page of all exposures in the results folder", "runs.run", _run_options),
    "affected": Command("list what a run would make again, why, and at what cost", "runs.run", _run_options),
    "associate": Command("write the association file of some raw files", "make_association"),
    "config": Command(
        "write a configuration file with every key as a comment", "settings.write_configuration", _config_options
    ),
    "step": Command("run one step on one file", "single_step.run", _step_options),
    "compare": Command("compare the products of two runs", "compare_runs"),
    "watch": Command("process raw files of a folder as they arrive", "watch"),
    "stage": Command("collect all files of a run for a machine without network", "stage"),
    "fetch": Command("fetch raw files from an archive", "fetch"),
    "view": Command("look at a product with other tools", "view"),
    "demo": Command("simulate a visit in the folder demo, and process it", "runs.demo", _demo_options),
    "compile": Command("compile the loops of the steps for this processor, before the first exposure", "compile_kernels"),
    "completion": Command("write the completion for a shell", "completion.write_completion", _completion_options),
}
# Scripts that this version doesn't have.
COMMANDS = {name: c for name, c in COMMANDS.items() if c.options or (SCRIPTS / f"{c.place}.py").is_file()}


class Subcommand(NamedTuple):
    """A subcommand with its name.

    Attributes
    ----------
    name : str
        Its name.
    command : Command
        What it is.
    """

    name: str
    command: Command

    def parser(self) -> argparse.ArgumentParser:
        """Make the parser of its arguments.

        Returns
        -------
        argparse.ArgumentParser
            The parser; of a script, without its options, which the script knows.
        """
        made = argparse.ArgumentParser(
            prog=f"rampflow {self.name}", description=_sentence(self.command.summary), allow_abbrev=False
        )
        (self.command.options or _script_options)(made)
        return made

    def run(self, words: list[str]) -> int:
        """Run it.

        Parameters
        ----------
        words : list of str
            Its arguments.

        Returns
        -------
        int
            Exit status.
        """
        if self.command.options is None:
            from rampflow.command.runs import become_script

            return become_script(self.command.place, words, f"rampflow {self.name}")
        module, _, function = self.command.place.partition(".")
        status: int = getattr(importlib.import_module(f"rampflow.command.{module}"), function)(self, words)
        return status


def find(name: str) -> Subcommand:
    """Find a subcommand.

    Parameters
    ----------
    name : str
        Its name.

    Returns
    -------
    Subcommand
        The subcommand.
    """
    return Subcommand(name, COMMANDS[name])


def _sentence(summary: str) -> str:
    return f"{summary[:1].upper()}{summary[1:]}."


def command_parser(*, with_options: bool = False) -> argparse.ArgumentParser:
    """Make the parser of the whole command.

    Parameters
    ----------
    with_options : bool
        Whether the subparsers have the options of their subcommands, for the completion in shells.

    Returns
    -------
    argparse.ArgumentParser
        The parser, with a subparser for each subcommand.
    """
    made = argparse.ArgumentParser(
        prog="rampflow",
        description="Calibrates exposures of the Roman Wide Field Instrument.",
        epilog="`rampflow COMMAND --help` describes a command.",
        allow_abbrev=False,
    )
    made.add_argument("--version", action="store_true", help="show the version")
    commands = made.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        added = commands.add_parser(name, help=command.summary, description=_sentence(command.summary), allow_abbrev=False)
        if with_options:
            (command.options or _script_options)(added)
    return made
