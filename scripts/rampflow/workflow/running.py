"""A mark in the results folder while a run makes products there, against runs of other working folders.

Snakemake's own lock lies in the working folder, so that it holds off only runs that are started there.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from rampflow.errors import RampflowError
from rampflow.files.atomic import replacing

#: Pattern of the names of the marks. Each run has its own, so that creating one needs no lock.
PATTERN = ".running-*.json"
#: Seconds after which a run touches its mark again.
INTERVAL = 60.0
#: Seconds without a touch after which a run counts as killed: its process can't be looked for on another host.
EXPIRES = 600.0


class Mark(NamedTuple):
    """What a run writes into the results folder.

    Attributes
    ----------
    host : str
        Name of its host.
    process : int
        Number of its process.
    since : str
        When it began.
    folder : str
        Its working folder.
    inode : int
        Inode of this folder: two hosts may have folders of one name.
    names : list of str
        Exposures and associations whose products it makes.
    """

    host: str
    process: int
    since: str
    folder: str
    inode: int
    names: list[str]

    def is_alive(self, age: float) -> bool:
        """Test whether the run continues.

        Parameters
        ----------
        age : float
            Seconds since the mark was touched.

        Returns
        -------
        bool
            False if it was not touched for too long, or if it is of this host, which has no such process.
        """
        if age > EXPIRES:
            return False
        if self.host == socket.gethostname():
            try:
                os.kill(self.process, 0)
            except ProcessLookupError:
                return False
            except PermissionError:  # it is another user's
                pass
        return True


def is_run_alive(results: Path) -> bool:
    """Test whether a run makes products in a results folder.

    Parameters
    ----------
    results : pathlib.Path
        Results folder.

    Returns
    -------
    bool
        Whether a mark there is that of a run that continues.
    """
    for path in results.glob(PATTERN):
        try:
            mark, age = Mark(**json.loads(path.read_text())), time.time() - path.stat().st_mtime
        except (OSError, ValueError, TypeError):  # its run has just ended, or it is another file
            continue
        if mark.is_alive(age):
            return True
    return False


class Running:
    """A run, as runs of other working folders see it.

    Parameters
    ----------
    results : pathlib.Path
        Results folder, an absolute path.
    names : collection of str
        Exposures and associations whose products the run makes.
    """

    def __init__(self, results: Path, names: Collection[str]):
        self.path = results / PATTERN.replace("*", uuid.uuid4().hex[:12])
        self._names, self._ended = sorted(names), threading.Event()

    def begin(self) -> None:
        """Write the mark, and keep it fresh until the run ends.

        Raises
        ------
        RampflowError
            A run of another working folder makes products of the same names, or the results folder can't be written.
        """
        folder, since = Path.cwd(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        mark = Mark(socket.gethostname(), os.getpid(), since, str(folder), folder.stat().st_ino, self._names)
        with replacing(self.path) as partial:
            partial.write_text(json.dumps(mark._asdict()))
        # Of two runs that begin at once, at least one sees the mark of the other.
        try:
            self._refuse_second(mark)
        except RampflowError:
            self.end()
            raise
        threading.Thread(target=self._keep_fresh, daemon=True).start()

    def end(self) -> None:
        """Remove the mark."""
        self._ended.set()
        self.path.unlink(missing_ok=True)

    def _keep_fresh(self) -> None:
        while not self._ended.wait(INTERVAL):
            try:
                os.utime(self.path)
            except OSError:  # somebody has deleted it, or the disk is not there for a while
                continue

    def _refuse_second(self, mine: Mark) -> None:
        now = self.path.stat().st_mtime  # by the clock of the disk, which all hosts share
        for path in self.path.parent.glob(PATTERN):
            if path == self.path:
                continue
            try:
                mark, age = Mark(**json.loads(path.read_text())), now - path.stat().st_mtime
            except (OSError, ValueError, TypeError):  # its run has just ended, or it is another file
                continue
            if not mark.is_alive(age):
                path.unlink(missing_ok=True)
                continue
            common = sorted(set(mark.names) & set(mine.names))
            if common and (mark.folder, mark.inode) != (mine.folder, mine.inode):  # in one folder, Snakemake's lock decides
                raise RampflowError(
                    f"{path.parent}: products of {common[0]}{f' and {len(common) - 1} more' if len(common) > 1 else ''} are "
                    f"being made by another run, in {mark.folder} (process {mark.process} on {mark.host}, since {mark.since}). "
                    f"Wait for its end, or write to another folder (results). If that run was killed, delete {path}, or start "
                    f"again {EXPIRES / 60:.0f} minutes after it was killed"
                )
