"""The coordinator, which decides which nodes run and sends commands to workers."""

from flowkit.coordinator._coordinator import Coordinator
from flowkit.coordinator.functions import FunctionContext

__all__ = ["Coordinator", "FunctionContext"]
