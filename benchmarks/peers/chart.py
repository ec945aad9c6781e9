"""The chart of the page about performance: a panel for each workload, a bar for each system."""

from collections.abc import Iterator
from xml.sax.saxutils import escape

from benchmarks.peers.report import amount
from benchmarks.peers.results import Results
from benchmarks.peers.systems import System
from benchmarks.peers.workloads import WORKLOADS, Workload

PANELS = ("chain", "fan-1000", "tasks", "stream")
COLUMNS = 2
MARGIN, GAP = 16, 24
LABEL, BAR, VALUE = 190, 150, 60
PANEL_WIDTH = LABEL + BAR + VALUE
TITLE_HEIGHT, ROW_HEIGHT, BAR_HEIGHT = 28, 20, 12
OURS, OTHERS, BARE = "#3f51b5", "#9fa6b8", "#d9dce4"
STYLE = "text{font:12px sans-serif;fill:#222}.title{font-weight:600}.label{text-anchor:end}"


def color(system: System) -> str:
    if system.ours:
        return OURS
    return BARE if system.name == "bare-loop" else OTHERS


def rates(results: Results, workload: Workload) -> list[tuple[System, float | None]]:
    """Return the steps a second of each system; None where it was not measured."""
    found = ((one, results.median(one.name, workload.name)) for one in results.systems())
    return [(one, workload.steps / figure.seconds if figure else None) for one, figure in found]


def panel(results: Results, workload: Workload, left: int, top: int) -> Iterator[str]:
    """Yield the elements of a panel."""
    title = f"{workload.title[0].upper()}{workload.title[1:]}: steps a second"
    yield f'<text class="title" x="{left}" y="{top + 14}">{escape(title)}</text>'
    measured = rates(results, workload)
    highest = max((rate for _, rate in measured if rate), default=1.0)
    for number, (system, rate) in enumerate(measured):
        y = top + TITLE_HEIGHT + number * ROW_HEIGHT
        base = y + BAR_HEIGHT - 2
        width = BAR * (rate or 0.0) / highest
        yield f'<text class="label" x="{left + LABEL - 8}" y="{base}">{escape(system.title)}</text>'
        yield (
            f'<rect x="{left + LABEL}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}"'
            f' fill="{color(system)}"/>'
        )
        shown = amount(rate) if rate else "not measured"
        yield f'<text x="{left + LABEL + width + 6:.1f}" y="{base}">{shown}</text>'


def chart(results: Results) -> str:
    """Return the chart as an SVG image on white."""
    height = TITLE_HEIGHT + len(results.systems()) * ROW_HEIGHT
    rows = -(-len(PANELS) // COLUMNS)
    size = (
        2 * MARGIN + COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GAP,
        2 * MARGIN + rows * height + (rows - 1) * GAP,
    )
    elements = [
        element
        for place, name in enumerate(PANELS)
        for element in panel(
            results,
            WORKLOADS[name],
            MARGIN + place % COLUMNS * (PANEL_WIDTH + GAP),
            MARGIN + place // COLUMNS * (height + GAP),
        )
    ]
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}"'
                f' viewBox="0 0 {size[0]} {size[1]}" role="img">'
            ),
            "<title>Steps a second of each system, by workload</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{size[0]}" height="{size[1]}" fill="#fff"/>',
            *elements,
            "</svg>\n",
        ]
    )
