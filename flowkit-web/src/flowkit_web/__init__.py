"""FlowKit's web API.

``flowkit web`` serves it. :func:`create_app` returns it as an ASGI application, for a server of
your own.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit_web._app import create_app
    from flowkit_web._config import WebConfig

__all__ = ["WebConfig", "create_app"]

_MODULES = {"WebConfig": "_config", "create_app": "_app"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that commands that serve nothing import no server."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
