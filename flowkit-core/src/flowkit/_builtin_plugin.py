"""Plugin with FlowKit's own coordinator functions and input adapters."""

from collections.abc import Callable
from typing import Any


def flowkit_register_functions(register: Callable[[str, Any], None]) -> None:
    """Register the coordinator functions."""
    # Imported only when called, because a worker loads this module too and needs no coordinator.
    from flowkit.coordinator._builtin_functions import register_functions

    register_functions(register)


def flowkit_register_input_adapters(register: Callable[[str, Any], None]) -> None:
    """Register the input adapters."""
    from flowkit.worker._inputs import register_input_adapters

    register_input_adapters(register)
