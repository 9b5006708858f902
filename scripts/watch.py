"""Process the raw exposures of a folder as they arrive.

The workflow runs when a visit is complete, after a time-out without new files, and again for files that come late::

    python scripts/watch.py L1 --complete 18 --config results=results --notify mailto://me@example.org -- --cores 8

All that follows ``--`` are options and targets of snakemake. Ctrl-C and SIGTERM end the program and the run.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from rampflow.command.runs import with_own_profile
from rampflow.command_line import script_parser
from rampflow.errors import RampflowError, counted
from rampflow.files.atomic import replacing
from rampflow.folders import SNAKEFILE
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors
from rampflow.workflow.arrivals import Arrivals
from rampflow.workflow.member_choice import LEFT_OUT
from rampflow.workflow.summary import count

ASSOCIATION = Path(".rampflow/arrived_asn.json")
SUMMARY, OUTPUT = Path("logs/summary.txt"), Path("logs/watch_snakemake.log")
PAUSE = 0.2  #: seconds after which a signal is noticed
#: Lines of the summary, and of the output of a run without one, that a message has.
LINES_OF_SUMMARY, LINES_OF_OUTPUT = 50, 20
#: How Snakemake begins an error: ``WorkflowError in file ...:``, ``MissingInputException in rule ...:``, ``WorkflowError:``.
_ERROR = re.compile(r"\w+(?:Error|Exception)\b.*:$")
_LEFT_OUT = re.compile(rf"(\S+): {re.escape(LEFT_OUT)}: ")
log = step_logger("watch")


class Run:
    """A run of the workflow, in a process of its own.

    Parameters
    ----------
    command : list of str
        The command line.
    folder : pathlib.Path
        Working folder of the run, which has its summary.
    """

    def __init__(self, command: list[str], folder: Path):
        self._summary, self._output = folder / SUMMARY, folder / OUTPUT
        self._output.parent.mkdir(parents=True, exist_ok=True)
        with self._output.open("w") as output:
            output.write(f"{shlex.join(command)}\n")
            output.flush()
            self._begun = self._output.stat().st_mtime_ns  # by the clock of the disk
            # In a session of its own, so that a Ctrl-C in the terminal does not reach it twice.
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    def send(self, number: int) -> None:
        """Pass a signal on.

        Parameters
        ----------
        number : int
            Number of the signal. SIGINT goes to the jobs, too, as after a Ctrl-C in a terminal. After SIGTERM, Snakemake lets
            them finish.
        """
        if self.process.poll() is not None:
            return
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def has_begun(self) -> bool:
        """Test whether the run came to its first job, once it has ended.

        Returns
        -------
        bool
            True if it has, or if nothing was to be done.
        """
        is_written = self._summary.exists() and self._summary.stat().st_mtime_ns >= self._begun
        return is_written or self.process.returncode == 0

    def left_out(self) -> set[str]:
        """List the exposures that the run could not read.

        Returns
        -------
        set of str
            Their names. The error of a run that could read none names the first of them.
        """
        return set(_LEFT_OUT.findall(self._output.read_text(errors="replace")))

    def report(self) -> str:
        """Write what became of the run, once it has ended.

        Returns
        -------
        str
            The beginning of its summary; the end of its output if it has written none. Empty if nothing was to be done.
        """
        if self._summary.exists() and self._summary.stat().st_mtime_ns >= self._begun:
            lines = self._summary.read_text(errors="replace").splitlines()
            more = [f"... and {counted(len(lines) - LINES_OF_SUMMARY, 'more line')} in {self._summary}"]
            return "\n".join(lines[:LINES_OF_SUMMARY] + more * (len(lines) > LINES_OF_SUMMARY))
        if self.process.returncode == 0:
            return ""
        lines = self._output.read_text(errors="replace").splitlines()
        head = f"Snakemake has ended before the first job: {find_reason(lines)}"
        return "\n".join([head, *lines[-LINES_OF_OUTPUT:]])


def find_reason(lines: list[str]) -> str:
    """Find the line that says why Snakemake has ended, in its output.

    Parameters
    ----------
    lines : list of str
        The output. Snakemake names the kind of the error and a place in the rules, then the reason, then files or a traceback.

    Returns
    -------
    str
        The line after the last one that names an error; the last line if none does.
    """
    stripped = [line.strip() for line in lines if line.strip()]
    found = [number for number, line in enumerate(stripped[:-1]) if _ERROR.match(line)]
    return stripped[found[-1] + 1] if found else stripped[-1]


class Messages:
    """Addresses to which summaries are posted.

    Parameters
    ----------
    addresses : list of str
        Addresses as apprise takes them, or files with such addresses.

    Raises
    ------
    RampflowError
        apprise is not installed, or does not know an address.
    """

    def __init__(self, addresses: list[str]):
        self._services: list = []
        if not addresses:
            return
        try:
            import apprise
        except ImportError:
            raise RampflowError(
                "--notify needs the package apprise, which is not installed: pip install apprise; in a clone: make watch"
            ) from None
        for address in addresses:
            is_file = Path(address).is_file()
            found = apprise.Apprise()
            found.add(apprise.AppriseConfig(paths=address) if is_file else address)
            if not len(found):
                # Not the address: it may have a password.
                name = address if is_file else f"{address.partition(':')[0]}:..."
                raise RampflowError(
                    f"--notify: {name}: no address that apprise knows; write one such as mailto://me@example.org"
                )
            self._services += list(found)

    def post(self, title: str, text: str, *, success: bool) -> None:
        """Post a message. What can't be posted is a warning of the log.

        Parameters
        ----------
        title : str
            Title of the message.
        text : str
            The message.
        success : bool
            Whether it tells of a success.
        """
        for service in self._services:
            # Without passwords and options.
            where = service.url(privacy=True).partition("?")[0]
            try:
                done = service.notify(body=text, title=title, notify_type="success" if success else "failure")
            except Exception as error:  # of a service; the watch goes on
                log.warning("%s: the summary can't be posted (%s)", where, error)
                continue
            if done:
                log.info("%s: the summary is posted", where)
            else:
                log.warning("%s: the summary can't be posted; check the address and the server", where)


class Watch:
    """Polls a folder, and runs the workflow for its visits.

    Parameters
    ----------
    arrivals : rampflow.workflow.arrivals.Arrivals
        The files of the folder.
    command : callable
        Returns the command line of a run, for an association file.
    folder : pathlib.Path
        Working folder of the runs.
    messages : Messages
        Where the summaries are posted.
    """

    def __init__(self, arrivals: Arrivals, command: Callable[[Path], list[str]], folder: Path, messages: Messages):
        self._arrivals, self._command, self._folder, self._messages = arrivals, command, folder, messages
        self._run: Run | None = None
        self._names: list[str] = []
        self._signals: list[int] = []
        self._is_ending = False

    def end(self, number: int, frame: FrameType | None = None) -> None:
        """End after a signal: a signal handler.

        Parameters
        ----------
        number : int
            Number of the signal.
        frame : frame or None
            Not used.
        """
        self._signals.append(number)

    def watch(self, interval: float) -> None:
        """Poll until a signal ends the program. A run gets the signal, too, and is waited for.

        Parameters
        ----------
        interval : float
            Seconds between two looks at the folder.
        """
        due = time.monotonic()
        while not self._signals:
            if time.monotonic() >= due:
                self.look()
                due = time.monotonic() + interval
            time.sleep(min(PAUSE, interval))
        self._is_ending = True
        log.info("%s: ending", signal.Signals(self._signals[0]).name)
        while self._run:
            while self._signals:
                self._run.send(self._signals.pop(0))
            if self._run.process.poll() is None:
                time.sleep(PAUSE)
            else:
                self.finish()

    def look(self) -> None:
        """Look at the folder once: report what has arrived, finish a run that has ended, and start the next."""
        events, warnings = self._arrivals.poll()
        for line in events:
            log.info("%s", line)
        for line in warnings:
            log.warning("%s", line)
        if self._run and self._run.process.poll() is not None:
            self.finish()
        if not self._run and (names := self._arrivals.ready()):
            self.start(names)

    def start(self, names: list[str]) -> None:
        """Start a run.

        Parameters
        ----------
        names : list of str
            Visits that have new exposures.
        """
        for name in names:
            visit = self._arrivals.visits[name]
            reason = "complete" if self._arrivals.is_complete(name) else f"no new file for {self._arrivals.timeout:g} s"
            unreadable = f", {len(visit.unreadable)} can't be read yet" if visit.unreadable else ""
            log.info("%s: %s, starts with %s%s", name, reason, count(len(visit.arrived), "exposure"), unreadable)
        self._names, association = names, self._folder / ASSOCIATION
        content = json.dumps(self._arrivals.start(names), indent=2) + "\n"
        try:
            association.parent.mkdir(parents=True, exist_ok=True)
            with replacing(association) as partial:
                partial.write_text(content)
            self._run = Run(self._command(association.absolute()), self._folder)
        except OSError as error:  # a full disk, or one that is away
            log.warning("%s: the run can't be started (%s)", self._title(), error)
            self._repeat(names, again=True)

    def finish(self) -> None:
        """Report a run that has ended."""
        assert self._run
        run, self._run = self._run, None
        status, has_begun, left_out = run.process.returncode, True, set[str]()
        try:
            text, has_begun, left_out = run.report(), run.has_begun(), run.left_out()
        except OSError as error:
            text = f"its summary can't be read ({error})"
        if text:
            end, level = ("done", logging.INFO) if status == 0 else (f"ended with status {status}", logging.WARNING)
            log.log(level, "%s: %s: %s", self._title(), end, text.splitlines()[0])
            self._messages.post(f"rampflow: {self._title()}: {end}", text, success=status == 0)
        else:
            log.info("%s: nothing was to be done", self._title())
        if not has_begun:
            self._arrivals.leave_out(self._names)
        if not self._is_ending:
            self._repeat(self._arrivals.visits_of(left_out) if has_begun else self._names, again=False)

    def _title(self) -> str:
        """Name the visits of the last run."""
        first, *others = self._names
        return f"{first} and {counted(len(others), 'more visit')}" if others else first

    def _repeat(self, names: list[str], *, again: bool) -> None:
        """Process visits once more after the time-out, although they have no new file."""
        for name in self._arrivals.repeat(names, again=again):
            log.info("%s: is processed once more, %g s later", name, self._arrivals.timeout)


def command_for(configuration: list[str], options: list[str]) -> Callable[[Path], list[str]]:
    """Make the command line of the runs.

    Parameters
    ----------
    configuration : list of str
        ``KEY=VALUE`` words of the user.
    options : list of str
        Options and targets of snakemake.

    Returns
    -------
    callable
        Returns the words of the command line for an association file.

    Raises
    ------
    RampflowError
        The user gives a key that this program sets, or an option that would replace the configuration.
    """
    for word in configuration:
        key, equals, _ = word.partition("=")
        if not equals:
            raise RampflowError(f"--config: {word!r} is not KEY=VALUE; options of snakemake follow after --")
        if key in ("input", "incoming"):
            raise RampflowError(f"--config: {key} is set by this program; take it out")
    if any(word in ("--config", "-C") or word.startswith("--config=") for word in options):
        raise RampflowError("--config is an option of this program: write it before --, so that it keeps the input")
    if not options:
        raise RampflowError("no options of snakemake are given; write at least the number of cores: -- --cores 8")
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), *with_own_profile(options)]
    return lambda association: [
        *snakemake,
        *("--config", f"input={json.dumps([str(association)])}", "incoming=true", *configuration),
    ]


def working_folder(options: list[str]) -> Path:
    """Find the working folder of the runs.

    Parameters
    ----------
    options : list of str
        Options of snakemake.

    Returns
    -------
    pathlib.Path
        That of ``--directory``; the present one without it.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--directory", "-d", type=Path, default=Path())
    return parser.parse_known_args(options)[0].directory


