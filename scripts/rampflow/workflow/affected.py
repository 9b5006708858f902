"""What a run would make again, why, and what it would cost, without running anything.

The recipes that existing products record are compared with those of the present configuration, references and code
(see `rampflow.workflow.recipes`). The logs in the products say what differs.
"""

from __future__ import annotations

import dataclasses
import os
import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rampflow import SOFTWARE_NAME, __version__
from rampflow.chain import STEPS
from rampflow.errors import RampflowError, shortened
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.files.links import original
from rampflow.quality.benchmarks import read_benchmark
from rampflow.step.declaration import NOT_APPLICABLE, format_value
from rampflow.step.provenance import OVERRIDES
from rampflow.workflow import recipes
from rampflow.workflow.command_line import possible_targets
from rampflow.workflow.configuration import parameters_of
from rampflow.workflow.exposure_jobs import ExposureJobs
from rampflow.workflow.inventory import ExposureEntry
from rampflow.workflow.job_recipes import JobRecipes
from rampflow.workflow.paths import BENCHMARKS
from rampflow.workflow.plan import Plan
from rampflow.workflow.rerun import exposure_recipes, solution_recipes
from rampflow.workflow.selections import is_label

TARGET = "affected"  #: name of the target, and of the table
OTHER_TARGETS = frozenset(("all", "exposures", "remove_stale", "report", "survey"))
MISSING = "a product is missing"
FOLLOWS = "follows a step that runs"
REMOVED = "its file was removed"
LEFT_OUT = "follows {}, which is left out now"
ONE_JOB = "all steps of an exposure are one job"
ASSOCIATION = "an exposure of its association is made again"
_END = "finalize"
_LOGGED = re.compile(r" :: rampflow\.(\w+) :: INFO :: (.*)$")
_REFERENCE = re.compile(r"Using (\S+) reference file: (.*)$")
_PARAMETER = re.compile(r"(\w+)=(.*?)(?:, (?=\w+=)|$)")
_SELECTED = f"Parameters of the configuration's {OVERRIDES}: "
_VERSION = re.compile(r"rampflow (\S+), step ")


@dataclasses.dataclass
class Logged:
    """What a product records of a step.

    Attributes
    ----------
    references : dict of str to str
        File by type, in lower case.
    parameters : dict of str to str
        Value by name.
    version : str
        Version of rampflow.
    selected : set of str
        Names of the parameters that the configuration's ``overrides`` has set.
    """

    references: dict[str, str] = dataclasses.field(default_factory=dict)
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    version: str = ""
    selected: set[str] = dataclasses.field(default_factory=set)


def read_logged(image: Path) -> dict[str, Logged]:
    """Read what a calibrated image records of its steps.

    Parameters
    ----------
    image : pathlib.Path
        The image.

    Returns
    -------
    dict of str to Logged
        Empty if the file can't be read.
    """
    try:
        with AsdfFile(image, parse=False) as file:
            lines = file.entry("roman", "meta", "cal_logs")
    except RampflowError:
        return {}
    found: dict[str, Logged] = {}
    for line in lines if isinstance(lines, list) else ():
        _, logger, level, text = [*str(line).split(" :: ", 3), "", "", ""][:4]
        if level != "INFO" or not logger.startswith(f"{SOFTWARE_NAME}."):
            continue
        logged = found.setdefault(logger.rpartition(".")[2], Logged())
        if text.startswith("Parameters: "):
            logged.parameters |= dict(_PARAMETER.findall(text.removeprefix("Parameters: ")))
        elif text.startswith(_SELECTED):
            logged.selected |= set(text.removeprefix(_SELECTED).split(", "))
        elif match := _REFERENCE.match(text):
            logged.references[match[1].lower()] = match[2]
        elif match := _VERSION.match(text):
            logged.version = match[1]
    return found


def is_selected(entry: ExposureEntry, step: str, parameter: str) -> bool:
    """Test whether the configuration's ``overrides`` sets a parameter for an exposure.

    Parameters
    ----------
    entry : rampflow.workflow.inventory.ExposureEntry
        What is known of the exposure.
    step, parameter : str
        Names of the step and of its parameter.

    Returns
    -------
    bool
        False for a parameter of CRDS, of the section ``steps``, and for a default.
    """
    found = entry.step_parameters.get(step, {}).get(parameter)
    return found is not None and is_label(found[1])


