"""The flow: train several models at once, evaluate each, and publish the best if good enough."""

from typing import Any

from flowkit import Graph, flow

TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "centroids": ("train_centroids", {}),
    "linear": ("train_linear", {"degree": 1, "rate": 0.5, "rounds": 4}),
    "quadratic": ("train_linear", {"degree": 2, "rate": 4.0, "rounds": 8}),
    "tree": ("train_tree", {"depth": 5}),
}
"""Role and settings of the training, by the model's name. The rate of ``quadratic`` is too high on
purpose.
"""
TIMEOUTS: dict[str, dict[str, float]] = {
    "train_centroids": {"start_to_close_sec": 600},
    "train_linear": {"start_to_close_sec": 600, "heartbeat_sec": 120},
    "train_tree": {"start_to_close_sec": 600},
}
"""Time limits by role. Only ``train_linear`` reports progress, so only it has ``heartbeat_sec``."""
GOOD_ENOUGH = "results.choose.accuracy >= (has(params.required) ? params.required : 0.9)"


@flow
def training(g: Graph) -> None:
    prepare = g.node("prepare", "prepare")
    evaluations = []
    for name, (role, settings) in TRAININGS.items():
        train = g.node(
            f"train_{name}",
            role,
            after=[prepare],
            input_inline=settings,
            retry_policy={"max": 3, "backoff_sec": 0.1},
            timeouts=TIMEOUTS[role],
        )
        evaluations.append(
            g.node(
                f"evaluate_{name}", "evaluate", after=[prepare, train], input_inline={"model": name}
            )
        )
    choose = g.node("choose", "choose", after=evaluations)
    g.node("publish", "publish", after=[choose], when=GOOD_ENOUGH)
    g.node("report", "report", after=[choose], when=f"!({GOOD_ENOUGH})")
