"""Small models that classify points.

A point is ``[x, y, label]`` with the label 0 or 1. A trained model is a JSON object, so it can be a
node's result.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

Point = Sequence[float]
Model = dict[str, Any]


def ring(count: int, seed: int) -> list[list[float]]:
    """Return points in a square.

    Points within a circle have the label 1. One point in twenty has the wrong label.
    """
    chances = Random(seed)
    points = []
    for _ in range(count):
        x, y = chances.uniform(-1, 1), chances.uniform(-1, 1)
        label = math.hypot(x, y) < 0.75
        points.append([round(x, 3), round(y, 3), float(label != (chances.random() < 0.05))])
    return points


def accuracy(model: Model, points: Sequence[Point]) -> float:
    """Return the share of points whose label the model predicts."""
    predict = PREDICT[model["kind"]]
    return sum(predict(model, x, y) == bool(label) for x, y, label in points) / len(points)


# ---------------------------------------------------------------- centroids


def train_centroids(points: Sequence[Point]) -> Model:
    """Return the middle of each class."""
    middles = []
    for wanted in (0, 1):
        members = [(x, y) for x, y, label in points if label == wanted]
        middles.append([sum(axis) / len(members) for axis in zip(*members, strict=True)])
    return {"kind": "centroids", "middles": middles}


def _nearest(model: Model, x: float, y: float) -> bool:
    zero, one = (math.dist(middle, (x, y)) for middle in model["middles"])
    return one < zero


# ---------------------------------------------------------------- linear models


def features(x: float, y: float, degree: int) -> list[float]:
    return [1.0, x, y] if degree == 1 else [1.0, x, y, x * x, y * y, x * y]


def descend(
    weights: list[float], points: Sequence[Point], degree: int, rate: float, epochs: int
) -> tuple[list[float], float]:
    """Return the weights after gradient descent, and their mean squared error.

    The error grows without limit if the rate is too high.
    """
    rows = [(features(x, y, degree), 2 * label - 1) for x, y, label in points]
    for _ in range(epochs):
        errors = [_dot(weights, row) - target for row, target in rows]
        slopes = [
            sum(error * row[i] for error, (row, _) in zip(errors, rows, strict=True)) / len(rows)
            for i in range(len(weights))
        ]
        weights = [weight - rate * slope for weight, slope in zip(weights, slopes, strict=True)]
    return weights, sum((_dot(weights, row) - target) ** 2 for row, target in rows) / len(rows)


def _above(model: Model, x: float, y: float) -> bool:
    return _dot(model["weights"], features(x, y, model["degree"])) > 0


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------- decision tree


def train_tree(points: Sequence[Point], depth: int) -> Model:
    """Return a decision tree of at most this depth."""
    return {"kind": "tree", "root": _grow(points, depth)}


def _grow(points: Sequence[Point], depth: int) -> Any:
    ones = sum(label for _, _, label in points)
    if depth == 0 or ones in (0, len(points)):
        return {"label": ones * 2 > len(points)}
    axis, limit = min(
        ((axis, point[axis]) for axis in (0, 1) for point in points),
        key=lambda split: _impurity(points, *split),
    )
    below, rest = _split(points, axis, limit)
    if not below or not rest:
        return {"label": ones * 2 > len(points)}
    return {
        "axis": axis,
        "limit": limit,
        "below": _grow(below, depth - 1),
        "rest": _grow(rest, depth - 1),
    }


def _split(points: Sequence[Point], axis: int, limit: float) -> tuple[list[Point], list[Point]]:
    return [point for point in points if point[axis] < limit], [
        point for point in points if point[axis] >= limit
    ]


def _impurity(points: Sequence[Point], axis: int, limit: float) -> float:
    total = 0.0
    for side in _split(points, axis, limit):
        ones = sum(label for _, _, label in side)
        total += ones * (len(side) - ones) / len(side) if side else 0.0
    return total


def _descend_tree(model: Model, x: float, y: float) -> bool:
    node = model["root"]
    while "label" not in node:
        node = node["below"] if (x, y)[node["axis"]] < node["limit"] else node["rest"]
    return bool(node["label"])


PREDICT: Mapping[str, Callable[[Model, float, float], bool]] = {
    "centroids": _nearest,
    "linear": _above,
    "tree": _descend_tree,
}
