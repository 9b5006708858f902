"""Raw files that arrive in a folder: which of them can be read, and which visits can be processed.

The folder is polled, because network file systems don't report changes made by other hosts.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Container, Iterable
from pathlib import Path

from rampflow.errors import RampflowError
from rampflow.files import links
from rampflow.workflow.association import describe_visits
from rampflow.workflow.exposure_names import RAW_SUFFIX, stem_of, visit_of
from rampflow.workflow.headers import read_header


@dataclasses.dataclass
class Visit:
    """The raw files of a visit in the folder.

    Attributes
    ----------
    changed : float
        When a file of it was new, or was still growing, by the clock of `Arrivals`.
    arrived : dict
        Stamp of each file that has arrived (see `rampflow.files.links.stamp_of`), by its path.
    unreadable : dict of pathlib.Path to str
        What is wrong with the files that don't change any more and can't be read.
    started : dict
        What `arrived` was when the visit was processed last.
    members : list of pathlib.Path
        All files with which it was processed last, with those that could not be read.
    previous : list of pathlib.Path
        What `members` was before.
    is_repeated : bool
        Whether the visit has been noted for a second run (see `Arrivals.repeat`) since its last new file.
    """

    changed: float
    arrived: dict[Path, list[int]] = dataclasses.field(default_factory=dict)
    unreadable: dict[Path, str] = dataclasses.field(default_factory=dict)
    started: dict[Path, list[int]] = dataclasses.field(default_factory=dict)
    members: list[Path] = dataclasses.field(default_factory=list)
    previous: list[Path] = dataclasses.field(default_factory=list)
    is_repeated: bool = False


class Arrivals:
    """The raw files of a folder while they arrive.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the raw files; folders in it are not searched.
    complete : int or None
        Number of exposures with which a visit is complete. None: unknown.
    timeout : float
        Seconds without a new file after which an incomplete visit is processed.
    clock : callable
        Returns the time in seconds.
    read : callable
        Reads the header of a file; raises a `RampflowError` if that is not possible yet.

    Attributes
    ----------
    visits : dict of str to Visit
        The visits, by their names.
    """

    def __init__(
        self,
        folder: Path,
        complete: int | None,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        read: Callable[[Path], object] = read_header,
    ):
        self.folder, self.complete, self.timeout = folder.absolute(), complete, timeout
        self.visits: dict[str, Visit] = {}
        self._clock, self._read = clock, read
        self._stamps: dict[Path, list[int]] = {}
        self._fault = ""

    def poll(self) -> tuple[list[str], list[str]]:
        """Look at the folder. A file has arrived when it is unchanged since the last look, and its header can be read.

        Returns
        -------
        events : list of str
            A line for each file that has arrived.
        warnings : list of str
            A line for each file that doesn't change any more and can't be read, and for a folder that can't be read. Each is
            returned once.
        """
        events: list[str] = []
        warnings: list[str] = []
        try:
            stamps = self._stamps_now()
        except OSError as error:
            fault = f"{self.folder}: can't be read ({error.strerror}); trying again"
            warnings += [fault] * (fault != self._fault)
            self._fault = fault
            return events, warnings
        self._fault = ""
        for path in sorted(stamps):
            try:
                name = visit_of(stem_of(path))
            except RampflowError as error:
                warnings += [str(error)] * (path not in self._stamps)
                continue
            visit = self.visits.setdefault(name, Visit(self._clock()))
            if stamps[path] != self._stamps.get(path):  # it is new, or still growing
                visit.changed = self._clock()
            elif visit.arrived.get(path) != stamps[path]:
                self._try_to_read(path, stamps[path], visit, events, warnings)
        for visit in self.visits.values():
            for files in (visit.arrived, visit.unreadable):
                for path in set(files) - set(stamps):
                    del files[path]
        self._stamps = stamps
        return events, warnings

    def _stamps_now(self) -> dict[Path, list[int]]:
        """Stamps of the raw files in the folder; without those that vanish meanwhile."""
        stamps = {}
        for name in os.listdir(self.folder):
            path = self.folder / name
            if name.endswith(RAW_SUFFIX) and not name.startswith("."):
                try:
                    stamps[path] = links.stamp_of(path.stat())
                except FileNotFoundError:
                    continue
        return stamps

    def _try_to_read(self, path: Path, stamp: list[int], visit: Visit, events: list[str], warnings: list[str]) -> None:
        try:
            self._read(path)
        except RampflowError as error:
            visit.arrived.pop(path, None)
            if visit.unreadable.get(path) != str(error):
                warnings.append(f"{stem_of(path)}: can't be read yet: {error}")
            visit.unreadable[path] = str(error)
            return
        visit.arrived[path], visit.changed, visit.is_repeated = stamp, self._clock(), False
        visit.unreadable.pop(path, None)
        of = f" of {self.complete}" if self.complete and len(visit.arrived) <= self.complete else ""
        events.append(f"{stem_of(path)}: arrived, {len(visit.arrived)}{of} of its visit")

    def is_complete(self, name: str) -> bool:
        """Test whether a visit has the number of exposures with which it is complete.

        Parameters
        ----------
        name : str
            Name of the visit.

        Returns
        -------
        bool
            False where this number is unknown.
        """
        return self.complete is not None and len(self.visits[name].arrived) >= self.complete

    def ready(self) -> list[str]:
        """List the visits to process: with new exposures, and complete or without a new file for the time-out.

        Returns
        -------
        list of str
            Sorted names; none while the folder can't be read. Visits that are processed once more are alone, so that one that
            no run can begin with doesn't hold up the others.
        """
        now = self._clock()
        found = sorted(
            name
            for name, visit in self.visits.items()
            if not self._fault
            and any(visit.started.get(path) != stamp for path, stamp in visit.arrived.items())
            and ((self.is_complete(name) and not visit.is_repeated) or now - visit.changed >= self.timeout)
        )
        new = [name for name in found if not self.visits[name].is_repeated]
        return new or found[:1]

    def repeat(self, names: Iterable[str], *, again: bool = False) -> list[str]:
        """Note that a run could not process visits: each is processed once more, after the time-out.

        Parameters
        ----------
        names : iterable of str
            Names of the visits.
        again : bool
            Whether visits are processed again that have been before, and have no new file since.

        Returns
        -------
        list of str
            Those that are processed once more.
        """
        repeated = [name for name in names if again or not self.visits[name].is_repeated]
        for name in repeated:
            visit = self.visits[name]
            visit.started, visit.changed, visit.is_repeated = {}, self._clock(), True
        return repeated

    def leave_out(self, names: Iterable[str]) -> None:
        """Note that a run could not begin with visits: those of other visits are without their new files.

        Parameters
        ----------
        names : iterable of str
            Names of the visits.
        """
        for name in names:
            self.visits[name].members = self.visits[name].previous

    def visits_of(self, stems: Container[str]) -> list[str]:
        """List the visits of which some exposures have arrived.

        Parameters
        ----------
        stems : container of str
            Names of the exposures.

        Returns
        -------
        list of str
            Names of the visits.
        """
        return [name for name, visit in self.visits.items() if any(stem_of(path) in stems for path in visit.arrived)]

    def start(self, names: Iterable[str]) -> dict:
        """Note that visits are processed, and describe them together with those that were processed before.

        Parameters
        ----------
        names : iterable of str
            Names of the visits, see `ready`.

        Returns
        -------
        dict
            Content of an association file. It has the files that can't be read, too, so that the run names them.
        """
        for name in names:
            visit = self.visits[name]
            visit.started = dict(visit.arrived)
            visit.previous, visit.members = visit.members, sorted({*visit.arrived, *visit.unreadable})
        return describe_visits({name: list(map(str, visit.members)) for name, visit in self.visits.items() if visit.members})
