"""Views of triggers for users."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from flowkit._triggers._trigger import Trigger


class TriggerView(BaseModel):
    """A trigger at one moment."""

    model_config = ConfigDict(frozen=True)

    id: str
    trigger: Trigger
    """The trigger as it was put."""
    paused: bool
    created_at: datetime
    behind: int | None = None
    """Events for which it has made no task yet, at most 1,000 ends of tasks. None if they were not
    counted, or its source did not answer.
    """
