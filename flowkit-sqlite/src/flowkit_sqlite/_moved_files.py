"""Detection of a file that was moved, deleted or replaced while it was open.

SQLite does not notice it: this process would go on in a file that no other process finds, and whose
write-ahead log is still at the old path.
"""

import os
from pathlib import Path

from flowkit.errors import StoreUnavailable
from flowkit_sqlite._errors import with_remedy

_REMEDY = (
    "if it was moved, move it back; otherwise stop all processes that use it, and start them again"
)


class OpenedPath:
    """The path of a file that has just been opened."""

    def __init__(self, path: Path) -> None:
        """Remember which file is at the path.

        Raises:
            OSError: there is none.
        """
        self.path = path
        self._opened = path.stat()

    def check(self) -> None:
        """Check that the same file is at the path.

        Raises:
            StoreUnavailable: it is not.
        """
        try:
            found = self.path.stat()
        except OSError as error:
            raise self._moved(f"was moved or deleted ({error.strerror})") from None
        if not os.path.samestat(found, self._opened):
            raise self._moved("was replaced by another file")

    def _moved(self, what: str) -> StoreUnavailable:
        fault = f"{self.path} {what} while this process had it open"
        return with_remedy(StoreUnavailable, fault, _REMEDY)
