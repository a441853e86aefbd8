"""Interrupts: the first Ctrl-C asks a run to stop after its step, the second stops it at once.

SIGTERM asks in the same way. A signal that the process ignores (as under nohup) stays ignored, and outside
the main thread, where Python hears no signals, nothing changes.
"""

from __future__ import annotations

import signal
from threading import current_thread, main_thread
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """A context manager; `asked` is whether the run is to stop. Handlers that were there come back."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if current_thread() is main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before not in (None, signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if self.asked and error is None:  # asked when there was no step left to stop after
            raise KeyboardInterrupt
