"""How the last runs ended, should somebody ask because the report was lost."""

from collections import OrderedDict

from flowkit.protocols import Message

MOST = 1_000
MOST_BYTES = 8 * 1024 * 1024

Token = tuple[str, str]


class Ends:
    """The last end reports, as they were sent: as many as there is room for."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self) -> None:
        self._messages: OrderedDict[Token, Message] = OrderedDict()
        self._bytes = 0

    def add(self, token: Token, message: Message) -> None:
        self._messages[token] = message
        self._bytes += len(message.value)
        while len(self._messages) > MOST or self._bytes > MOST_BYTES:
            self._bytes -= len(self._messages.popitem(last=False)[1].value)

    def get(self, token: Token) -> Message | None:
        return self._messages.get(token)
