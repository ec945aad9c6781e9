"""A thread for calls that would block an event loop."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class CallThread:
    """Thread that makes calls one after another. It is started when it is needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], None]) -> None:
        """Let the thread make a call, which must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._queue.put(call)

    def stop(self) -> None:
        """Wait until the thread has made all calls, and end it."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            call()
