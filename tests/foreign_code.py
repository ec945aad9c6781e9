"""Errors of handlers, functions and plugins that are not an ``Exception``."""

import asyncio
from collections.abc import Callable
from typing import Any

from flowkit.errors import NodeFailure


class Panic(BaseException):
    """As native code raises it."""


class Unreadable(Exception):
    def __str__(self) -> str:
        raise AttributeError("response")

    __repr__ = __str__


class UnreadablePanic(BaseException):
    def __str__(self) -> str:
        raise Panic("no text")

    __repr__ = __str__


class _WithoutName(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise Panic("no name")


class Nameless(Exception, metaclass=_WithoutName):
    pass


class Closed(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class ClosedPanic(BaseException):
    def __getattribute__(self, name: str) -> Any:
        raise Panic(name)


class Classless(Exception):
    @property
    def __class__(self) -> Any:
        raise Panic("no class")

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise Panic("no class")


class WronglyCoded(NodeFailure):
    def __init__(self) -> None:
        super().__init__("wrong", reason_code=[Panic], permanent=Unreadable)  # type: ignore[arg-type]


KINDS: dict[str, Callable[[], BaseException]] = {
    "panic": lambda: Panic("native code panicked"),
    "group": lambda: BaseExceptionGroup("several", [Panic("one"), ValueError("two")]),
    "generator exit": GeneratorExit,
    "system exit": lambda: SystemExit(3),
    "keyboard interrupt": KeyboardInterrupt,
    "cancelled error": asyncio.CancelledError,
    "unreadable": Unreadable,
    "unreadable panic": UnreadablePanic,
    "wrong reason code": WronglyCoded,
    "nameless": Nameless,
    "closed": Closed,
    "closed panic": ClosedPanic,
    "classless": Classless,
    "group of closed": lambda: ExceptionGroup("several", [ValueError("one"), Closed()]),
}


def own_task() -> Any:
    task = asyncio.current_task()
    assert task is not None
    return task


def misbehave(kind: Any) -> None:
    """Raise an error of this kind, or cancel the current task; do nothing for None."""
    if kind == "cancels itself":
        own_task().cancel()
    elif kind is not None:
        raise KINDS[kind]()
