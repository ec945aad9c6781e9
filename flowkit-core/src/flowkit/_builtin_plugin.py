"""What FlowKit brings along, offered through the hooks that everyone uses."""

from collections.abc import Callable
from typing import Any


def flowkit_register_functions(register: Callable[[str, Any], None]) -> None:
    """The coordinator functions."""
    # Not imported before it is asked: a worker loads this module too, and needs no coordinator.
    from flowkit.coordinator._builtin_functions import register_functions

    register_functions(register)


def flowkit_register_input_adapters(register: Callable[[str, Any], None]) -> None:
    """The input adapters."""
    from flowkit.worker._batch_sources import register_input_adapters

    register_input_adapters(register)
