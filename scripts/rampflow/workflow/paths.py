"""Names of the files of a run: products, the files between the steps, logs and benchmarks."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from rampflow.chain import STEPS

LOGS, BENCHMARKS = Path("logs"), Path("benchmarks")
EXPOSURE_JOB = "exposure"  #: name of the log and the benchmark of a job that runs all steps of an exposure
FETCH_JOB = "fetch_exposure"  #: brings a raw exposure from S3 or a web server
FETCH_REFERENCE = "fetch_reference"  #: brings a reference into the CRDS cache
FETCHED = "_uncal.asdf"  #: end of the name of a raw file, or of a ramp in place of one, that is fetched from the network
#: Ends of the names of the products that every exposure has, and of those of an exposure with a source catalog.
IMAGE_PRODUCTS = ("cal.asdf", "wcs.asdf", "qa.json", "cal.png", "cal_thumb.png")
CATALOG_PRODUCTS = ("cat.parquet", "segm.asdf")


class Paths(NamedTuple):
    """Where a run writes.

    Attributes
    ----------
    results : str
        Folder of the products.
    scratch : str
        Folder of the files that only the next step of the same exposure reads.
    shared : frozenset of str
        Steps whose output other jobs read too: it lies in `intermediates`.
    """

    results: str
    scratch: str
    shared: frozenset[str]

    @property
    def intermediates(self) -> str:
        """Folder of the files between the steps.

        Returns
        -------
        str
            Path of the folder.
        """
        return intermediates_folder(self.results)

    def product(self, name: str, ending: str) -> str:
        """Name a product of an exposure or an association.

        Parameters
        ----------
        name : str
            Name of the exposure or the association.
        ending : str
            End of the file name, as ``cal.asdf``.

        Returns
        -------
        str
            Path of the product.
        """
        return f"{self.results}/{name}_{ending}"

    def products(self, stem: str, *, cataloged: bool) -> list[str]:
        """Name all products of an exposure.

        Parameters
        ----------
        stem : str
            Name of the exposure.
        cataloged : bool
            Whether the exposure has a source catalog.

        Returns
        -------
        list of str
            Paths of the products.
        """
        endings = IMAGE_PRODUCTS + CATALOG_PRODUCTS if cataloged else IMAGE_PRODUCTS
        return [self.product(stem, ending) for ending in endings]

    def intermediate(self, name: str, ending: str) -> str:
        """Name a file between the steps that is not an exposure: a catalog, a solution, pictures.

        Parameters
        ----------
        name : str
            Name of the exposure or the association.
        ending : str
            End of the file name: ``cat.parquet``, ``segm.asdf``, ``astrometric.parquet``, ``tweakreg.asdf`` or
            ``ramp_pictures.json``.

        Returns
        -------
        str
            Path of the file.
        """
        return f"{self.intermediates}/{name}_{ending}"

    def fetched(self, stem: str) -> str:
        """Name the raw file of an exposure that lies on S3 or a web server, once it is fetched.

        Parameters
        ----------
        stem : str
            Name of the exposure.

        Returns
        -------
        str
            Path of the file.
        """
        return f"{self.scratch}/{stem}{FETCHED}"

    def exposure(self, stem: str, step: str) -> str:
        """Name the file of an exposure as a step leaves it.

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
        folder = self.intermediates if step in self.shared else self.scratch
        return f"{folder}/{stem}_{STEPS[step].suffix}.asdf"


def intermediates_folder(results: str) -> str:
    """Name the folder of the files between the steps.

    Parameters
    ----------
    results : str
        Folder of the products.

    Returns
    -------
    str
        Path of the folder.
    """
    return f"{results}/intermediates"


def log_file(name: str, step: str) -> Path:
    """Name the log of a step of an exposure or an association.

    Parameters
    ----------
    name : str
        Name of the exposure or the association.
    step : str
        Name of the step.

    Returns
    -------
    pathlib.Path
        Path of the log.
    """
    return LOGS / name / f"{step}.log"


def benchmark_of(log: Path) -> Path:
    """Name the benchmark of the job that writes a log.

    Snakemake writes it when the job has ended with success.

    Parameters
    ----------
    log : pathlib.Path
        Log of the job.

    Returns
    -------
    pathlib.Path
        Path of the benchmark.
    """
    return BENCHMARKS / log.relative_to(LOGS).with_suffix(".tsv")


def match_any(names: Iterable[str]) -> str:
    """Write a regular expression that matches these names and no others.

    It has the shape of a tree, because Snakemake evaluates it for each file of each job: names that begin alike share their
    beginning.

    Parameters
    ----------
    names : iterable of str
        Names to match.

    Returns
    -------
    str
        The expression. It matches nothing where there are no names.
    """
    return _alternatives(sorted(set(names)))


def _alternatives(names: Collection[str]) -> str:
    prefix = os.path.commonprefix(list(names))
    rests = [name[len(prefix) :] for name in names]
    suffix = os.path.commonprefix([rest[::-1] for rest in rests])[::-1]
    rests = [rest.removesuffix(suffix) for rest in rests]
    groups = groupby(rests, key=lambda rest: rest[:1])
    branches = [_alternatives(list(group)) if first else "" for first, group in groups]
    if branches == [""]:
        choice = ""
    else:
        choice = f"(?:{'|'.join(branches)})" if names else "(?!)"
    return re.escape(prefix) + choice + re.escape(suffix)