def is_requested(arguments: Sequence[str]) -> bool:
    """Test whether a command line names the target.

    Parameters
    ----------
    arguments : sequence of str
        The command line, without the program.

    Returns
    -------
    bool
        True for ``snakemake affected``.

    Raises
    ------
    RampflowError
        It names another target, too.
    """
    targets = possible_targets(arguments)
    if TARGET not in targets:
        return False
    if others := sorted(OTHER_TARGETS.intersection(targets)):
        raise RampflowError(f"{TARGET}: runs nothing, so that it can't be given together with {others[0]}; name one target")
    return True


class Affected:
    """The steps that a run would repeat or make for the first time.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    in_one_job : collection of str
        Exposures whose steps one job runs, see `rampflow.workflow.rerun.exposures_in_one_job`.

    Attributes
    ----------
    steps : dict
        For each exposure and association that is affected, its steps in order, each with the reason.
    """

    def __init__(self, plan: Plan, in_one_job: Collection[str] = ()):
        self.plan = plan
        self._in_one_job, self._jobs, self._recipes = in_one_job, ExposureJobs(plan), JobRecipes(plan)
        self._solutions = solution_recipes(plan)
        self._files = {stem: exposure_recipes(plan, stem) for stem in plan.exposures}
        self._images = {stem: Path(plan.paths.product(stem, "cal.asdf")) for stem in plan.exposures}
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            recorded = pool.map(recipes.recipes_in, self._images.values())
            self._recorded = dict(zip(self._images, recorded, strict=True))
        self._costs: dict[tuple[str, tuple[int, ...] | None], float | None] = {}
        own = {stem: self._own_steps(stem) for stem in plan.exposures}
        alignments = {}
        for name in plan.aligned_associations():
            if reason := self._reason_to_align(name, own):
                alignments[name] = {"tweakreg": reason}
                for stem in plan.members_to_align(name):
                    own[stem] = self._with_inputs_of_end(stem, own[stem]) | {_END: ASSOCIATION} | own[stem]
        # An exposure without an association is one by its own name.
        found = {name: {**own.get(name, {}), **alignments.get(name, {})} for name in (*own, *alignments)}
        self.steps: dict[str, dict[str, str]] = {
            name: {step: steps[step] for step in (*STEPS, _END) if step in steps} for name, steps in found.items() if steps
        }

    def _expected(self, stem: str) -> dict[str, str]:
        """Recipe of each step that the calibrated image should have gone through."""
        return self._files[stem][self._images[stem]]

    def _own_steps(self, stem: str) -> dict[str, str]:
        """Steps of an exposure that run for reasons of its own, without the alignment."""
        steps = self._jobs.steps_of_exposure(stem)
        if not self._images[stem].exists():
            found = self._unmade_steps(stem, steps)
        else:
            found = self._changed_steps(stem, steps)
        if found:
            first = min(map(steps.index, found))
            found = dict.fromkeys(steps[first:], FOLLOWS) | found
            found = self._with_inputs(stem, steps[:first]) | found
            if stem in self._in_one_job:
                found = dict.fromkeys(steps, ONE_JOB) | found
            return found | {_END: FOLLOWS}
        expected, recorded = self._expected(stem)["finalize"], self._recorded[stem].get("finalize")
        missing = not all(Path(path).exists() for path in self.plan.products(stem))
        left_out = self._left_out(stem)
        if not missing and recorded == expected and not left_out:
            return {}
        reason = LEFT_OUT.format(left_out[-1]) if left_out else self._describe_code(stem, "finalize")
        reason = MISSING if missing else reason
        return self._with_inputs_of_end(stem, {}) | {"finalize": reason}

    def _unmade_steps(self, stem: str, steps: Sequence[str]) -> dict[str, str]:
        """Steps after the last file of an exposure without a product that is as it should be."""
        made = 0
        for number, step in enumerate(steps, start=1):
            path = Path(self.plan.paths.exposure(stem, step))
            if STEPS[step].rewrites and path.exists() and recipes.recipes_in(path) == self._files[stem][path]:
                made = number
        return dict.fromkeys(steps[made:], MISSING)

    def _changed_steps(self, stem: str, steps: Sequence[str]) -> dict[str, str]:
        """Steps whose recipes are not those that the product records, each with what differs."""
        recorded, expected = self._recorded[stem], self._expected(stem)
        if not recorded:
            return {steps[0]: "the product is damaged, or records no recipes"} if steps else {}
        changed = {step for step in steps if recorded.get(step) != expected[step]}
        found = {step: "was not done before" for step in changed if step not in recorded}
        if changed - set(found):
            logged = read_logged(self._images[stem])
            found |= {step: self._describe(stem, step, logged.get(step, Logged())) for step in changed - set(found)}
        order = list(STEPS)
        for step in self._left_out(stem):
            later = [other for other in steps if order.index(other) > order.index(step)]
            if later:
                found.setdefault(later[0], LEFT_OUT.format(step))
        return found

    def _left_out(self, stem: str) -> list[str]:
        """Steps that the product has gone through, and that the configuration leaves out now."""
        return [step for step in STEPS if step in self._recorded[stem] and step not in self._expected(stem)]

    def _with_inputs(self, stem: str, before: Sequence[str]) -> dict[str, str]:
        """Steps that run again because a later one needs their file, which was removed."""
        found: dict[str, str] = {}
        for step in reversed([step for step in before if STEPS[step].rewrites]):
            if Path(self.plan.paths.exposure(stem, step)).exists():
                break
            found[step] = REMOVED
        return found

    def _with_inputs_of_end(self, stem: str, already: Mapping[str, str]) -> dict[str, str]:
        """The same for the alignment and the products of an exposure."""
        steps = self._jobs.steps_of_exposure(stem)
        found = self._with_inputs(stem, steps) if not set(already) & set(steps) else {}
        return dict.fromkeys(steps, ONE_JOB) | found if found and stem in self._in_one_job else found

    def _reason_to_align(self, association: str, own: Mapping[str, Mapping[str, str]]) -> str:
        """Why an association is aligned again; empty if it isn't."""
        members = self.plan.members_to_align(association)
        solution = Path(self.plan.paths.intermediate(association, "tweakreg.asdf"))
        if not solution.exists() or not Path(self.plan.paths.product(association, "tweakreg.json")).exists():
            return MISSING
        (expected,) = self._solutions[solution].values()
        if recipes.recipes_in(solution).get("tweakreg") != expected:
            logged = read_logged(self._images[members[0]]).get("tweakreg", Logged())
            return self._describe(members[0], "tweakreg", logged)
        if any(step in STEPS for stem in members for step in own[stem]):
            return ASSOCIATION
        differing = [stem for stem in members if self._recorded[stem].get("tweakreg") not in (None, expected)]
        return "a product has another alignment" if differing else ""

    def _describe(self, stem: str, step: str, logged: Logged) -> str:
        """What differs between what a step has logged and what it would do."""
        entry, lines, unused = self.plan.exposures[stem], [], []
        for reference in self.plan.declared[step].references:
            path = self.plan.links.get(entry.references[reference.type], "")
            new = Path(original(path)).name if path else NOT_APPLICABLE
            if reference.type in logged.references:
                if (old := Path(logged.references[reference.type]).name) != new:
                    lines.append(f"{reference.type} {old} -> {new}")
            elif (
                path and logged.version
            ):  # it is new, or the step had no use for it, as for the dust map of the other hemisphere
                unused.append(f"{reference.type} {NOT_APPLICABLE} -> {new}")
        options = self.plan.options(stem, step)
        for parameter in parameters_of(self.plan.declared[step]) if logged.parameters else ():
            value = options[parameter.name]
            wanted = str(original(value) if parameter.type is str and value else parameter.parse(format_value(value)))
            found = logged.parameters.get(parameter.name, wanted)
            if found != wanted:
                lines.append(f"{parameter.name} {found} -> {wanted}")
            elif is_selected(entry, step, parameter.name) != (parameter.name in logged.selected):  # which the log records
                by = "no longer" if parameter.name in logged.selected else "now"
                lines.append(f"{parameter.name} {found} is {by} set by {OVERRIDES}")
        return shortened(", ".join(lines or [self._describe_code(stem, step, logged.version), *unused]))

    def _describe_code(self, stem: str, step: str, version: str = "") -> str:
        """What differs where references and parameters have the same names and values."""
        version = version or read_logged(self._images[stem]).get(step, Logged()).version
        if version and version != __version__:
            return f"code {version} -> {__version__}, or the content of a file"
        return "code or the content of a file"

    def cost(self, name: str, step: str) -> float | None:
        """Estimate the processor time of a step.

        Parameters
        ----------
        name : str
            Name of the exposure or association.
        step : str
            Name of the step.

        Returns
        -------
        float or None
            Seconds: those of the last time, or the median of exposures of the same shape. None if there are no such.
        """
        own = read_benchmark(BENCHMARKS / name / f"{step}.tsv")["cpu"]
        if own is not None:
            return own
        shape = self.plan.exposures[name].shape if name in self.plan.exposures else None
        if (step, shape) not in self._costs:
            alike = (
                self.plan.associations()
                if shape is None
                else [stem for stem, entry in self.plan.exposures.items() if entry.shape == shape]
            )
            known = [cpu for other in alike if (cpu := read_benchmark(BENCHMARKS / other / f"{step}.tsv")["cpu"]) is not None]
            self._costs[step, shape] = statistics.median(known) if known else None
        return self._costs[step, shape]

    def table(self) -> str:
        """Write the table by step and reason.

        Returns
        -------
        str
            A line for each step and reason, with the number of exposures or associations and the processor time.
        """
        groups: dict[tuple[str, str], list[str]] = {}
        for name, steps in self.steps.items():
            for step, reason in steps.items():
                groups.setdefault((step, reason), []).append(name)
        stems = [name for name in self.steps if name in self.plan.exposures]
        if not groups:
            number = len(self.plan.exposures)
            every = "the exposure is" if number == 1 else f"all {number} exposures are"
            return f"{TARGET}: nothing; {every} as this run would make them"
        order = [*STEPS, _END]
        rows = [("step", "count", "CPU s", "reason")]
        for step, reason in sorted(groups, key=lambda key: (order.index(key[0]), -len(groups[key]), key[1])):
            names = groups[step, reason]
            rows.append((step, str(len(names)), _seconds([self.cost(name, step) for name in names]), reason))
        total = _seconds([self.cost(name, step) for name, steps in self.steps.items() for step in steps])
        width = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{step:<{width[0]}}  {n:>{width[1]}}  {cpu:>{width[2]}}  {reason}" for step, n, cpu, reason in rows]
        head = f"{TARGET}: {len(stems)} of {len(self.plan.exposures)} exposures, {total} s of processor time"
        results = Path(self.plan.settings["results"])  # a wrong name may be a typing error
        absent = [] if results.is_dir() else [f"The results folder {results} does not exist: a run would make it"]
        unknown = ["?: some steps have no benchmark"] if "?" in total else []
        return "\n".join([head, *lines, *absent, *unknown])

    def write(self, path: Path) -> None:
        """Write the table of the exposures and associations that are affected.

        Parameters
        ----------
        path : pathlib.Path
            The file (ECSV).
        """
        from astropy.table import Table  # takes half a second

        rows = []
        for name, steps in self.steps.items():
            costs = [self.cost(name, step) for step in steps]
            reasons = [f"{step}: {reason}" for step, reason in steps.items() if reason not in (FOLLOWS, ONE_JOB)]
            known = sum(cost for cost in costs if cost is not None)
            rows.append((name, ",".join(steps), "; ".join(reasons), known, sum(cost is None for cost in costs)))
        columns = ("name", "steps", "reasons", "cpu_time", "unknown")
        table = Table(rows=rows or None, names=columns, dtype=(str, str, str, float, int))
        table["name"].description = "exposure or association"
        table["steps"].description = "steps that a run would make, in order"
        table["reasons"].description = "steps that don't just follow another one, with the reason"
        table["cpu_time"].unit, table["cpu_time"].description = "s", "processor time of the steps, from benchmarks"
        table["unknown"].description = "steps without a benchmark, which cpu_time lacks"
        with replacing(path) as partial:
            table.write(partial, format="ascii.ecsv")


def _seconds(costs: Iterable[float | None]) -> str:
    """A sum of seconds for the table, with ``?`` where some are unknown."""
    costs = list(costs)
    known = [cost for cost in costs if cost is not None]
    unknown = "?" if len(known) < len(costs) else ""
    return f"{sum(known):.1f}{unknown}" if known else unknown
