"""The graphs of the documentation run as shown: without status or attempt, with repeated edges."""

from collections.abc import AsyncIterator
from typing import Any

from flowkit.worker import Batch, BatchResult, Handler, RunContext
from flowkit_testing import Cluster

RECORDS = [{"id": number} for number in range(1, 6)]

SIMPLE_PIPELINE = {
    "nodes": [
        {
            "node_id": "extract",
            "type": "extractor",
            "depends_on": [],
            "io": {"input_inline": {"batch_size": 2}},
        },
        {
            "node_id": "transform",
            "type": "transformer",
            "depends_on": ["extract"],
            "io": {
                "start_when": "first_batch",
                "input_inline": {
                    "input_adapter": "pull.from_artifacts",
                    "input_args": {"from_nodes": ["extract"]},
                },
            },
        },
        {
            "node_id": "load",
            "type": "loader",
            "depends_on": ["transform"],
            "fan_in": "all",
            "io": {
                "input_inline": {
                    "input_adapter": "pull.from_artifacts",
                    "input_args": {"from_nodes": ["transform"]},
                }
            },
        },
    ],
    "edges": [["extract", "transform"], ["transform", "load"]],
}

VARS_AND_STREAMING = {
    "nodes": [
        {"node_id": "indexer", "type": "indexer"},
        {
            "node_id": "proc",
            "type": "processor",
            "depends_on": ["indexer"],
            "io": {"start_when": "first_batch"},
        },
        {
            "node_id": "update_sla",
            "type": "coordinator_fn",
            "depends_on": ["indexer"],
            "io": {
                "fn": "vars.merge",
                "fn_args": {"data": {"sla": {"max_delay": 500}, "flags": {"ab": True}}},
            },
        },
        {
            "node_id": "agg_metrics",
            "type": "coordinator_fn",
            "depends_on": ["proc"],
            "io": {"fn": "metrics.aggregate", "fn_args": {"node_id": "proc", "mode": "sum"}},
        },
    ],
    "edges": [["indexer", "proc"], ["indexer", "update_sla"], ["proc", "agg_metrics"]],
    "edges_ex": [{"from": "indexer", "to": "proc", "mode": "async", "trigger": "on_batch"}],
}

COUNTERS = {
    "nodes": [
        {"node_id": "indexer", "type": "indexer"},
        {
            "node_id": "proc",
            "type": "processor",
            "depends_on": ["indexer"],
            "io": {"start_when": "first_batch"},
        },
        {
            "node_id": "seed_vars",
            "type": "coordinator_fn",
            "depends_on": ["indexer"],
            "io": {"fn": "vars.incr", "fn_args": {"key": "counters.pages", "by": 2}},
        },
    ],
    "edges": [["indexer", "proc"], ["indexer", "seed_vars"]],
    "edges_ex": [{"from": "indexer", "to": "proc", "mode": "async", "trigger": "on_batch"}],
}

FAN_INS = {
    "nodes": [
        *({"node_id": name, "type": "processor"} for name in "abc"),
        {
            "node_id": "combiner",
            "type": "processor",
            "depends_on": ["a", "b", "c"],
            "fan_in": "all",
        },
        {"node_id": "first", "type": "processor", "depends_on": ["a", "b"], "fan_in": "any"},
        {
            "node_id": "analyzer",
            "type": "processor",
            "depends_on": ["a", "b", "c"],
            "fan_in": "count:2",
        },
    ]
}


class Extract(Handler):
    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        size = (loaded.get("input_inline") or {}).get("batch_size", 2)
        for start in range(0, len(RECORDS), size):
            yield Batch(
                batch_uid=f"extract_batch_{start // size}",
                payload={"records": RECORDS[start : start + size]},
            )

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        records = batch.payload["records"]
        return BatchResult(
            success=True, metrics={"records": len(records)}, artifacts_ref={"data": records}
        )


class Passing(Handler):
    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        stamp = ctx.clock.now_dt().isoformat()
        return BatchResult(
            success=True,
            metrics={"batches": 1},
            artifacts_ref={"batch": batch.payload, "processed_at": stamp},
        )


async def test_the_simple_pipeline_runs_as_given(flowkit_cluster: Cluster) -> None:
    handlers = {"extractor": Extract(), "transformer": Passing(), "loader": Passing()}
    view = await flowkit_cluster.run(
        SIMPLE_PIPELINE, handlers=handlers, params={"pipeline_type": "etl_demo"}
    )
    assert view.status == "finished"
    assert view.nodes["extract"].metrics == {"records": 5}
    assert view.nodes["transform"].metrics == view.nodes["load"].metrics == {"batches": 3}
    assert len([artifact async for artifact in flowkit_cluster.client.artifacts(view.id)]) == 9


async def test_vars_streaming_and_aggregation_run_as_given(flowkit_cluster: Cluster) -> None:
    view = await flowkit_cluster.run(
        VARS_AND_STREAMING, handlers={"indexer": Extract(), "processor": Passing()}
    )
    assert view.status == "finished"
    assert view.vars == {"sla": {"max_delay": 500}, "flags": {"ab": True}}
    assert view.nodes["agg_metrics"].result["metrics"] == {"batches": 3}


async def test_counters_run_as_given(flowkit_cluster: Cluster) -> None:
    view = await flowkit_cluster.run(
        COUNTERS, handlers={"indexer": Extract(), "processor": Passing()}
    )
    assert view.vars == {"counters": {"pages": 2}}


async def test_the_three_fan_ins_run_as_given(flowkit_cluster: Cluster) -> None:
    view = await flowkit_cluster.run(FAN_INS, handlers={"processor": Passing()})
    assert {str(node.status) for node in view.nodes.values()} == {"finished"}
