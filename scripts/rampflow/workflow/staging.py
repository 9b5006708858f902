"""A folder with all that a run reads: raw files, references, stars, configuration; for machines without a network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from rampflow.astrometry.excerpt import write_excerpt
from rampflow.astrometry.hats import GAIA_DR3
from rampflow.astrometry.region import Circle, Region, circle_of_pointing
from rampflow.astrometry.star_catalogs import GAIA_S3, CatalogUnavailable, query_with_retries
from rampflow.astrometry.stores import open_store
from rampflow.astrometry.web import CATALOGS as WEB_CATALOGS
from rampflow.errors import RampflowError, counted
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.remote.addresses import is_remote, name_of
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.step.exposure import Exposure
from rampflow.step.logs import step_logger
from rampflow.workflow import selections
from rampflow.workflow.crds_bundle import copy_cache, copy_file
from rampflow.workflow.inventory import ExposureEntry, Inventory
from rampflow.workflow.raw_transfer import fetch

log = step_logger("stage")

TRANSFERS = 4  #: raw files that are fetched at the same time
#: Names in the folder.
ASSOCIATION, CONFIGURATION, ENVIRONMENT = "L1_asn.json", "config.yaml", "environment.sh"
RAW, CRDS, OWN, STARS, STAGED = "l1", "crds", "own", "stars", ".staged.json"
#: Added to the search margin of the configuration, arcsec: the pointing of a raw file is less exact than the WCS.
_EXTRA_MARGIN = 60.0
#: Of a shell: the name of the file is known to bash and zsh; dash must be in the folder.
SHELL_ENVIRONMENT = """\
# References from the staged CRDS cache alone, without a server: . ./environment.sh
rampflow_stage="$(cd "$(dirname "${BASH_SOURCE:-$0}")" && pwd)"
unset CRDS_CONTEXT $(env | sed -n "s/^\\(CRDS_[A-Z0-9_]*\\)=.*/\\1/p")
export CRDS_PATH="$rampflow_stage/crds"
export CRDS_SERVER_URL=https://crds-serverless-mode.stsci.edu
export CRDS_OBSERVATORY=roman
unset rampflow_stage
"""


def _without_empty(config: Any) -> Any:
    """Copy a configuration without the keys that have no value, such as a section whose keys are all comments."""
    if isinstance(config, dict):
        return {name: _without_empty(value) for name, value in config.items() if value is not None}
    return [_without_empty(value) for value in config] if isinstance(config, list) else config


class Stage:
    """A folder with all that a run reads.

    Parameters
    ----------
    visit : rampflow.workflow.inventory.Inventory
        Inventory of the run.
    settings : dict
        The validated configuration.
    given : dict
        The configuration as the user gave it, without the defaults.
    folder : pathlib.Path
        The folder, which is made if it does not exist.
    start : pathlib.Path
        Where relative names of the configuration are taken from.
    """

    def __init__(self, visit: Inventory, settings: dict, given: dict, folder: Path, start: Path):
        self._visit, self._settings, self._folder, self._start = visit, settings, folder, start
        self._config = _without_empty(given)
        self._copied: dict[str, Path] = {}  # files of the user, by the names of their copies

    def write(self) -> None:
        """Write the folder. What is there already, and the same, is not brought again.

        Raises
        ------
        RampflowError
            Something can't be read, fetched or written; the message names it.
        """
        self._copy_exposures()
        self._copy_references()
        self._copy_stars()
        self._config["input"] = ASSOCIATION
        self._write(ENVIRONMENT, SHELL_ENVIRONMENT)
        self._write(CONFIGURATION, yaml.safe_dump(self._config, sort_keys=False))

    def _write(self, name: str, text: str) -> None:
        with replacing(self._folder / name) as partial:
            partial.write_text(text)

    # ---------------------------------------------------------------------------------------------------------- exposures
    def _copy_exposures(self) -> None:
        staged = self._read_staged()
        entries = list(self._visit.exposures.values())
        with ThreadPoolExecutor(TRANSFERS) as pool:
            problems = [text for text in pool.map(lambda entry: self._problem_of(entry, staged), entries) if text]
        self._write(STAGED, json.dumps(staged))
        if problems:
            raise RampflowError("\n".join(problems))
        products: dict[str, list[dict]] = {}
        for entry in entries:
            member = {"expname": f"{RAW}/{name_of(entry.path)}", "exptype": "science"}
            if entry.tweakreg_catalog:
                member["tweakreg_catalog"] = self._own_file(entry.tweakreg_catalog, f"{entry.stem}_")
            products.setdefault(entry.association, []).append(member)
        content = {"asn_type": "staged", "products": [{"name": name, "members": m} for name, m in products.items()]}
        self._write(ASSOCIATION, json.dumps(content, indent=2) + "\n")
        log.info("%s in %s", counted(len(entries), "exposure"), self._folder / RAW)

    def _read_staged(self) -> dict[str, str]:
        try:
            return json.loads((self._folder / STAGED).read_text())
        except (OSError, ValueError):
            return {}

    def _problem_of(self, entry: ExposureEntry, staged: dict[str, str]) -> str:
        """Bring the files of an exposure; return what went wrong."""
        try:
            if entry.remote:
                target = self._folder / RAW / entry.remote.name
                is_there = target.is_file() and target.stat().st_size == entry.remote.size
                if not is_there or staged.get(target.name) != entry.remote.content:
                    staged.pop(target.name, None)
                    fetch(entry.remote, target)
                    staged[target.name] = entry.remote.content
            else:
                for path in map(Path, entry.files):
                    copy_file(path, self._folder / RAW / path.name)
        except RampflowError as error:
            return str(error)
        return ""

    # --------------------------------------------------------------------------------------------------------- references
    def _copy_references(self) -> None:
        self._config.get("references", {}).pop("crds_context", None)
        self._point_to_own_files()
        if self._visit.context is None:
            return
        cached: set[str] = set()
        for entry in self._visit.exposures.values():
            own = {*self._settings["references"]["override"], *entry.own_references}
            cached |= {path for name, path in entry.references.items() if name not in own and path != NOT_APPLICABLE}
            parameters = (place for values in entry.step_parameters.values() for _, place in values.values())
            cached |= {place for place in parameters if not selections.is_label(place)}
        number = copy_cache(self._visit.context, {Path(path).name for path in cached}, self._folder / CRDS)
        self._config["references"] = self._config.get("references") or {}
        self._config["references"]["crds_context"] = self._visit.context
        log.info("%s of %s in %s", counted(number, "reference"), self._visit.context, self._folder / CRDS)

    def _point_to_own_files(self) -> None:
        """Copy the files that the configuration names, and name the copies."""
        sections = [(self._config.get("references", {}).get("override"), None), (None, self._config.get("steps"))]
        sections += [(entry.get("references"), entry.get("steps")) for entry in self._config.get("overrides", [])]
        for chosen, steps in sections:
            for reftype, path in (chosen or {}).items():
                if path != NOT_APPLICABLE:
                    chosen[reftype] = self._own_file(path, f"{reftype}_")
            options = (steps or {}).get("source_catalog", {})
            if options.get("forced_segmentation"):
                options["forced_segmentation"] = self._own_file(options["forced_segmentation"], "forced_")

    def _own_file(self, given: str, prefix: str) -> str:
        """Copy a file of the user; return the name of the copy, relative to the folder.

        Files of the same name from several folders, as for several detectors, go to folders of their own.
        """
        source = self._start / os.path.expanduser(given)
        name, number = f"{OWN}/{prefix}{source.name}", 1
        while self._copied.setdefault(name, source) != source:
            number += 1
            name = f"{OWN}/{number}/{prefix}{source.name}"
        copy_file(source, self._folder / name)
        return name

    # --------------------------------------------------------------------------------------------------------------- stars
    def _copy_stars(self) -> None:
        source = self._settings["astrometric_catalog"]
        aligned = [entry for entry in self._visit.exposures.values() if "tweakreg" in entry.chain]
        if source in WEB_CATALOGS:
            raise RampflowError(
                f"astrometric_catalog: {source} is a service that answers for one epoch at a time; choose {GAIA_S3}, a HATS "
                "catalog or a file"
            )
        if not (source == GAIA_S3 or is_remote(source) or Path(source).is_dir()):
            self._config["astrometric_catalog"] = self._own_file(source, "")
            return
        name = f"{STARS}/{name_of(source)}"
        self._config["astrometric_catalog"] = name
        region = self._region(aligned)
        place, timeout = self._folder / name, self._settings["steps"]["tweakreg"]["vo_timeout"]
        is_gaia = source == GAIA_S3
        number = 0
        if region.circles:
            opened = open_store(f"s3://{GAIA_DR3}" if is_gaia else source, public=is_gaia)
            number = self._ask(source, lambda deadline: write_excerpt(opened, region, place), timeout)
        log.info("%s of %s in %s", counted(number, "partition"), source, place)

    def _ask(self, source: str, ask: Callable[[float], int], timeout: float) -> int:
        try:
            return query_with_retries(ask, timeout)
        except CatalogUnavailable as error:
            raise RampflowError(f"{source}: can't be read ({error}); check the network, and start again") from None

    def _region(self, entries: list[ExposureEntry]) -> Region:
        """The circles around the exposures to align, with the search margin of the configuration."""
        margin = self._settings["steps"]["tweakreg"]["margin"] + _EXTRA_MARGIN
        circles = []
        for entry in entries:
            with AsdfFile(self._folder / RAW / name_of(entry.path)) as file:
                if circle := circle_of_pointing(Exposure(file)):
                    circles.append(Circle(circle.ra, circle.dec, circle.radius + margin / 3600))
        return Region(tuple(circles))
