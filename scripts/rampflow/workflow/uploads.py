"""Products on S3: which are to be brought there, and which are there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.remote.files import list_folder
from rampflow.remote.upload import is_as_uploaded, upload
from rampflow.workflow import run_record
from rampflow.workflow.plan import Plan

#: Tables of a results folder and the record of the run, which each run writes at its end.
RECORDS = ("exposures.parquet", "exposures.ecsv", run_record.NAME)
SHOWN = 3  #: names in a message


class Uploads:
    """The products of a run that are brought to S3.

    Parameters
    ----------
    plan : rampflow.workflow.plan.Plan
        Plan of the run.

    Attributes
    ----------
    address : str or None
        Folder on S3; None if the results stay on this machine.
    """

    def __init__(self, plan: Plan):
        self._plan = plan
        self.address: str | None = plan.settings["upload"]

    def names(self) -> list[str]:
        """List the exposures and associations with products.

        Returns
        -------
        list of str
            Sorted names; empty if the results stay on this machine.
        """
        return sorted({*self._plan.exposures, *self._plan.aligned_associations()}) if self.address else []

    def products(self, name: str) -> list[str]:
        """List the products of an exposure or an association of this name, or of both.

        Parameters
        ----------
        name : str
            Name of the exposure or the association.

        Returns
        -------
        list of str
            Paths of the products.
        """
        own = self._plan.products(name) if name in self._plan.exposures else []
        is_aligned = name in self._plan.aligned_associations()
        return [*own, *([self._plan.paths.product(name, "tweakreg.json")] if is_aligned else [])]

    def receipt(self, name: str) -> str:
        """Name the file that says that the products of an exposure or an association are on S3.

        Parameters
        ----------
        name : str
            Name of the exposure or the association.

        Returns
        -------
        str
            Path of the file.
        """
        return f"{self._plan.paths.results}/uploaded/{name}.json"

    def forget_lost(self) -> list[str]:
        """Remove the receipts of products that are not on S3 any more, or are others there. The folder is listed once.

        Returns
        -------
        list of str
            Names of the exposures and associations, whose products are brought there again.

        Raises
        ------
        RampflowError
            The folder can't be listed.
        """
        receipts = {name: path for name in self.names() if (path := Path(self.receipt(name))).exists()}
        if not self.address or not receipts:
            return []
        listed = {file.name: file for file in list_folder(self.address)}
        lost = []
        for name, path in receipts.items():
            try:
                known = json.loads(path.read_text())["files"]
            except (OSError, ValueError, KeyError):
                known = {"": []}
            if not is_as_uploaded(known, listed):
                path.unlink(missing_ok=True)
                lost.append(name)
        return lost

    def describe_lost(self, lost: Sequence[str]) -> str:
        """Write the message that names the exposures and associations whose products are brought to S3 again.

        Parameters
        ----------
        lost : sequence of str
            Their names, as `forget_lost` returns them; at least one.

        Returns
        -------
        str
            The message.
        """
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        names = f"{', '.join(lost[:SHOWN])}{more}"
        return f"{self.address}: products are missing or have changed there, and are uploaded again: {names}"

    def upload_records(self) -> str:
        """Bring the tables of the exposures and the record of the run to S3.

        Returns
        -------
        str
            What went wrong; empty if nothing has.
        """
        folder = Path(self._plan.paths.results)
        try:
            for name in RECORDS if self.address else ():
                if (folder / name).exists():
                    upload(folder / name, f"{self.address}{name}")
        except RampflowError as error:
            return str(error)
        return ""
