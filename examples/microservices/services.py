"""Three services that stand for real ones.

Each request carries a key. Requests with the same key are executed once.
"""


class Stock:
    """Goods on shelves, reserved for orders."""

    def __init__(self, **pieces: int) -> None:
        self.pieces = pieces
        self.reserved: dict[str, tuple[str, int]] = {}
        self.released: set[str] = set()

    async def reserve(self, key: str, item: str, count: int) -> None:
        """Take goods off the shelf.

        Raises:
            LookupError: too few goods are left, or the reservation was released before this late
                request.
        """
        if key in self.reserved:
            return
        if key in self.released:
            raise LookupError("the reservation was released")
        if self.pieces.get(item, 0) < count:
            raise LookupError(f"{item}: {self.pieces.get(item, 0)} left, {count} ordered")
        self.pieces[item] -= count
        self.reserved[key] = (item, count)

    async def release(self, key: str) -> None:
        """Put goods back on the shelf. Does nothing if the reservation is released already."""
        self.released.add(key)
        item, count = self.reserved.pop(key, ("", 0))
        if count:
            self.pieces[item] += count


class Payments:
    """Charges of cards.

    The answer to the first request of each charge is lost, after the card was charged.
    """

    def __init__(self, *, declined: tuple[str, ...] = ()) -> None:
        self.declined = declined
        self.charges: dict[str, int] = {}
        self.refunds: dict[str, int] = {}
        self.requests = 0

    async def charge(self, key: str, card: str, amount: int) -> None:
        """Charge a card.

        Raises:
            PermissionError: the bank declines the card, or the charge was refunded before this late
                request.
            ConnectionError: there was no answer; the card may have been charged.
        """
        self.requests += 1
        if card in self.declined or key in self.refunds:
            raise PermissionError(f"card {card!r} is declined")
        is_first_request = key not in self.charges
        self.charges.setdefault(key, amount)
        if is_first_request:
            raise ConnectionError("no answer from the bank")

    async def refund(self, key: str) -> int:
        """Refund a charge and return the amount, which is 0 if the card was not charged."""
        return self.refunds.setdefault(key, self.charges.get(key, 0))

    @property
    def balance(self) -> int:
        return sum(self.charges.values()) - sum(self.refunds.values())


class Shipping:
    """Parcels on their way."""

    def __init__(self) -> None:
        self.parcels: dict[str, str] = {}

    async def ship(self, key: str, address: str) -> str:
        """Send a parcel, and return its number.

        Raises:
            LookupError: no carrier delivers there.
        """
        if address == "unknown":
            raise LookupError(f"no carrier delivers to {address!r}")
        return self.parcels.setdefault(key, f"parcel-{len(self.parcels) + 1}")
