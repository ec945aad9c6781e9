"""The settings that the processes of one measurement share.

The command lines of other projects start their workers, and import a module by name. So the
settings come to these processes in a variable of the environment.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "PEERS_SETTINGS"


@dataclass(frozen=True, slots=True)
class Settings:
    """A system, and the servers on which one measurement runs it."""

    system: str
    name: str
    """Prefix of queues and databases, different in each measurement."""
    addresses: Mapping[str, str]
    """Address of each service."""
    pids: Mapping[str, tuple[int, ...]]
    """Processes of each service."""
    folder: str
    """Folder for files, which is empty at first."""

    @property
    def figures(self) -> Path:
        """File of the figures. What systems print themselves does not mix with them there."""
        return Path(self.folder, "figures.jsonl")

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def from_environment() -> Settings:
    return Settings(**json.loads(os.environ[VARIABLE]))
