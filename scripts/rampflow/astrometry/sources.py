"""Where an astrometric catalog comes from, by its name; and the patience that a network needs."""

from __future__ import annotations

import difflib
import os
import threading
import time
from pathlib import Path

import numpy as np

from rampflow.astrometry import hats, web
from rampflow.astrometry.duplicates import RADIUS, merge_duplicates
from rampflow.astrometry.files import SUFFIXES, describe, read_file
from rampflow.astrometry.motion import COLUMNS, at_epoch, has_motions, usable
from rampflow.astrometry.region import Region
from rampflow.errors import RampflowError
from rampflow.step.logs import step_logger

log = step_logger("astrometric_catalog")

GAIA_S3 = "GAIADR3_S3"
CATALOGS = (GAIA_S3, *web.CATALOGS)
ACCEPTED = (
    f"it takes {', '.join(CATALOGS)}, a file ({', '.join(SUFFIXES)}) with columns ra and dec, or the folder of a HATS catalog"
)

#: How often a catalog is asked for when the network fails, and the first pause between (s), which doubles each time: half a
#: minute in all, so that a computer without a network is not kept waiting for `vo_timeout`.
ATTEMPTS = 6
FIRST_PAUSE = 1.0

_CONNECT_TIMEOUT = 10  # seconds


class CatalogUnavailable(Exception):
    """A catalog that can't be had now, and why."""


def check_astrometric_catalog(name: str, folder: Path) -> str:
    """Check the name of an astrometric catalog as far as that needs no network and opens no file.

    Parameters
    ----------
    name : str
        A catalog by name (in any case), a file, or the folder of a HATS catalog.
    folder : pathlib.Path
        Where a relative path is taken from.

    Returns
    -------
    str
        The catalog's name in upper case, or the path.

    Raises
    ------
    RampflowError
        It can't be one.
    """
    if str(name).upper() in CATALOGS:
        return str(name).upper()
    path = Path(folder) / os.path.expanduser(str(name))
    if path.is_dir():
        if not (path / hats.INFO).is_file():
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
    """The files by whose change a catalog of the user's own is known to have changed; none for a catalog of the network.

    Parameters
    ----------
    source : str
        As `check_astrometric_catalog` returns it.

    Returns
    -------
    list of str
        The file; of a HATS catalog its list of partitions, its properties and the statistics of all partitions, as far as it
        has them: writing a partition writes these.
    """
    path = Path(source)
    if path.is_dir():
        names = (hats.INFO, "properties", "hats.properties", "dataset/_metadata")
        return [str(path / name) for name in names if (path / name).is_file()]
    return [source] if path.is_file() else []


def fetch(source: str, region: Region, epoch: float, timeout: float) -> tuple[dict[str, np.ndarray], str]:
    """Stars of a catalog in a region, at an epoch, each once.

    Parameters
    ----------
    source : str
        As `check_astrometric_catalog` returns it.
    region : Region
        At least one circle.
    epoch : float
        Julian year.
    timeout : float
        Seconds to wait for a network in all.

    Returns
    -------
    stars : dict of numpy.ndarray
        ra, dec (degrees, ICRS), mag, ra_error, dec_error (mas), pmra, pmdec (mas per year), parallax (mas); NaN where unknown.
    reason : str
        Why there are none; empty where there are some.

    Raises
    ------
    CatalogUnavailable
        The network, or what answers there, fails.
    RampflowError
        The user's own file or folder can't be read, or can't be used.
    """
    reason = "the catalog has no stars there"
    if source in web.CATALOGS:
        # The service has moved the stars already.
        found = patiently(lambda deadline: web.query(source, region, epoch, deadline), timeout)
        stars = {name: found.get(name, np.full(len(found["ra"]), np.nan)) for name in COLUMNS}
    elif source == GAIA_S3 or Path(source).is_dir():
        found = (
            patiently(lambda deadline: _read_s3(region), timeout) if source == GAIA_S3 else _read_folder(Path(source), region)
        )
        if source != GAIA_S3:
            _check_hats_motions(source, found)
        stars = at_epoch(found, epoch)
        left_out = len(found["ra"]) - len(stars["ra"])
        if left_out:
            text = f"{left_out} of {len(found['ra'])} stars have no proper motion or no parallax and are left out"
            log.info("%s", text)
            reason = reason if len(stars["ra"]) else text
    else:
        found = read_file(Path(source), region)
        if not len(found["ra"]):
            reason = f"the catalog has no stars there: {describe(Path(source))}"
        stars = at_epoch(found, epoch, need_parallax=False)
        _report_motions(Path(source).name, found, epoch)
        if len(found["ra"]) and not len(stars["ra"]):
            reason = f"all {len(found['ra'])} stars there have no proper motion or ref_epoch, and are left out"
    stars, n_entries = merge_duplicates(stars)
    if n_entries:
        log.warning(
            "%d of %d entries lie within %g mas of another and are merged with it: nearer than half a pixel (55 mas), they are "
            "one star listed twice, which no alignment could use",
            n_entries,
            n_entries + len(stars["ra"]),
            RADIUS,
        )
    return stars, "" if len(stars["ra"]) else reason


