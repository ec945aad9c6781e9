"""Context managers of plugins around attempts."""

import logging
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from flowkit._user_code.containment import contained, error_text, origin, undo_cancellation
from flowkit._user_code.failure_logs import log_failure
from flowkit.errors import FlowKitError, PluginError
from flowkit.plugins import Answer, Plugins, raise_named

logger = logging.getLogger(__name__)


class surrounded:
    """Enter the context managers that plugins return for a hook, and leave them in reverse order.

    They run in the context of the caller, so the code inside sees the context variables that they
    set. They cannot suppress its error.

    Raises:
        FlowKitError: a manager raised on entering, or on leaving after the code inside succeeded.
            The message names the plugin.
    """

    # No generator with an ExitStack: each attempt enters one, and they take some microseconds more.
    __slots__ = ("_arguments", "_entered", "_hook", "_plugins")

    def __init__(self, plugins: Plugins, hook: str, **arguments: Any) -> None:
        self._plugins = plugins
        self._hook = hook
        self._arguments = arguments
        self._entered: list[Answer] = []

    async def __aenter__(self) -> None:
        managers = self._plugins.answers(self._hook, check=_checked, then=_enter, **self._arguments)
        try:
            for manager in managers:
                self._entered.append(manager)
            await undo_cancellation()
        except BaseException as error:
            await self._leave(error)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave(error)

    async def _leave(self, error: BaseException | None) -> None:
        raised = error
        for manager in reversed(self._entered):
            try:
                self._leave_one(manager, raised)
            except FlowKitError as of_plugin:
                raised = of_plugin
        await undo_cancellation()
        if raised is not None and raised is not error:
            raise raised

    def _leave_one(self, manager: Answer, error: BaseException | None) -> None:
        """Leave the manager of a plugin after this error of the code inside, or None."""
        try:
            if error is None:
                contained(manager.value.__exit__, None, None, None)
            else:
                contained(manager.value.__exit__, type(error), error, error.__traceback__)
        except Exception as raised:
            if error is None:
                raise_named(manager.plugin, self._hook, origin(raised))
            if origin(raised) is not error:
                self._log(manager.plugin, origin(raised))

    def _log(self, plugin: str, raised: BaseException) -> None:
        """Log an error on leaving, where the error of the code inside counts."""
        log_failure(
            logger,
            self._plugins,
            "Plugin %s raised in %s",
            plugin,
            self._hook,
            text=error_text(raised),
            error=raised,
            level=logging.ERROR,
            extra={"action": "plugin_failed", "plugin": plugin},
        )


def _checked(answer: Any) -> Any:
    if isinstance(answer, AbstractContextManager):
        return answer
    raise PluginError(
        f"it returned an object of the type {type(answer).__name__!r}; a context manager has"
        " __enter__ and __exit__, which are not async"
    )


def _enter(manager: AbstractContextManager[Any]) -> None:
    manager.__enter__()
