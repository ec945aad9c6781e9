"""Context managers of plugins around attempts."""

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from flowkit._user_code.containment import contained, error_text, origin, undo_cancellation
from flowkit._user_code.failure_logs import log_failure
from flowkit.errors import PluginError
from flowkit.plugins import Plugins, raise_named

logger = logging.getLogger(__name__)


@asynccontextmanager
async def surrounded(plugins: Plugins, hook: str, **arguments: Any) -> AsyncIterator[None]:
    """Enter the context managers that plugins return for a hook, and leave them in reverse order.

    They run in the context of the caller, so the code inside sees the context variables that they
    set. They cannot suppress its error.

    Raises:
        FlowKitError: a manager raised on entering, or on leaving after the code inside succeeded.
            The message names the plugin.
    """
    try:
        with ExitStack() as stack:
            for answer in plugins.answers(hook, check=_checked, **arguments):
                stack.enter_context(_Surrounding(plugins, answer.plugin, hook, answer.value))
            await undo_cancellation()
            yield
    finally:
        await undo_cancellation()


def _checked(answer: Any) -> Any:
    if isinstance(answer, AbstractContextManager):
        return answer
    raise PluginError(
        f"it returned an object of the type {type(answer).__name__!r}; a context manager has"
        " __enter__ and __exit__, which are not async"
    )


class _Surrounding:
    """Context manager of a plugin, whose errors name the plugin."""

    def __init__(
        self, plugins: Plugins, plugin: str, hook: str, manager: AbstractContextManager[Any]
    ) -> None:
        self._plugins = plugins
        self._plugin = plugin
        self._hook = hook
        self._manager = manager

    def __enter__(self) -> Self:
        try:
            contained(self._manager.__enter__)
        except Exception as error:
            raise_named(self._plugin, self._hook, origin(error))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            contained(self._manager.__exit__, kind, error, traceback)
        except Exception as raised:
            if error is None:
                raise_named(self._plugin, self._hook, origin(raised))
            if origin(raised) is not error:
                self._log(origin(raised))

    def _log(self, raised: BaseException) -> None:
        """Log an error on leaving, where the error of the code inside counts."""
        log_failure(
            logger,
            self._plugins,
            "Plugin %s raised in %s",
            self._plugin,
            self._hook,
            text=error_text(raised),
            error=raised,
            level=logging.ERROR,
            extra={"action": "plugin_failed", "plugin": self._plugin},
        )
