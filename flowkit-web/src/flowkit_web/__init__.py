"""FlowKit's web API.

``flowkit web`` serves it. :func:`create_app` returns it as an ASGI application, for a server of
your own.
"""

from flowkit_web._app import create_app
from flowkit_web._config import WebConfig

__all__ = ["WebConfig", "create_app"]
