"""Sources of astrometric catalogs by name, and retries after network failures."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from rampflow.astrometry import hats, web
from rampflow.astrometry.duplicates import RADIUS, merge_duplicates
from rampflow.astrometry.files import SUFFIXES, describe_stars, drop_placeholders, read_file
from rampflow.astrometry.motion import COLUMNS, at_epoch, find_movable, has_motions
from rampflow.astrometry.region import Region
from rampflow.astrometry.stores import open_store
from rampflow.errors import RampflowError, counted
from rampflow.files.links import content_of
from rampflow.remote.addresses import is_remote
from rampflow.step.logs import step_logger

log = step_logger("astrometric_catalog")

GAIA_S3 = "GAIADR3_S3"
CATALOGS = (GAIA_S3, *web.CATALOGS)
ACCEPTED = (
    f"it takes {', '.join(CATALOGS)}, a file ({', '.join(SUFFIXES)}) with columns ra and dec, or the folder of a HATS catalog "
    "(a path, or an address with s3:// or https://)"
)

#: Maximum number of attempts if the network fails, and the first pause between them (s), which doubles each time: half a
#: minute in total, so that a computer without a network doesn't wait for `vo_timeout`.
ATTEMPTS = 6
ATTEMPTS_AT_DAMAGE = 2  #: at files that are damaged on the server, which a network seldom repairs
FIRST_PAUSE = 1.0
#: Program of the process that reads a catalog of the network. Its arguments are where Python looks for modules.
READER = "import sys; sys.path[:] = sys.argv[1:]; from rampflow.astrometry.star_catalogs import answer_reader; answer_reader()"


class CatalogUnavailable(Exception):
    """A catalog that can't be retrieved now; the message has the cause."""


