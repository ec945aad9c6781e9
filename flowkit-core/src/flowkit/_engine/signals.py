"""Signals: a task keeps each one until one of its nodes takes it."""

from dataclasses import replace
from typing import Any

from flowkit._engine.events import SignalReceived
from flowkit._engine.node_ends import finish_node
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._engine.wait_records import start_wait, time_out, timeout_at
from flowkit.task import Mark, Signal, SignalBox, Wait

MAX_KEPT = 1_000
"""Signals of a task that no node has taken. Above this number, further ones are refused."""


def start_wait_signal(draft: Transition, index: int, io: Any, settings: EngineSettings) -> None:
    """Take the oldest signal that fits, or wait for one."""
    box = draft.signals
    found = next((signal for signal in box.kept if _fits(signal, index, io.signal)), None)
    if found is None:
        start_wait(
            draft, index, Wait("signal", timeout_at(draft, index, io), {"signal": io.signal})
        )
        return
    draft.signals = replace(box, kept=tuple(signal for signal in box.kept if signal is not found))
    draft.signals_changed = True
    _take_signal(draft, index, found, settings)


def signal_received(draft: Transition, event: SignalReceived, settings: EngineSettings) -> None:
    """Give a signal to the node that has waited for it the longest, or keep it for a later one."""
    box = draft.signals
    if draft.status.terminal or event.signal_id in box.ids or len(box.kept) >= MAX_KEPT:
        draft.ignored = True
        return
    number = box.received + 1
    signal = Signal(number, event.name, event.payload, draft.now, event.nodes)
    draft.note(-1, "signal", None, {"signal": event.name, "number": number})
    index = _waiting_node(draft, signal)
    draft.signals = SignalBox(
        received=number,
        kept=(*box.kept, signal) if index is None else box.kept,
        ids=box.ids if event.signal_id is None else (*box.ids, event.signal_id),
    )
    draft.signals_changed = True
    if index is not None:
        _take_signal(draft, index, signal, settings)


def _waiting_node(draft: Transition, signal: Signal) -> int | None:
    """Return the node that has waited for a signal the longest, or None."""
    waiting = []
    for index in draft.task.spec.plan.controls:
        record = draft.record(index)
        if draft.mark(index) == Mark.DEFERRED and record.wait is not None:
            name = record.wait.arguments.get("signal")
            if name is not None and _fits(signal, index, name):
                waiting.append((record.issued_at, index))
    return min(waiting)[1] if waiting else None


def _fits(signal: Signal, index: int, name: str) -> bool:
    return signal.name == name and (signal.nodes is None or index in signal.nodes)


def _take_signal(draft: Transition, index: int, signal: Signal, settings: EngineSettings) -> None:
    draft.edit(index).result = signal.payload
    data = {"signal": signal.name, "number": signal.number}
    finish_node(draft, index, settings, data=data)


def signal_timeout(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Skip or fail a node for which no signal came in time."""
    wait = draft.record(index).wait
    assert wait is not None
    time_out(draft, index, "signal_timeout", f"signal {wait.arguments['signal']!r}", settings)
