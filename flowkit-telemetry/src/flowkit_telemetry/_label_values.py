"""Bounded sets of label values."""

MOST_VALUES = 200
OTHER = "other"


class LabelValues:
    """Values of the labels of metrics, at most 200 of each label.

    Pipelines and roles come from users, and each value costs memory here and in Prometheus. Later
    values become ``other``.
    """

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._known: dict[str, set[str]] = {}

    def bounded(self, label: str, value: str) -> str:
        """Return the value, or ``other`` if there are too many values of this label."""
        known = self._known.setdefault(label, set())
        if value in known:
            return value
        if len(known) >= self._most:
            return OTHER
        known.add(value)
        return value
