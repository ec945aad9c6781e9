"""The coordinator: it decides what runs, and sends the commands."""

from flowkit.coordinator._coordinator import Coordinator
from flowkit.coordinator.functions import FunctionContext

__all__ = ["Coordinator", "FunctionContext"]
