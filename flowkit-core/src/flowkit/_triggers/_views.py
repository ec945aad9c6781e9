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
