"""The changes of tasks as other programs receive them from the topic of changes.

The value of a message is one :class:`TaskChange` as JSON, its key is the id of the task, and its
header ``flowkit-version`` is :data:`VERSION`.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

VERSION = 1
"""Version of the format."""


class TaskChange(BaseModel):
    """A change of a task."""

    model_config = ConfigDict(frozen=True, title="TaskChange")

    v: Literal[1] = Field(1, description="Version of the format.")
    task_id: str = Field(description="Id of the task; also the key of the message.")
    seq: int = Field(ge=1, description="Number of the change: 1, 2, 3, … in each task.")
    at: datetime = Field(description="Time of the change, in UTC.")
    kind: str = Field(
        description=(
            "`status`, `progress`, `batch`, `signal`, `resolution` or `children`. New kinds may"
            " be added."
        )
    )
    status: str | None = Field(
        None, description="New status of the node, or of the task, if the change is one of status."
    )
    node_id: str | None = Field(None, description="The node; null for a change of the whole task.")
    data: JsonValue = Field(None, description="More about the change, as in the events of `watch`.")
    data_omitted: bool = Field(
        False,
        description=(
            "`data` is null because the message would have been too large, or because a plugin"
            " encodes payloads."
        ),
    )
    pipeline: str | None = Field(None, description="Pipeline of the task.")
    flow: str | None = Field(None, description="Registered flow of the task.")
    flow_version: int | None = Field(None, description="Version of this flow.")
    parent: str | None = Field(None, description="Task of which this is a child task.")
    labels: dict[str, str] = Field(default_factory=dict, description="Labels of the task.")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a change. Later versions of FlowKit may add fields and kinds; any
    other change of the format changes its version.
    """
    schema = TaskChange.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


__all__ = ["TaskChange", "json_schema"]
