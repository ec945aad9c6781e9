/** Bars of a lane of the timeline. What is less than a pixel apart is one bar. */

import type { Span } from './spans'

export interface View {
  from: number
  to: number
}

export interface DrawnBar {
  span: Span
  /** Number of spans that the bar stands for. */
  count: number
  /** Parts of the width of the lane, from 0 to 1. */
  left: number
  width: number
}

const LEAST_PX = 2

/** Return the bars of the spans that are in view, in a lane of this width. */
export function drawnSpans(spans: readonly Span[], view: View, now: number, widthPx: number): DrawnBar[] {
  const length = Math.max(1, view.to - view.from)
  const bars: DrawnBar[] = []
  for (const span of spans) {
    const from = Math.max(span.from, view.from)
    const to = Math.min(span.to ?? now, view.to)
    if (to < view.from || from > view.to) continue
    const left = (from - view.from) / length
    const width = Math.max((to - from) / length, LEAST_PX / widthPx)
    const last = bars.at(-1)
    if (last && last.span.kind === span.kind && last.width * widthPx <= 2 * LEAST_PX &&
      (left - last.left) * widthPx < LEAST_PX) {
      last.count += 1
      last.width = Math.max(last.width, left + width - last.left)
      if (span.ending === 'failed') last.span = span
    } else {
      bars.push({ span, count: 1, left, width })
    }
  }
  return bars
}

/** Return the whole time of some spans, with a little room at its end. */
export function wholeView(spans: readonly Span[], now: number): View {
  let from = Infinity
  let to = -Infinity
  for (const span of spans) {
    from = Math.min(from, span.from)
    to = Math.max(to, span.to ?? now)
  }
  if (from > to) return { from: now - 1_000, to: now }
  return { from, to: to + Math.max(1, (to - from) * 0.02) }
}

/** Return a view around a place in the present one; `factor` below 1 zooms in. */
export function zoomed(view: View, whole: View, factor: number, place = 0.5): View {
  const length = Math.min((view.to - view.from) * factor, whole.to - whole.from)
  const middle = view.from + (view.to - view.from) * place
  return moved({ from: middle - length * place, to: middle + length * (1 - place) }, whole, 0)
}

/** Return a view that is moved by parts of its length, within the whole time. */
export function moved(view: View, whole: View, parts: number): View {
  const length = view.to - view.from
  const from = Math.min(Math.max(view.from + parts * length, whole.from), whole.to - length)
  return { from, to: from + length }
}

const STEPS_MS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000,
  600_000, 1_800_000, 3_600_000, 7_200_000, 21_600_000, 43_200_000, 86_400_000, 604_800_000,
]
const MOST_TICKS = 8

/** Return round distances from the beginning of the task, for the axis of a view. */
export function ticksOf(view: View, begin: number): number[] {
  const length = view.to - view.from
  const step = STEPS_MS.find((one) => length / one <= MOST_TICKS) ?? length / MOST_TICKS
  const ticks: number[] = []
  for (let at = Math.ceil((view.from - begin) / step) * step; at <= view.to - begin; at += step) ticks.push(at)
  return ticks
}
