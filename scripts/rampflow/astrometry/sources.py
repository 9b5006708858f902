"""Where an astrometric catalog comes from, by its name; and the patience that a network needs."""

from __future__ import annotations

import difflib
import os
import threading
import time
from pathlib import Path

import numpy as np

from rampflow.astrometry import hats, web
from rampflow.astrometry.files import SUFFIXES, read_file
from rampflow.astrometry.motion import at_epoch
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


def fetch(source: str, region: Region, epoch: float, timeout: float) -> dict[str, np.ndarray]:
    """Stars of a catalog in a region, at an epoch.

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
    dict of numpy.ndarray
        ra, dec (degrees, ICRS), mag, ra_error, dec_error (mas); NaN where unknown.

    Raises
    ------
    CatalogUnavailable
        The network, or what answers there, fails.
    RampflowError
        The user's own file or folder can't be read.
    """
    if source == GAIA_S3:
        return at_epoch(patiently(lambda deadline: _read_s3(region), timeout), epoch)
    if source in web.CATALOGS:
        # The service has moved the stars already.
        return at_epoch(patiently(lambda deadline: web.query(source, region, epoch, deadline), timeout), epoch)
    if Path(source).is_dir():
        return at_epoch(_read_folder(Path(source), region), epoch)
    return at_epoch(read_file(Path(source), region), epoch)


def _read_s3(region: Region) -> dict[str, np.ndarray]:
    from pyarrow import fs

    # The variables of Amazon's own tools, for a mirror.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    filesystem = fs.S3FileSystem(
        anonymous=True, region=hats.GAIA_DR3_S3_REGION, endpoint_override=endpoint, connect_timeout=_CONNECT_TIMEOUT
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
