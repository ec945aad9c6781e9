"""Context managers of plugins around attempts."""

import logging
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from flowkit._user_code.containment import contained, error_text, origin, undo_cancellation
from flowkit._user_code.failure_logs import log_failure
from flowkit.errors import FlowKitError, PluginError
from flowkit.plugins import Plugins, raise_named

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
        self._entered: list[_Surrounding] = []

    async def __aenter__(self) -> None:
        try:
            for answer in self._plugins.answers(self._hook, check=_checked, **self._arguments):
                one = _Surrounding(self._plugins, answer.plugin, self._hook, answer.value)
                one.enter()
                self._entered.append(one)
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
        for one in reversed(self._entered):
            try:
                one.leave(raised)
            except FlowKitError as of_plugin:
                raised = of_plugin
        await undo_cancellation()
        if raised is not None and raised is not error:
            raise raised


def _checked(answer: Any) -> Any:
    if isinstance(answer, AbstractContextManager):
        return answer
    raise PluginError(
        f"it returned an object of the type {type(answer).__name__!r}; a context manager has"
        " __enter__ and __exit__, which are not async"
    )


class _Surrounding:
    """Context manager of a plugin, whose errors name the plugin."""

    __slots__ = ("_hook", "_manager", "_plugin", "_plugins")

    def __init__(
        self, plugins: Plugins, plugin: str, hook: str, manager: AbstractContextManager[Any]
    ) -> None:
        self._plugins = plugins
        self._plugin = plugin
        self._hook = hook
        self._manager = manager

    def enter(self) -> None:
        try:
            contained(self._manager.__enter__)
        except Exception as error:
            raise_named(self._plugin, self._hook, origin(error))

    def leave(self, error: BaseException | None) -> None:
        """Leave after this error of the code inside, or None."""
        try:
            if error is None:
                contained(self._manager.__exit__, None, None, None)
            else:
                contained(self._manager.__exit__, type(error), error, error.__traceback__)
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
