"""Notice that a user or a batch system ends a run early."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interruptions:
    """Note SIGINT (Ctrl-C) and SIGTERM, and pass them on to the handler that was set before.

    Attributes
    ----------
    noted : bool
        Whether one of them has been received.
    """

    def __init__(self) -> None:
        self.noted = False

    def watch(self) -> None:
        """Begin to note them. Python sets signal handlers in the main thread only; in others nothing is noted."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if callable(before):
                signal.signal(number, self._noting(before))

    def _noting(self, before: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], Any]:
        def note(number: int, frame: FrameType | None) -> Any:
            self.noted = True
            return before(number, frame)

        return note
