"""The handlers of the flow in ``flow.py``.

All params are optional: ``points`` (number of points, 400), ``seed`` (4), ``required`` (minimum
accuracy of a published model, 0.9) and ``output`` (file to publish to, ``model.json``).
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread

from examples.ml_training.models import (
    Model,
    accuracy,
    descend,
    features,
    ring,
    train_centroids,
    train_tree,
)
from flowkit.errors import NodeFailure
from flowkit.worker import RunContext, handler

POINTS_PER_BATCH = 50
EPOCHS_PER_ROUND = 25


@handler("prepare")
def prepare(item: Any, ctx: RunContext) -> Iterator[dict[str, Any]]:
    """Store points as artifacts: three quarters for training, the rest for testing."""
    points = ring(ctx.params.get("points", 400), ctx.params.get("seed", 4))
    cut = len(points) * 3 // 4
    for part, chosen in (("train", points[:cut]), ("test", points[cut:])):
        for begin in range(0, len(chosen), POINTS_PER_BATCH):
            yield {"part": part, "points": chosen[begin : begin + POINTS_PER_BATCH]}


async def points_for(part: str, ctx: RunContext) -> list[list[float]]:
    return [
        point
        async for stored in ctx.artifacts.read("prepare")
        if stored["part"] == part
        for point in stored["points"]
    ]


@handler("train_centroids")
async def train_centroids_model(item: Any, ctx: RunContext) -> Model:
    return train_centroids(await points_for("train", ctx))


@handler("train_tree")
async def train_tree_model(item: Mapping[str, Any], ctx: RunContext) -> Model:
    return await anyio.to_thread.run_sync(train_tree, await points_for("train", ctx), item["depth"])


@handler("train_linear")
async def train_linear_model(item: Mapping[str, Any], ctx: RunContext) -> Model:
    """Train a linear model in rounds, and report each round with its weights.

    A later attempt continues from the last reported weights, even on another worker. A round that
    diverges fails the attempt. Each attempt uses a quarter of the learning rate of the one before.
    """
    degree, rate = item["degree"], item["rate"] / 4 ** (ctx.attempt - 1)
    points = await points_for("train", ctx)
    best = ctx.progress or {"done": 0, "weights": [0.0] * len(features(0, 0, degree)), "error": 1.0}
    while best["done"] < item["rounds"]:
        weights, error = await anyio.to_thread.run_sync(
            descend, best["weights"], points, degree, rate, EPOCHS_PER_ROUND
        )
        if error > 2 * best["error"]:
            raise NodeFailure(
                f"the error grows to {error:.3g} with the rate {rate:g}", reason_code="diverged"
            )
        best = {"done": best["done"] + 1, "weights": weights, "error": error}
        ctx.heartbeat(best)
    return {"kind": "linear", "degree": degree, "weights": best["weights"]}


@handler("evaluate")
async def evaluate(item: Mapping[str, Any], ctx: RunContext) -> dict[str, Any]:
    """Return the accuracy of a model on the points that were not used for training."""
    model = ctx.results[f"train_{item['model']}"]
    return {
        "name": item["model"],
        "accuracy": accuracy(model, await points_for("test", ctx)),
        "model": model,
    }


@handler("choose")
def choose(item: Any, ctx: RunContext) -> dict[str, Any]:
    """Return the best model, the first by name if several are equal, and a table of all."""
    ranking = sorted(ctx.results.values(), key=lambda result: (-result["accuracy"], result["name"]))
    rows = [[result["name"], result["accuracy"]] for result in ranking]
    return {
        **ranking[0],
        "tables": [{"title": "Models", "columns": ["model", "accuracy"], "rows": rows}],
    }


@handler("publish")
def publish(item: Any, ctx: RunContext) -> dict[str, Any]:
    """Write the model to its file, completely or not at all."""
    best = ctx.results["choose"]
    output = Path(ctx.params.get("output", "model.json"))
    unfinished = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
    unfinished.write_text(json.dumps(best["model"]), encoding="utf-8")
    unfinished.replace(output)
    return {"published": best["name"], "file": str(output), "tables": best["tables"]}


@handler("report")
def report(item: Any, ctx: RunContext) -> dict[str, Any]:
    best = ctx.results["choose"]
    return {"not published": best["name"], "tables": best["tables"]}


HANDLERS = {
    "prepare": prepare,
    "train_centroids": train_centroids_model,
    "train_linear": train_linear_model,
    "train_tree": train_tree_model,
    "evaluate": evaluate,
    "choose": choose,
    "publish": publish,
    "report": report,
}