def _report_motions(name: str, found: dict[str, np.ndarray], epoch: float) -> None:
    """Say what is known of the motions of a file's stars, and of how many it isn't."""
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
        log.warning("%s has no column parallax: its %d stars are moved by their proper motions alone", name, count)
        alone = 0
    else:
        alone = int((usable(found, need_parallax=False) & ~usable(found)).sum())
    if alone:
        log.warning("%s: %d of %d stars have no parallax and are moved by their proper motions alone", name, alone, count)
    left_out = int((~usable(found, need_parallax=False)).sum())
    if left_out:
        log.warning("%s: %d of %d stars have no proper motion or ref_epoch and are left out", name, left_out, count)


def _check_hats_motions(source: str, stars: dict[str, np.ndarray]) -> None:
    """Refuse a HATS catalog with some columns of what moves its stars and not the others."""
    needed = ("pmra", "pmdec", "ref_epoch")
    missing = [name for name in needed if name not in stars]
    if {"pmra", "pmdec"} & set(stars) and missing:
        raise RampflowError(
            f"{source}: this HATS catalog has no column {' and '.join(missing)}, so that its stars can't be moved to the epoch "
            "of the exposures"
        )


def _read_s3(region: Region) -> dict[str, np.ndarray]:
    from pyarrow import fs

    # The variables of Amazon's own tools, for a mirror.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    filesystem = fs.S3FileSystem(
        anonymous=True,
        region=hats.GAIA_DR3_S3_REGION,
        endpoint_override=endpoint,
        connect_timeout=_CONNECT_TIMEOUT,
        # The program can't end while a request waits, so these must not be many: `patiently` asks again, too.
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
    )
    return hats.read_hats(filesystem, hats.GAIA_DR3, region)


def _read_folder(folder: Path, region: Region) -> dict[str, np.ndarray]:
    from pyarrow import fs

    try:
        return hats.read_hats(fs.LocalFileSystem(), str(folder.resolve()), region)
    except (OSError, ValueError) as error:
        raise RampflowError(f"{folder}: this HATS catalog can't be read ({_one_line(error)})") from None


def patiently(ask, timeout: float):
    """What `ask(deadline)` returns; asked again, after longer and longer pauses, while the network fails.

    Parameters
    ----------
    ask : callable
        Takes the time of `time.monotonic` until which it may wait; it is not believed to keep it.
    timeout : float
        Seconds in all.

    Raises
    ------
    CatalogUnavailable
        It failed to the end, or there was no answer in time.
    """
    deadline = time.monotonic() + timeout
    outcome: dict = {}

    def work():
        pause = FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            try:
                outcome["value"] = ask(deadline)
                return
            except (FileNotFoundError, web.Refused) as error:  # the answer would be the same
                outcome["trouble"] = _one_line(error)
                return
            except (OSError, ValueError) as error:
                outcome["trouble"] = _one_line(error)
            except BaseException as error:
                outcome["defect"] = error
                return
            if attempt == ATTEMPTS or time.monotonic() + pause > deadline:
                return
            log.info("Attempt %d failed (%s); the next in %g s", attempt, outcome["trouble"], pause)
            time.sleep(pause)
            pause *= 2

    # In a thread that is left behind when it's late: neither a name server nor S3's client can be told how long to take.
    worker = threading.Thread(target=work, daemon=True)
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