def check_astrometric_catalog(name: str, folder: Path) -> str:
    """Check the name of an astrometric catalog; no file is opened and no network used.

    Parameters
    ----------
    name : str
        Name of a catalog (in any case), a file, or the folder or address of a HATS catalog.
    folder : pathlib.Path
        Folder of a relative path.

    Returns
    -------
    str
        The catalog's name in upper case, the path, or the address.

    Raises
    ------
    RampflowError
        The name is neither a known catalog nor a suitable file or folder.
    """
    if str(name).upper() in CATALOGS:
        return str(name).upper()
    if is_remote(str(name)):
        return str(name).rstrip("/")
    path = Path(folder) / os.path.expanduser(str(name))
    if path.is_dir():
        if not hats.find_catalog(os.listdir(path)):
            raise RampflowError(f"astrometric_catalog: the folder {path} holds no HATS catalog ({hats.INFO}); {ACCEPTED}")
    elif path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise RampflowError(f"astrometric_catalog: {path} is a file of no known kind; {ACCEPTED}")
    else:
        near = difflib.get_close_matches(str(name).upper(), CATALOGS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise RampflowError(f"astrometric_catalog: {name!r} is no known catalog, and {path} does not exist; {hint}{ACCEPTED}")
    return str(path)


def source_files(source: str) -> list[str]:
    """List the files of a user's catalog that are rewritten when it changes; none for a catalog of the network.

    Parameters
    ----------
    source : str
        Catalog, see `check_astrometric_catalog`.

    Returns
    -------
    list of str
        The file; for a HATS catalog its list of partitions, its properties and the statistics of all partitions, as far as it
        has them: writing a partition rewrites these. For a collection, those of all its catalogs.
    """
    path = Path(source)
    if path.is_dir():
        names = (hats.INFO, "properties", "hats.properties", "dataset/_metadata")
        found = [path / hats.COLLECTION, *(path / name for name in names)]
        found += [below / name for below in sorted(path.iterdir()) for name in names] if found[0].is_file() else []
        return [str(file) for file in found if file.is_file()]
    return [source] if path.is_file() else []


class Retrieved(NamedTuple):
    """The stars of a catalog in a region.

    Attributes
    ----------
    stars : dict of numpy.ndarray
        Columns ra, dec (degrees, ICRS), mag, ra_error, dec_error (mas), pmra, pmdec (mas per year), parallax (mas), (n,) each;
        NaN where unknown.
    reason : str
        Why there are no stars; empty if there are some.
    description : rampflow.astrometry.hats.Description
        Name, version and epoch of the catalog.
    """

    stars: dict[str, np.ndarray]
    reason: str
    description: hats.Description


def fetch_stars(source: str, region: Region, epoch: float, timeout: float) -> Retrieved:
    """Retrieve the stars of a catalog in a region, at an epoch, without duplicates.

    Parameters
    ----------
    source : str
        Catalog, see `check_astrometric_catalog`.
    region : Region
        The region, of at least one circle.
    epoch : float
        Julian year.
    timeout : float
        Total timeout of the network, seconds.

    Returns
    -------
    Retrieved
        The stars.

    Raises
    ------
    CatalogUnavailable
        The network or the service fails.
    RampflowError
        The user's own file or folder can't be read or used.
    """
    reason = "the catalog has no stars there"
    if source in web.CATALOGS:
        # The service moves the stars to the epoch.
        found = query_with_retries(lambda deadline: web.query(source, region, epoch, deadline), timeout)
        stars = {name: found.get(name, np.full(len(found["ra"]), np.nan)) for name in COLUMNS}
        description = hats.Description(source)
    elif source == GAIA_S3 or is_remote(source) or Path(source).is_dir():
        found, description = (
            query_with_retries(lambda deadline: _read_remote(source, region, deadline), timeout)
            if source == GAIA_S3 or is_remote(source)
            else _read_folder(Path(source), region)
        )
        if source != GAIA_S3:
            _check_hats_motions(source, found)
            drop_placeholders(source, found)
            if not has_motions(found):
                _report_motions(description.title, found, epoch)
        stars = at_epoch(found, epoch)
        left_out = len(found["ra"]) - len(stars["ra"])
        if left_out:
            text = f"{left_out} of {len(found['ra'])} stars have no proper motion or no parallax and are left out"
            log.info("%s", text)
            reason = reason if len(stars["ra"]) else text
    else:
        found = read_file(Path(source), region)
        if not len(found["ra"]):
            reason = f"the catalog has no stars there: {describe_stars(Path(source))}"
        stars = at_epoch(found, epoch, need_parallax=False)
        description = _describe_file(Path(source), found)
        _report_motions(Path(source).name, found, epoch)
        if len(found["ra"]) and not len(stars["ra"]):
            reason = f"all {len(found['ra'])} stars there have no proper motion or ref_epoch, and are left out"
    stars, n_entries = merge_duplicates(stars)
    if n_entries:
        log.warning(
            "%d of %d entries lie within %g mas of another and are merged with it: closer than half a pixel (55 mas), they are "
            "one star listed twice, which an alignment couldn't use",
            n_entries,
            n_entries + len(stars["ra"]),
            RADIUS,
        )
    return Retrieved(stars, "" if len(stars["ra"]) else reason, description)


def _describe_file(path: Path, found: dict[str, np.ndarray]) -> hats.Description:
    """Name and version (the begin of the hash of its content) of a file, and the median epoch of its stars."""
    known = np.isfinite(found.get("ref_epoch", np.nan)).any()
    version = f"sha256 {content_of(path, trusted=False)}"
    return hats.Description(path.name, version, float(np.nanmedian(found["ref_epoch"])) if known else None)


def _report_motions(name: str, found: dict[str, np.ndarray], epoch: float) -> None:
    """Log how many stars of a file can be moved by proper motion and parallax."""
    count = len(found["ra"])
    if not count:
        return
    if not has_motions(found):
        since = np.nanmedian(found["ref_epoch"]) if np.isfinite(found.get("ref_epoch", np.nan)).any() else None
        if since is not None and abs(epoch - since) > 1:
            log.warning(
                "%s has no proper motions: its positions of %.1f are taken as they are, %.1f years from the exposures",
                *(name, since, abs(epoch - since)),
            )
        else:
            log.info("%s has no proper motions: its positions are taken as they are", name)
        return
    if "parallax" not in found:
        moved = counted(count, "star is moved by its proper motion", "stars are moved by their proper motions")
        log.warning("%s has no column parallax: its %s alone", name, moved)
        alone = 0
    else:
        alone = int((find_movable(found, need_parallax=False) & ~find_movable(found)).sum())
    if alone:
        log.warning("%s: %d of %d stars have no parallax and are moved by their proper motions alone", name, alone, count)
    left_out = int((~find_movable(found, need_parallax=False)).sum())
    if left_out:
        log.warning("%s: %d of %d stars have no proper motion or ref_epoch and are left out", name, left_out, count)


def _check_hats_motions(source: str, stars: dict[str, np.ndarray]) -> None:
    """Refuse a HATS catalog that has only some of the columns that are required to move its stars."""
    needed = ("pmra", "pmdec", "ref_epoch")
    missing = [name for name in needed if name not in stars]
    if {"pmra", "pmdec"} & set(stars) and missing:
        raise RampflowError(
            f"{source}: this HATS catalog has no column {' and '.join(missing)}, so that its stars can't be moved to the epoch "
            "of the exposures"
        )


def _read_remote(source: str, region: Region, deadline: float) -> tuple[dict[str, np.ndarray], hats.Description]:
    # In a process of its own, which can be ended: pyarrow's client has no total timeout, and a program that has used it waits
    # at its exit for the answer of a slow server. multiprocessing would import the caller's script there, and run it again.
    left = max(deadline - time.monotonic(), 0)
    command = [sys.executable, "-c", READER, *sys.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        atexit.register(process.kill)
        try:
            content, _ = process.communicate(pickle.dumps((source, hats.GAIA_DR3, region, left)), left)
        except subprocess.TimeoutExpired:
            raise TimeoutError("the server of the catalog didn't answer in time (vo_timeout)") from None
        finally:
            process.kill()
            atexit.unregister(process.kill)
    if not content:
        raise OSError("the process that reads the catalog ended without an answer")
    answer = pickle.loads(content)
    if isinstance(answer, BaseException):
        raise answer
    return answer


def answer_reader() -> NoReturn:
    """Read a remote catalog: the question comes by standard input, and the answer goes to standard output."""
    answer: tuple | Exception
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that nothing else is written there
    try:
        source, gaia, region, timeout = pickle.load(sys.stdin.buffer)
        deadline = time.monotonic() + timeout
        is_gaia = source == GAIA_S3
        store = open_store(f"s3://{gaia}" if is_gaia else source, deadline, public=is_gaia)
        answer = hats.read_hats(store, region)
    except Exception as error:  # the other process raises it
        answer = error
    with contextlib.suppress(BrokenPipeError), output:  # the other process was killed
        output.write(pickle.dumps(answer))
    os._exit(0)  # without waiting for a slow server


def _read_folder(folder: Path, region: Region) -> tuple[dict[str, np.ndarray], hats.Description]:
    try:
        return hats.read_hats(open_store(str(folder)), region)
    except (OSError, ValueError) as error:
        raise RampflowError(f"{folder}: this HATS catalog can't be read ({_one_line(error)})") from None


def query_with_retries(ask: Callable[[float], Any], timeout: float) -> Any:
    """Call a function that uses the network; if it fails, call it again after increasing pauses.

    Parameters
    ----------
    ask : callable
        Function to call with the deadline, a time of `time.monotonic`, which it may exceed.
    timeout : float
        Total timeout, seconds.

    Returns
    -------
    object
        The value that `ask` returns.

    Raises
    ------
    CatalogUnavailable
        Every attempt failed, or there was no answer in time.
    """
    deadline = time.monotonic() + timeout
    outcome: dict = {}

    def _work():
        pause = FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            allowed = ATTEMPTS
            try:
                outcome["value"] = ask(deadline)
                return
            except (FileNotFoundError, web.Refused) as error:  # another attempt would fail in the same way
                outcome["trouble"] = _one_line(error)
                return
            except hats.DamagedFile as error:
                outcome["trouble"] = _one_line(error)
                allowed = ATTEMPTS_AT_DAMAGE
            except (OSError, ValueError) as error:
                outcome["trouble"] = _one_line(error)
            except BaseException as error:
                outcome["defect"] = error
                return
            if attempt >= allowed or time.monotonic() + pause > deadline:
                return
            log.info("Attempt %d failed (%s); the next in %g s", attempt, outcome["trouble"], pause)
            time.sleep(pause)
            pause *= 2

    # In a thread that is abandoned after the timeout, because a name server takes no total timeout.
    worker = threading.Thread(target=_work, daemon=True)
    worker.start()
    worker.join(timeout)
    if "value" in outcome:
        return outcome["value"]
    if "defect" in outcome:
        raise outcome["defect"]
    late = f"no answer within {timeout:g} s (vo_timeout)" if worker.is_alive() else ""
    raise CatalogUnavailable("; before that: ".join(filter(None, [late, outcome.get("trouble")])))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
