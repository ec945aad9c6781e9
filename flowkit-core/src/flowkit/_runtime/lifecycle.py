"""Life cycle of objects that are opened and closed."""

from enum import StrEnum
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from flowkit.errors import FlowKitError, NotRunning

R = TypeVar("R")


class LifeState(StrEnum):
    """State of an object in its life cycle."""

    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class Lifecycle(Generic[R]):
    """Life cycle of an object: new, open, closed. A closed object may be opened again.

    It holds the resource that the object has only while it is open, such as a connection. A method
    that needs the resource reads it from :attr:`resource`, which raises one clear error in the
    other states::

        def __init__(self, address: str) -> None:
            self._life = Lifecycle[Connection]("the bus", error=BusError)

        async def __aenter__(self) -> Self:
            self._life.open(await connect(self._address))
            return self

        async def publish(self, messages: Sequence[Message]) -> None:
            await self._life.resource.send(messages)

        async def __aexit__(self, *exc: object) -> None:
            if (connection := self._life.close()) is not None:
                await connection.close()
    """

    __slots__ = ("_error", "_name", "_remedy", "_words", "resource", "state")

    resource: R
    """The resource of the open object. In the other states, reading it raises an error of the type
    that was given to the constructor.
    """

    def __init__(
        self,
        name: str,
        *,
        error: type[FlowKitError] = NotRunning,
        remedy: str = "use it inside 'async with'",
        words: tuple[str, str] = ("not open", "closed"),
    ) -> None:
        """Start as new. Errors are of the type ``error``; their text names the object as ``name``,
        its state by one of ``words`` (new, closed), and ends with ``remedy``.
        """
        self._name = name
        self._error = error
        self._remedy = remedy
        self._words = words
        self.state = LifeState.NEW
        """The current state. Only :meth:`open` and :meth:`close` change it."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            """Raise the error for :attr:`resource`, which is set only while the object is open."""
            if name == "resource":
                self.check_open()
            raise AttributeError(name)

    def check_open(self) -> None:
        """Check that the object is open.

        Raises:
            FlowKitError: it is not. It is the type of error given to the constructor.
        """
        if self.state is not LifeState.OPEN:
            state = self._words[self.state is LifeState.CLOSED]
            raise self._error(f"{self._name} is {state}: {self._remedy}")

    def check_not_open(self) -> None:
        """Check that the object may be opened.

        Raises:
            FlowKitError: it is open. It is the type of error given to the constructor.
        """
        if self.state is LifeState.OPEN:
            raise self._error(f"{self._name} is open already")

    def open(self, resource: R) -> None:
        """Become open, and hold the resource.

        Raises:
            FlowKitError: the object is open. It is the type of error given to the constructor.
        """
        self.check_not_open()
        self.resource = resource
        self.state = LifeState.OPEN

    def close(self) -> R | None:
        """Become closed, and return the resource for its release; None if the object is not
        open.
        """
        if self.state is not LifeState.OPEN:
            return None
        resource = self.resource
        del self.resource
        self.state = LifeState.CLOSED
        return resource
