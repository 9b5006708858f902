"""The files that the jobs of a run read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rampflow.astrometry import source_files
from rampflow.chain import image_chain
from rampflow.files import links
from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.workflow import recipes
from rampflow.workflow.plan import Plan


class JobInputs:
    """The files that the jobs of a run read.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    """

    def __init__(self, plan: Plan):
        self.plan = plan

    def raw_exposure(self, stem: str) -> str:
        """Name the raw exposure, or the calibrated image of the input, by the link that stands for its content.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the link, or of the file that is fetched.
        """
        entry = self.plan.exposures[stem]
        return self.plan.paths.fetched(stem) if entry.remote else self.plan.links[entry.path]

    def raw_content(self, stem: str) -> str:
        """Identify what the raw exposure, or the calibrated image of the input, holds.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            The link that stands for its content; the same of a file of the network, for which no link is made.
        """
        entry = self.plan.exposures[stem]
        return str(links.link_of(entry.remote.content, entry.remote.name)) if entry.remote else self.plan.links[entry.path]

    def exposure_before(self, stem: str, step: str) -> str:
        """Name the exposure as the previous step of its chain leaves it.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            Name of the step.

        Returns
        -------
        str
            Path of the file.
        """
        chain = self.plan.exposures[stem].chain
        return self._exposure_after(stem, chain[: chain.index(step)])

    def _exposure_after(self, stem: str, chain: Sequence[str]) -> str:
        """The exposure after some steps, of which a calibrated image has none."""
        steps = image_chain(chain)
        return self.plan.paths.exposure(stem, steps[-1]) if steps else self.raw_exposure(stem)

    def calibrated_image(self, stem: str) -> str:
        """Name the exposure after the last step that changes it.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the file.
        """
        return self._exposure_after(stem, self.plan.exposures[stem].chain)

    def own_catalog(self, stem: str) -> str:
        """Name the source catalog that was made of the image.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the catalog.
        """
        given = self.plan.exposures[stem].catalog
        return self.plan.links[given] if given else self.plan.paths.intermediate(stem, "cat.parquet")

    def own_segmentation(self, stem: str) -> str:
        """Name the segmentation map that was made of the image.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the map.
        """
        given = self.plan.exposures[stem].segmentation
        return self.plan.links[given] if given else self.plan.paths.intermediate(stem, "segm.asdf")

    def references(self, stem: str, step: str) -> list[str]:
        """List the reference files that a step reads.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        step : str
            Name of the step.

        Returns
        -------
        list of str
            Paths of the links that stand for their content; without those that do not apply.
        """
        chosen = [self.plan.exposures[stem].references[reference.type] for reference in self.plan.declared[step].references]
        return [self.plan.links[path] for path in chosen if path != NOT_APPLICABLE]

    def forced_segmentation(self, stem: str) -> list[str]:
        """Name the segmentation map of the configuration, whose sources are measured in an exposure.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        list of str
            Path of the map; empty if the configuration names none, or the exposure has no catalog.
        """
        path = self.plan.options(stem, "source_catalog")["forced_segmentation"]
        return [path] if path and "source_catalog" in self.plan.exposures[stem].chain else []

    def solution(self, stem: str) -> str | list[str]:
        """Name the alignment of the exposure's association.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str or list of str
            Path of the file; an empty list if the exposure is not aligned.
        """
        entry = self.plan.exposures[stem]
        return self.plan.paths.intermediate(entry.association, "tweakreg.asdf") if "tweakreg" in entry.chain else []

    def images_to_align(self, association: str) -> list[str]:
        """List the images of an association; tweakreg reads their headers.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Paths of the images.
        """
        return [self.calibrated_image(stem) for stem in self.plan.members_to_align(association)]

    def catalog_to_align(self, stem: str) -> str:
        """Name the catalog that an exposure is aligned with: its own, or the one that the association names for it.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the catalog.
        """
        given = self.plan.exposures[stem].tweakreg_catalog
        return link_to(given) if given else self.own_catalog(stem)

    def given_catalogs(self, association: str) -> list[str]:
        """List the catalogs that the association names for its members.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Paths of the catalogs.
        """
        members = self.plan.members_to_align(association)
        return [self.catalog_to_align(stem) for stem in members if self.plan.exposures[stem].tweakreg_catalog]

    def catalogs_to_align(self, association: str) -> list[str]:
        """List the catalog of each image of an association.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Paths of the catalogs, in the order of the images.
        """
        return [self.catalog_to_align(stem) for stem in self.plan.members_to_align(association)]

    def made_catalogs(self, association: str) -> list[str]:
        """List the catalogs made of the images, with which those that the association names are compared.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Path of the catalog of each image; empty if the association names no catalog.
        """
        if not self.given_catalogs(association):
            return []
        return [self.own_catalog(stem) for stem in self.plan.members_to_align(association)]

    def star_source(self) -> str:
        """Name the astrometric catalog.

        Returns
        -------
        str
            The link to the user's own file, or the name of a service.
        """
        return link_to(self.plan.settings["astrometric_catalog"])

    def star_file(self) -> list[str]:
        """Name the file of the astrometric catalog.

        Returns
        -------
        list of str
            The link to the user's own file; empty if the catalog is a service.
        """
        return [self.star_source()] if source_files(self.plan.settings["astrometric_catalog"]) else []


def link_to(path: str) -> str:
    """Return the link that stands for the content of a user's own file, or of the folder of a HATS catalog.

    The rules read the link, so that a file that was moved or touched is no reason to run anything again.

    Parameters
    ----------
    path : str
        File or folder, or the name of a service.

    Returns
    -------
    str
        Path of the link; `path` itself if it is not a file or catalog that exists.
    """
    content = recipes.content(path)
    if content == path:
        return path
    link = links.link_of(content, Path(path).name)
    links.make_link(link, Path(path).absolute())
    return str(link)
