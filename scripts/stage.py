"""Bring all that a run reads into one folder: raw files, references, stars, configuration.

Machines without a network process the exposures from there::

    python scripts/stage.py L1_asn.json --to bundle --configfile my.yaml
    cd bundle && . ./environment.sh && snakemake --snakefile RAMPFLOW/Snakefile --configfile config.yaml --cores 8

With the package, the last command is `rampflow run --configfile config.yaml --cores 8`.
"""

import contextlib
import os
import shlex
import sys
import tempfile
from pathlib import Path

import declarations
import yaml

from rampflow.command_line import script_parser
from rampflow.errors import RampflowError
from rampflow.folders import SNAKEFILE
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors
from rampflow.workflow import run_start
from rampflow.workflow.inventory_building import build_inventory
from rampflow.workflow.staging import CONFIGURATION, Stage


def read_configuration(files: list[Path], words: list[str]) -> dict:
    """Read a configuration as Snakemake does: later files, and words of the command line, replace what came before.

    Parameters
    ----------
    files : list of pathlib.Path
        Files of YAML.
    words : list of str
        ``KEY=VALUE``, with a value in YAML.

    Returns
    -------
    dict
        The configuration.

    Raises
    ------
    RampflowError
        A file or a word can't be read.
    """
    result: dict = {}
    for path in files:
        try:
            content = yaml.safe_load(path.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise RampflowError(f"{path}: can't be read ({error})") from None
        result = _updated(result, content)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise RampflowError(f"--config: {word!r} is not KEY=VALUE")
        try:
            result = _updated(result, {key: yaml.safe_load(value)})
        except yaml.YAMLError as error:
            raise RampflowError(f"--config: {key} can't be read ({error})") from None
    return result


def _updated(config: dict, other: dict) -> dict:
    """A configuration with the values of another; sections are joined."""
    result = dict(config)
    for key, value in other.items():
        known = result.get(key)
        result[key] = _updated(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def stage(inputs: list[str], folder: Path, config: dict) -> None:
    """Bring all that a run reads into a folder.

    Parameters
    ----------
    inputs : list of str
        What the configuration takes as ``input``.
    folder : pathlib.Path
        The folder.
    config : dict
        The configuration.

    Raises
    ------
    RampflowError
        Something can't be read, fetched or written; the message names it.
    """
    start, steps = Path.cwd(), declarations.steps()
    given = config | {"input": inputs if inputs else config.get("input", [])}
    if "CRDS_PATH" in os.environ:
        os.environ["CRDS_PATH"] = str(Path(os.environ["CRDS_PATH"]).absolute())
    # The inventory makes links in the working folder. The folder itself is made when all inputs are found.
    with tempfile.TemporaryDirectory(prefix="rampflow-") as scratch, contextlib.chdir(scratch):
        settings = run_start.read_settings(given, steps, start)
        visit = build_inventory(settings, start, Path("inventory.json"), steps)
        if not visit.exposures:
            raise RampflowError("no exposure is given; name raw files, folders or association files")
        Stage(visit, settings, given, folder, start).write()
    for notice in visit.notices:
        step_logger("stage").warning("%s", notice)


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = script_parser("stage.py", __doc__ or "")
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="raw files, folders, association files, or their addresses")
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="folder that is written")
    parser.add_argument("--configfile", metavar="FILE", type=Path, nargs="+", default=[], help="configuration of the run")
    parser.add_argument("--config", metavar="KEY=VALUE", nargs="+", default=[], help="values of the configuration")
    arguments = parser.parse_args(argv)
    folder = Path(os.path.abspath(arguments.to))
    with reported_errors("stage") as outcome:
        stage(arguments.inputs, folder, read_configuration(arguments.configfile, arguments.config))
        if parser.prog.startswith("rampflow "):  # of the package
            run = "rampflow run"
        else:
            run = f"snakemake --snakefile {shlex.quote(str(SNAKEFILE))}"
        there = f"cd {shlex.quote(str(folder))} && . ./environment.sh"
        step_logger("stage").info("Run there: %s && %s --configfile %s --cores N", there, run, CONFIGURATION)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
