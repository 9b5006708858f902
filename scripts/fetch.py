"""Fetch raw exposures from MAST, the archive of the mission.

The exposures are those that fit a search by columns of MAST's table of Roman exposures. An association file with a product for
each visit is written beside them::

    python scripts/fetch.py mast:program=1001,pass=3 --to L1

A token for data that are not public is read from MAST_API_TOKEN.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rampflow.command_line import script_parser
from rampflow.errors import RampflowError, counted, one_line
from rampflow.files.asdf_reader import AsdfFile
from rampflow.files.atomic import replacing
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors
from rampflow.workflow.association import describe_visits
from rampflow.workflow.exposure_names import RAW_SUFFIX, stem_of, visit_of

ATTEMPTS = 4  #: of a transfer
PAUSE = 1.0  #: seconds before the second attempt; twice as many before each later one
MOST = 50_000  #: exposures of a search
PREFIX = "mast:"
log = step_logger("fetch")


def read_search(text: str) -> dict[str, str]:
    """Read a search.

    Parameters
    ----------
    text : str
        ``mast:COLUMN=VALUE,COLUMN=VALUE``.

    Returns
    -------
    dict of str to str
        Value of each column.

    Raises
    ------
    RampflowError
        It is not such a text.
    """
    words = text.removeprefix(PREFIX).split(",")
    pairs = [word.partition("=") for word in words]
    if not text.startswith(PREFIX) or not all(name and equals and value for name, equals, value in pairs):
        raise RampflowError(f"{text}: is no search; write {PREFIX}COLUMN=VALUE,..., as {PREFIX}program=1001,pass=3")
    return {name.strip(): value.strip() for name, _, value in pairs}


class Archive:
    """MAST, by astroquery.

    Raises
    ------
    RampflowError
        astroquery is not installed.
    """

    def __init__(self) -> None:
        try:
            from astroquery.mast import MastMissions, conf
        except ImportError:
            raise RampflowError(
                "a search needs the package astroquery, which is not installed: pip install astroquery; in a clone: make fetch"
            ) from None
        self.server = conf.server
        self._class = type(MastMissions)
        self._token = os.environ.get("MAST_API_TOKEN")

    def _mission(self):
        # One for each transfer: astroquery keeps the range of a request in its session.
        return self._class(mission="roman", mast_token=self._token)

    def find(self, search: dict[str, str]) -> dict[str, tuple[str, int | None]]:
        """Find raw exposures.

        Parameters
        ----------
        search : dict of str to str
            Value of each column.

        Returns
        -------
        dict
            For the name of each file, the name by which the archive knows it, and its size in bytes if that is known.

        Raises
        ------
        RampflowError
            The archive can't be asked, or has no such exposure.
        """
        from astroquery.exceptions import InvalidQueryError

        mission = self._mission()
        named = ", ".join(f"{name}={value}" for name, value in search.items())
        try:
            datasets = mission.query_criteria(limit=MOST, **search)
            products = list(mission.get_unique_product_list(datasets)) if len(datasets) else []
        except InvalidQueryError as error:
            raise RampflowError(f"{PREFIX}{named}: {one_line(error)} The columns: {self._columns(mission)}") from None
        except Exception as error:  # astroquery raises errors of many kinds
            raise RampflowError(f"{self.server}: can't be asked ({one_line(error)}); check the network") from None
        found = {}
        for product in products:
            name = str(product["filename"])
            if name.endswith(RAW_SUFFIX):
                size = str(product["size"]) if "size" in product.colnames else ""
                found[name] = str(product["uri"]), int(size) if size.isdecimal() else None
        if not found:
            raise RampflowError(
                f"{PREFIX}{named}: {self.server} has no raw exposure that fits ({counted(len(products), 'other file')})"
            )
        return dict(sorted(found.items()))

    @staticmethod
    def _columns(mission) -> str:
        try:
            return ", ".join(sorted(map(str, mission.get_column_list()["name"])))
        except Exception as error:  # astroquery raises errors of many kinds
            return f"unknown ({one_line(error)})"

    def fetch(self, uri: str, size: int | None, target: Path) -> None:
        """Fetch a file, which appears whole or not at all. What an earlier transfer has left is continued.

        Parameters
        ----------
        uri : str
            Name by which the archive knows it.
        size : int or None
            Its size, bytes.
        target : pathlib.Path
            Where it is written. A part of it has a hidden name beside it.

        Raises
        ------
        RampflowError
            It can't be fetched, or is damaged.
        """
        partial, problem = target.with_name(f".{target.name}.part"), ""
        for attempt in range(ATTEMPTS):
            if attempt:
                log.warning("%s: %s; attempt %d", target.name, problem, attempt + 1)
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                # The archive answers with a link to the data that is valid for a minute.
                status, message, _ = self._mission().download_file(uri, local_path=str(partial), verbose=False)
            except Exception as error:  # of astroquery, requests and urllib3
                status, message = "ERROR", one_line(error)
            if status == "ERROR":
                problem = f"can't be fetched ({message})"
                continue
            problem = _fault_of(partial, size)
            if not problem:
                partial.replace(target)
                log.info("Fetched %s, %d bytes", target.name, target.stat().st_size)
                return
            partial.unlink(missing_ok=True)
        raise RampflowError(f"{target.name}: {problem}; check the network, the archive and MAST_API_TOKEN, and start again")


def _fault_of(path: Path, size: int | None) -> str:
    """What is wrong with a fetched file; empty if nothing is."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"has {found} bytes, and the archive says {size}"
    try:
        with AsdfFile(path) as file:
            file.verify(compressed=True)
    except RampflowError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def fetch_all(archive: Archive, found: dict[str, tuple[str, int | None]], folder: Path, transfers: int) -> list[str]:
    """Fetch files that are not there yet.

    Parameters
    ----------
    archive : Archive
        The archive.
    found : dict
        The files, as `Archive.find` returns them.
    folder : pathlib.Path
        Where they are written.
    transfers : int
        Number of files that are fetched at the same time.

    Returns
    -------
    list of str
        What is wrong with those that can't be fetched.
    """

    def _fetch_one(name: str) -> str:
        uri, size = found[name]
        target = folder / name
        if target.is_file() and (size is None or target.stat().st_size == size):
            return ""
        try:
            archive.fetch(uri, size, target)
        except RampflowError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(transfers) as pool:
        return [text for text in pool.map(_fetch_one, found) if text]


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = script_parser("fetch.py", __doc__ or "")
    parser.add_argument("search", metavar="SEARCH", help="mast:COLUMN=VALUE,COLUMN=VALUE, such as mast:program=1001,pass=3")
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="folder that is written")
    parser.add_argument("--transfers", metavar="N", type=int, default=4, help="files at the same time (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.transfers < 1:
        parser.error("argument --transfers: takes a positive number")
    with reported_errors("fetch") as outcome:
        search = read_search(arguments.search)
        archive = Archive()
        found = archive.find(search)
        log.info("%s", counted(len(found), "raw exposure"))
        arguments.to.mkdir(parents=True, exist_ok=True)
        problems = fetch_all(archive, found, arguments.to, arguments.transfers)
        visits: dict[str, list[str]] = {}
        for name in found:
            if (arguments.to / name).is_file():
                visits.setdefault(visit_of(stem_of(Path(name))), []).append(name)
        if visits:
            with replacing(arguments.to / "L1_asn.json") as partial:
                partial.write_text(json.dumps(describe_visits(visits), indent=2) + "\n")
        if problems:
            raise RampflowError("\n".join([f"{len(problems)} of {len(found)} files are missing", *problems]))
        log.info("All are in %s, with the association file L1_asn.json", arguments.to)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
