"""The flow of one event."""

from flowkit import Graph, flow


@flow
def on_event(g: Graph) -> None:
    """Check the event against the list of devices, store it, and raise an alert if its value is
    above the device's limit.
    """
    check = g.node("check", "check")
    g.node("store", "store", after=[check])
    g.node("alert", "alert", after=[check], when="results.check.value > results.check.limit")
