"""The files that the jobs of a report read."""

from __future__ import annotations

from rampflow.step.declaration import NOT_APPLICABLE
from rampflow.workflow.job_inputs import JobInputs
from rampflow.workflow.plan import Plan


class ReportInputs:
    """The files that the jobs of a report read.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self._inputs = JobInputs(plan)

    def ramp_pictures(self, association: str) -> list[str]:
        """List the files with the pictures of the ramps of an association.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Path of the file of each exposure, in order; N/A for a calibrated image, which has no ramp.
        """
        return [
            NOT_APPLICABLE
            if self.plan.exposures[stem].is_calibrated
            else self.plan.paths.intermediate(stem, "ramp_pictures.json")
            for stem in self.plan.members(association)
        ]

    def made_ramp_pictures(self, association: str) -> list[str]:
        """List the files with the pictures of the ramps that a run makes for an association.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        list of str
            Path of the file of each exposure that has a ramp, in order.
        """
        return [path for path in self.ramp_pictures(association) if path != NOT_APPLICABLE]

    def ramps_around_refpix(self, stem: str) -> list[str]:
        """List the ramp before and after refpix.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        list of str
            Paths of the two files; empty if refpix is skipped.
        """
        if "refpix" not in self.plan.exposures[stem].chain:
            return []
        return [self._inputs.exposure_before(stem, "refpix"), self.plan.paths.exposure(stem, "refpix")]

    def ramp_with_transient(self, stem: str) -> list[str]:
        """Name the ramp before wfi18_transient.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        list of str
            Path of the file; empty if the exposure does not go through this step.
        """
        return (
            [self._inputs.exposure_before(stem, "wfi18_transient")]
            if "wfi18_transient" in self.plan.exposures[stem].chain
            else []
        )

    def catalog_files(self, stem: str) -> dict[str, str]:
        """List the catalog and segmentation map of an exposure, and the catalogs that its alignment began with.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        dict of str to str
            Path of each file, by the option of image_pictures.py; without those that the exposure does not have.
        """
        entry = self.plan.exposures[stem]
        files = {}
        if entry.is_cataloged:
            files["catalog"] = self.plan.paths.product(stem, "cat.parquet")
            files["segmentation"] = self.plan.paths.product(stem, "segm.asdf")
            if "tweakreg" in entry.chain:
                files["unaligned"] = self._inputs.own_catalog(stem)
                files["stars"] = self.plan.paths.intermediate(entry.association, "astrometric.parquet")
        return files

    def alignment_files(self, association: str) -> dict[str, str]:
        """List the summary of an association's alignment, and its astrometric catalog.

        Parameters
        ----------
        association : str
            Name of the association.

        Returns
        -------
        dict of str to str
            Path of each file, by the option of report.py; empty if the association is not aligned.
        """
        if association not in self.plan.aligned_associations():
            return {}
        return {
            "summary": self.plan.paths.product(association, "tweakreg.json"),
            "stars": self.plan.paths.intermediate(association, "astrometric.parquet"),
        }
