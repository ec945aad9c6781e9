"""Clients, which submit tasks and follow them."""

from flowkit.client._client import Client
from flowkit.client._task_verbs import TaskVerbs

__all__ = ["Client", "TaskVerbs"]
