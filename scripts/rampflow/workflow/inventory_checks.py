"""What is refused before the first job: inputs and references that can't be processed together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from rampflow.errors import RampflowError, raise_problems
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.parquet_footer import read_footer, text_of
from rampflow.step.consistency import other_exposure
from rampflow.step.declaration import NOT_APPLICABLE, Step
from rampflow.step.exposure import Exposure
from rampflow.workflow import references, selections
from rampflow.workflow.association import Member
from rampflow.workflow.exposure_names import RAW_SUFFIX, SPECIAL, is_calibrated_image, is_plain, stem_of
from rampflow.workflow.headers import files_beside
from rampflow.workflow.inventory import Inventory
from rampflow.workflow.overrides import override_mismatch
from rampflow.workflow.selections import SelectedSettings
from rampflow.workflow.step_parameters import StepParameters


def check_calibrated(chains: dict[Member, list[str]], headers: dict[str, dict], results: Path, folder: Path) -> None:
    """Refuse calibrated images that can't be aligned, or whose products would take their place; and wrong files beside them.

    Parameters
    ----------
    chains : dict
        Steps that each member of an association goes through.
    headers : dict
        Header of each file, by its path, see `rampflow.workflow.headers.read_headers`.
    results : pathlib.Path
        Folder of the products.
    folder : pathlib.Path
        Where relative names are taken from.

    Raises
    ------
    RampflowError
        There are such images; the message lists them.
    """
    lines = []
    for member in (member for member in chains if is_calibrated_image(member.path)):
        if "tweakreg" not in chains[member]:
            lines.append(f"{member.path}: is a calibrated image, and steps.tweakreg.skip is true: nothing is left to do for it")
        elif "source_catalog" not in chains[member] and not files_beside(member)[0]:
            lines.append(
                f"{member.path}: has no {stem_of(member.path)}_cat.parquet and _segm.asdf beside it, and "
                "steps.source_catalog.skip is true: set it to false, so that the sources are found again"
            )
        for path, identity_of in zip(files_beside(member), (_identity_of_catalog, _identity_of_map), strict=True):
            if path and (fault := _fault(Path(path), identity_of, member, headers[member.source])):
                lines.append(f"{path}: {fault}; get it again, or remove it, so that the sources are found again")
        if (folder / results).resolve() == member.path.parent.resolve():
            lines.append(
                f"{member.path}: its products would be written over it and the files beside it; choose another folder with "
                "--config results=FOLDER"
            )
    raise_problems(lines)


def _fault(path: Path, identity_of: Callable[[Path], dict[str, str]], member: Member, header: dict) -> str:
    """What is wrong with a file beside a calibrated image; empty if nothing is."""
    try:
        other = other_exposure(identity_of(path), stem_of(member.path), {"filename": "", "detector": header["detector"]})
    except (OSError, ValueError) as error:
        return f"can't be read ({error})"
    except RampflowError as error:
        return str(error).removeprefix(f"{path}: ")
    return f"is {other}" if other else ""


def _identity_of_catalog(path: Path) -> dict[str, str]:
    """File name and detector in the metadata of a catalog, by its end."""
    footer = read_footer(path)
    if b"roman.meta." not in footer:
        raise RampflowError("has no metadata of a product (roman.meta)")
    names = {"filename": "filename", "detector": "instrument.detector"}
    return {name: text_of(footer, f"roman.meta.{place}") for name, place in names.items()}


def _identity_of_map(path: Path) -> dict[str, str]:
    """File name and detector in the metadata of a segmentation map."""
    with AsdfFile(path) as file:
        segmentation = Exposure(file)
        segmentation.expect_model("segmentation_map", "finalize")
        detector = segmentation.meta.get("instrument", {}).get("detector", "")
        return {"filename": str(segmentation.meta.get("filename", "")), "detector": str(detector)}


def check_skipped_alignments(parameters: Mapping[Member, StepParameters]) -> None:
    """Refuse calibrated images whose alignment CRDS leaves out: nothing is left to do for them.

    Parameters
    ----------
    parameters : mapping
        Parameters of CRDS for each member of an association.

    Raises
    ------
    RampflowError
        There are such images; the message lists them.
    """
    lines = []
    for member, found in parameters.items():
        skip, path = found.values.get("tweakreg", {}).get("skip", (False, ""))
        if skip and is_calibrated_image(member.path):
            lines.append(
                f"{member.path}: is a calibrated image, and {Path(path).name} leaves tweakreg out: nothing is left to do; "
                "set steps.tweakreg.skip to false, or leave CRDS's parameters out with references: {step_parameters: false}"
            )
    raise_problems(lines)


def check_alignment_is_possible(config: dict, inventory: Inventory) -> None:
    """Refuse exposures without a WCS or source catalog for their steps, and parameters that leave out a required alignment.

    Parameters
    ----------
    config : dict
        The validated configuration.
    inventory : Inventory
        Inventory of the run.

    Raises
    ------
    RampflowError
        There are such exposures or parameters; the message names them.
    """
    lines = []
    for entry in inventory.exposures.values():
        if "tweakreg" in entry.chain and "source_catalog" not in entry.chain and entry.catalog is None:
            _, place = entry.step_parameters.get("source_catalog", {}).get("skip", (True, "configuration"))
            lines.append(
                f"{place}: steps.source_catalog.skip is true for {entry.stem}, and tweakreg aligns it with its source catalog; "
                "set steps.tweakreg.skip to true as well, or steps.source_catalog.skip to false"
            )
        needing = [step for step in ("source_catalog", "tweakreg") if step in entry.chain]
        if needing and "assign_wcs" not in entry.chain and not entry.is_calibrated:
            _, place = entry.step_parameters.get("assign_wcs", {}).get("skip", (True, "configuration"))
            others = " and ".join(f"steps.{step}.skip" for step in needing)
            lines.append(
                f"{place}: steps.assign_wcs.skip is true for {entry.stem}, and {' and '.join(needing)} need its WCS; "
                f"set {others} to true as well, or steps.assign_wcs.skip to false"
            )
    raise_problems(lines)
    for entry in inventory.exposures.values() if config.get("require_alignment") else ():
        for step in ("source_catalog", "tweakreg"):
            skip, path = entry.step_parameters.get(step, {}).get("skip", (False, ""))
            if skip:
                keep = f": steps: {{{step}: {{skip: false}}}} in the configuration keeps the step"
                raise RampflowError(
                    f"{path}: steps.{step}.skip is true for {entry.stem}, and require_alignment is true in the configuration; "
                    f"change one of them{'' if selections.is_label(path) else keep}"
                )


def check_alignments_agree(config: dict, inventory: Inventory) -> None:
    """Refuse ``overrides`` that set parameters of tweakreg for a part of an association.

    Parameters
    ----------
    config : dict
        The validated configuration.
    inventory : Inventory
        Inventory of the run.

    Raises
    ------
    RampflowError
        There are such ``overrides``; the message lists them.
    """
    groups: dict[str, dict[str, dict]] = {}
    for stem, entry in inventory.exposures.items():
        if "tweakreg" in entry.chain:
            groups.setdefault(entry.association, {})[stem] = entry.step_parameters.get("tweakreg", {})
    found = [selections.disagreement(members, config["steps"]["tweakreg"], name) for name, members in groups.items()]
    raise_problems([line for line in found if line])


def check_overrides(
    settings: dict[Member, SelectedSettings],
    override: dict[Member, dict[str, str]],
    chains: dict[Member, list[str]],
    headers: dict,
    steps: dict[str, Step],
) -> None:
    """Refuse references made for another detector or optical element than the exposures that will read them.

    Parameters
    ----------
    settings : dict
        What ``overrides`` sets for each member of an association.
    override : dict
        Path or N/A of each type of reference that the configuration names, for each member of an association.
    chains : dict
        Steps that each member of an association goes through.
    headers : dict
        Header of each file, by its path, see `rampflow.workflow.headers.read_headers`.
    steps : dict
        Declaration of each step, by its name.

    Raises
    ------
    RampflowError
        There are such references; the message lists them.
    """
    readers: dict[tuple[str, str, str], dict[str, dict]] = {}
    declarations = {}
    names = ("name", "detector", "optical_element")
    for member, chain in chains.items():
        known = headers[member.source]["crds"]
        header = {"instrument": {name: known.get(f"roman.meta.instrument.{name}") for name in names}}
        for reference in (r for name in chain for r in steps[name].references if r.type in override[member]):
            _, entry = settings[member].references.get(reference.type, ("", ""))
            place = f"{entry}.references" if entry else "references.override"
            key = place, reference.type, override[member][reference.type]
            declarations[key] = reference
            readers.setdefault(key, {})[member.source] = header
    lines = [override_mismatch(key[2], f"{key[0]}.{key[1]}", declarations[key], readers[key]) for key in readers]
    raise_problems([line for line in lines if line])


def check_paths(inventory: Inventory) -> None:
    """Refuse files whose paths Snakemake or asdf would misread.

    Parameters
    ----------
    inventory : Inventory
        Inventory of the run.

    Raises
    ------
    RampflowError
        There are such files; the message lists them.
    """
    paths = {p for e in inventory.exposures.values() for p in (*e.files, e.tweakreg_catalog, *e.references.values()) if p}
    raise_problems(
        [
            f"{path!r}: a path can't have any of {SPECIAL} and control characters; rename it, or link to it"
            for path in sorted(paths)
            if not is_plain(path)
        ]
    )


def check_place(inventory: Inventory, results: Path) -> None:
    """Refuse files in the folder of the results, or links to them, where a step writes files of the same names.

    Parameters
    ----------
    inventory : Inventory
        Inventory of the run.
    results : pathlib.Path
        Folder of the products.

    Raises
    ------
    RampflowError
        There are such files; the message lists them.
    """
    results = results.resolve()
    inside = [path for e in inventory.exposures.values() for path in e.files if Path(path).resolve().is_relative_to(results)]
    raise_problems(
        [
            f"{path}: lies in the folder of the results ({results}), where it would be overwritten; copy it elsewhere"
            for path in inside
            if not path.endswith(RAW_SUFFIX)
        ]
    )


def check_references(inventory: Inventory, steps: dict[str, Step]) -> None:
    """Refuse a needed reference that is N/A, and one that can't be fetched.

    Parameters
    ----------
    inventory : Inventory
        Inventory of the run.
    steps : dict
        Declaration of each step, by its name.

    Raises
    ------
    RampflowError
        There is such a reference; the message names it.
    """
    for entry in inventory.exposures.values():
        for name in entry.chain:
            for reference in steps[name].references:
                if reference.needed and entry.references[reference.type] == NOT_APPLICABLE:
                    raise RampflowError(
                        f"{entry.path}: CRDS says that no {reference.type} reference applies, and {name} can't do without; "
                        f"name one in references.override.{reference.type}"
                    )
    missing = inventory.missing_references()
    if missing and references.is_serverless():
        raise RampflowError(
            f"{missing[0]}: this reference of {inventory.context} is not in the CRDS cache, and there is no server to fetch it "
            f"from ({len(missing)} missing in all); copy it there, set CRDS_SERVER_URL, or name another in references.override"
        )
