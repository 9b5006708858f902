"""The inventory of a run: its exposures, the steps that each goes through, and the references that it needs.

Everything that the workflow's graph depends on is in it. It is kept in a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rampflow.files.atomic import replacing
from rampflow.remote.files import RemoteFile
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.workflow import references
from rampflow.workflow.exposure_names import is_calibrated_image

FORMAT = 8  #: version of the file's format; other versions are not read


@dataclasses.dataclass(frozen=True)
class ExposureEntry:
    """One exposure of a run.

    Attributes
    ----------
    stem : str
        Name of the exposure.
    path : str
        Its raw file or calibrated image, or the address of the raw file.
    association : str
        Name of its association.
    exposure_type : str
        Type of the exposure, as ``WFI_IMAGE``.
    detector : str
        Name of the detector, as ``WFI01``.
    shape : tuple of int
        Shape of the data: resultants (1 for a calibrated image), rows, columns.
    chain : tuple of str
        The steps that it goes through, in order.
    references : dict
        Reference type to path of the file, or "N/A".
    tweakreg_catalog : str or None
        Catalog for its alignment in place of its own.
    catalog, segmentation : str or None
        Source catalog and segmentation map beside a calibrated image, if it has both.
    step_parameters : dict
        For each step, the parameters that the configuration's ``overrides`` or CRDS set: value, and entry of ``overrides`` or
        path of the reference, by name (see `rampflow.workflow.step_parameters.StepParameters`).
    own_references : dict
        Reference types that ``overrides`` sets, with the entry.
    remote : rampflow.remote.files.RemoteFile or None
        The raw file, if it lies on S3 or a web server.
    identification : dict
        What its header says, by the names of the table of exposures (see `rampflow.quality.numbers.IDENTIFICATION`).
    """

    stem: str
    path: str
    association: str
    exposure_type: str
    detector: str
    shape: tuple[int, int, int]
    chain: tuple[str, ...]
    references: dict[str, str]
    tweakreg_catalog: str | None
    catalog: str | None = None
    segmentation: str | None = None
    step_parameters: dict[str, dict[str, Sequence]] = dataclasses.field(default_factory=dict)
    own_references: dict[str, str] = dataclasses.field(default_factory=dict)
    remote: RemoteFile | None = None
    identification: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_calibrated(self) -> bool:
        """Whether the input is a calibrated image.

        Returns
        -------
        bool
            False for a raw exposure.
        """
        return is_calibrated_image(Path(self.path))

    @property
    def is_cataloged(self) -> bool:
        """Whether the exposure has a source catalog.

        Returns
        -------
        bool
            Whether one is made, or lies beside the calibrated image.
        """
        return "source_catalog" in self.chain or self.catalog is not None

    @property
    def files(self) -> list[str]:
        """The files of the exposure that are read, besides its references.

        Returns
        -------
        list of str
            Paths of the raw file, or of the calibrated image, its source catalog and its segmentation map.
        """
        return [path for path in (self.path, self.catalog, self.segmentation) if path]


@dataclasses.dataclass(frozen=True)
class Inventory:
    """All exposures of a run.

    Attributes
    ----------
    exposures : dict
        Stem to `ExposureEntry`.
    context : str or None
        The CRDS context that chose their references. None: CRDS was not asked.
    links : dict
        For the path of each raw file and reference, the link that stands for its content (see `rampflow.files.links`). The
        rules read the link.
    notices : tuple of str
        What users should know of the parameters that CRDS and ``overrides`` set: those without effect, and steps that are left
        out.
    excluded : dict
        Exposures that the configuration leaves out, by association: what is known of each (as `ExposureEntry.identification`),
        by its name.
    left_out : dict
        The same of exposures whose files can't be read yet; empty unless the configuration has ``incoming: true``.
    selected : tuple of str
        What each entry of ``overrides`` sets, and for how many exposures.
    """

    exposures: dict[str, ExposureEntry]
    context: str | None
    links: dict[str, str]
    notices: tuple[str, ...] = ()
    excluded: dict[str, dict[str, dict]] = dataclasses.field(default_factory=dict)
    selected: tuple[str, ...] = ()
    left_out: dict[str, dict[str, dict]] = dataclasses.field(default_factory=dict)

    def references(self) -> list[str]:
        """List the paths of all references.

        Returns
        -------
        list of str
            Sorted paths, each once.
        """
        return sorted({p for e in self.exposures.values() for p in e.references.values() if p != NOT_APPLICABLE})

    def missing_references(self) -> list[str]:
        """List the paths of references that the CRDS cache lacks.

        Returns
        -------
        list of str
            Sorted paths.
        """
        return [path for path in self.references() if not Path(path).exists()]


def read(path: Path) -> Inventory | None:
    """Read an inventory from its file.

    Parameters
    ----------
    path : pathlib.Path
        File that `rampflow.workflow.inventory_building.build_inventory` has written, see `name_exposures_file`.

    Returns
    -------
    Inventory or None
        The inventory. None if the file does not exist, is damaged or has another format.
    """
    known = load(path)
    if "exposures" not in known:
        return None
    entries = [
        ExposureEntry(
            **e | {"shape": tuple(e["shape"]), "chain": tuple(e["chain"]), "remote": e["remote"] and RemoteFile(*e["remote"])}
        )
        for e in known["exposures"]
    ]
    without = {name: known.get(name, {}) for name in ("excluded", "left_out")}
    return Inventory({e.stem: e for e in entries}, known["context"], known["links"], **without)


def known_names(folder: Path) -> set[str]:
    """List the exposures and associations of all runs of this working folder.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the inventories.

    Returns
    -------
    set of str
        Names of the exposures and associations.
    """
    visits = [visit for path in folder.glob("exposures-*.json") if (visit := read(path))]
    return {name for visit in visits for entry in visit.exposures.values() for name in (entry.stem, entry.association)}


def name_exposures_file(config: dict, store: Path) -> Path:
    """Name the file with the exposures of a run.

    Runs with other inputs or another CRDS cache have files of their own.

    Parameters
    ----------
    config : dict
        The validated configuration.
    store : pathlib.Path
        File with what is known of all inputs.

    Returns
    -------
    pathlib.Path
        A file beside `store`.
    """
    # CRDS's parameters leave out steps, and those of the configuration have precedence.
    own = {name: [options.get("skip", False), config["given"].get(name, [])] for name, options in config["steps"].items()}
    chosen = [config[name] for name in ("input", "exclude", "references")] + [config.get("overrides", [])]
    asked = json.dumps([*chosen, own, references.source()], sort_keys=True)
    return store.with_name(f"exposures-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json")


def save(path: Path, content: dict) -> None:
    """Write a file of the inventory, which `load` reads.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    content : dict
        What it holds.
    """
    with replacing(path, shared=True) as partial:
        text = json.dumps({"format": FORMAT, **content})
        partial.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def load(store: Path) -> dict:
    """Read a file of the inventory.

    Parameters
    ----------
    store : pathlib.Path
        File that `save` has written.

    Returns
    -------
    dict
        What it holds; empty if the file does not exist, is damaged or has another format.
    """
    try:
        digest, _, text = store.read_bytes().partition(b"\n")
        known = json.loads(text) if hashlib.sha256(text).hexdigest().encode() == digest else None  # damaged: made again
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and known.get("format") == FORMAT else {}
