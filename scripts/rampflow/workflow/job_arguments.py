"""The arguments of the scripts that the jobs of a run start."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rampflow.astrometry import next_attempt
from rampflow.astrometry.parameters import SEARCH_PARAMETERS
from rampflow.chain import STEPS
from rampflow.files.path_lists import write_list
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.workflow import configuration
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.plan import Plan
from rampflow.workflow.step_parameters import source_options


class JobArguments:
    """The arguments of the scripts that the jobs of a run start.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self._inputs = JobInputs(plan)

    def step_arguments(self, stem: str, step: str) -> str:
        """Write the references and parameters of a step as arguments of its script.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            Name of the step.

        Returns
        -------
        str
            The arguments, quoted for a shell.
        """
        entry = self.plan.exposures[stem]
        chosen, override = entry.references, {*self.plan.settings["references"]["override"], *entry.own_references}
        types = [reference.type for reference in self.plan.declared[step].references]
        words = [f"--{name} {shlex.quote(self.plan.links.get(chosen[name], NOT_APPLICABLE))}" for name in types]
        by_crds = [name for name in types if name not in override]
        if by_crds:
            words.append(f"--chosen_by_crds {','.join(by_crds)}")
        # Only steps with a reference of the user's own take the option, so that it repeats the jobs of no others.
        if len(by_crds) < len(types) and self.plan.settings["references"]["allow_mismatch"]:
            words.append("--allow_mismatch")
        if self.plan.declared[step].takes == "wfi_science_raw":
            words.append(f"--data_model {self.plan.settings['data_model']}")
        return " ".join([*words, self.parameters(stem, step)])

    def parameters(self, stem: str, step: str) -> str:
        """Write the parameters of a step as arguments of its script, with the references of CRDS that some of them are from.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            Name of the step.

        Returns
        -------
        str
            The arguments, quoted for a shell.
        """
        declared, entry = self.plan.declared[step].parameters, self.plan.exposures[stem]
        names = {p.name for p in declared}
        from_crds = {k: v for k, v in entry.step_parameters.get(step, {}).items() if k in names}
        from_crds |= {f"{name}.skip": entry.step_parameters[name]["skip"] for name in self._left_out_before(stem, step)}
        words = [configuration.command_line(declared, self.plan.options(stem, step)), shlex.join(source_options(from_crds))]
        return " ".join(word for word in words if word)

    def _left_out_before(self, stem: str, step: str) -> list[str]:
        """Steps between the previous one of the chain and this one that CRDS leaves out: this one records it."""
        entry, order = self.plan.exposures[stem], list(STEPS)
        before = order.index(entry.chain[entry.chain.index(step) - 1]) if step != entry.chain[0] else -1
        between = order[before + 1 : order.index(step)]
        return [name for name in between if entry.step_parameters.get(name, {}).get("skip", (False,))[0]]

    def alignment_options(self, association: str) -> dict[str, Any]:
        """Return the parameters of tweakreg for an association: those of its first exposure that is aligned, as in romancal.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        dict
            Value of each parameter, by its name.
        """
        return self.plan.options(self.plan.members_to_align(association)[0], "tweakreg")

    def alignment_parameters(self, association: str, members: Sequence[str] | None = None) -> str:
        """Write the parameters of tweakreg for an association as arguments of its script.

        Parameters
        ----------
        association : str
            Name of the association.
        members : sequence of str, optional
            The exposures that are aligned, in the order of the association; by default, all.

        Returns
        -------
        str
            The arguments, quoted for a shell.
        """
        members = self.plan.members_to_align(association) if members is None else members
        return self.parameters(members[0], "tweakreg") if members else ""

    def search_parameters(self, association: str) -> str:
        """Write the parameters of the search for the astrometric catalog as arguments of its script.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        str
            The arguments, quoted for a shell.
        """
        return configuration.command_line(SEARCH_PARAMETERS, self.alignment_options(association))

    def missing_options(self, association: str, unfinished: Collection[str] = ()) -> str:
        """Write the options of report.py that name the exposures of an association without products.

        Parameters
        ----------
        association : str
            Name of the association.
        unfinished : collection of str
            Exposures that a second pass leaves out, most of them because they have failed.

        Returns
        -------
        str
            The options; empty if no exposure is left out. Exposures that can't be read yet are missing.
        """
        absent = self.plan.inventory.excluded.get(association, {})
        kinds = {
            "--excluded": {stem: known for stem, known in absent.items() if stem not in unfinished},
            "--missing": {stem: known for stem, known in absent.items() if stem in unfinished}
            | self.plan.inventory.left_out.get(association, {}),
        }
        lists = {
            option: write_list(json.dumps({"stem": stem, **known}) for stem, known in stems.items())
            for option, stems in kinds.items()
        }
        return " ".join(f"{option} {file}" for option, file in lists.items() if file)

    def product_options(self, stem: str) -> str:
        """Write the options of finalize.py that follow from the configuration.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            ``--require_alignment`` if the configuration requires it and the exposure is to be aligned; ``--data_model`` with
            the version to write if it is a calibrated image. dq_init gives a raw exposure its version.
        """
        required = self.plan.settings["require_alignment"] and self._inputs.solution(stem)
        words = ["--require_alignment"] if required else []
        if self.plan.exposures[stem].is_calibrated:
            words.append(f"--data_model {self.plan.settings['data_model']}")
        return " ".join(words)

    def star_attempt(self, association: str) -> int:
        """Count the attempts to get the stars.

        The number changes where the last attempt has failed, so that the rule runs again.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        int
            Number of the attempt.
        """
        return next_attempt(Path(self.plan.paths.intermediate(association, "astrometric.parquet")))


def given_options(files: Mapping[str, str | Sequence[str]], names: Iterable[str]) -> str:
    """Write those of some named inputs that a job has as arguments of its script.

    Parameters
    ----------
    files : mapping
        Inputs of the job: a name or a list of names for each.
    names : iterable of str
        The inputs that become arguments.

    Returns
    -------
    str
        The arguments, quoted for a shell.
    """
    words = []
    for name in names:
        if given := files.get(name):
            words.append(f"--{name} {shlex.join([given] if isinstance(given, str) else given)}")
    return " ".join(words)