def at_least(smallest: float, kind: type = float) -> Callable[[str], float]:
    """Make the type of an argument that is a number.

    Parameters
    ----------
    smallest : float
        Smallest value.
    kind : type
        ``int`` or ``float``.

    Returns
    -------
    callable
        Reads the number; raises an error if it is smaller.
    """

    def _read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not smallest <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least {smallest:g}")
        return value

    return _read


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    words = sys.argv[1:] if argv is None else argv
    place = words.index("--") if "--" in words else len(words)
    own, options = words[:place], words[place + 1 :]
    parser = script_parser("watch.py", __doc__ or "", usage="%(prog)s FOLDER [options] -- SNAKEMAKE_OPTION ...")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder in which raw exposures (_uncal.asdf) arrive")
    parser.add_argument(
        "--config",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="configuration of the runs, without input and incoming",
    )
    parser.add_argument(
        "--complete", metavar="N", type=at_least(1, int), help="number of exposures (one per detector) of a complete visit"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=at_least(0),
        default=1800,
        help="time without a new file after which an incomplete visit is processed (default: %(default)s)",
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=at_least(0.1),
        default=30,
        help="time between two looks at the folder; a file that is the same in two looks has arrived (default: %(default)s)",
    )
    parser.add_argument(
        "--notify",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="where to post the summary of each run: an address of apprise, such as mailto://..., or a file with addresses, "
        "one a line; may be repeated",
    )
    arguments = parser.parse_args(own)
    with reported_errors("watch") as outcome:
        if not arguments.folder.is_dir():
            raise RampflowError(f"{arguments.folder}: is not a folder; give the folder in which the raw exposures arrive")
        command = command_for(arguments.config, options)
        arrivals = Arrivals(arguments.folder, arguments.complete, arguments.timeout)
        watch = Watch(arrivals, command, working_folder(options), Messages(arguments.notify))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, watch.end)
        when = f"after {arguments.timeout:g} s without a new file"
        when = f"with {count(arguments.complete, 'exposure')}, or {when}" if arguments.complete else when
        log.info("watching %s; a visit is processed %s", arguments.folder, when)
        watch.watch(arguments.interval)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
