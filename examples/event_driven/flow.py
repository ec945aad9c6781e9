"""The flow of one event."""

from flowkit import Graph, flow


@flow
def on_event(g: Graph) -> None:
    """Check the device, store the event, and raise an alert if the value is above the limit."""
    check = g.node("check", "check")
    g.node("store", "store", after=[check])
    g.node("alert", "alert", after=[check], when="results.check.value > results.check.limit")
