import { expect, test } from 'vitest'
import { drawnSpans, moved, ticksOf, wholeView, zoomed } from './drawn-spans'
import type { Span } from './spans'

function run(from: number, to: number | null, ending = 'finished'): Span {
  return { node: `n${from}`, kind: 'run', from, to, ending, attempt: 1, worker: 'w', note: null, batches: [] }
}

test('thousands of short runs are few bars, and a failed one of them is the one that is named', () => {
  const spans = Array.from({ length: 10_000 }, (_, place) => run(place, place + 1, place === 5_003 ? 'failed' : 'finished'))
  const bars = drawnSpans(spans, { from: 0, to: 10_000 }, 0, 500)
  expect(bars.length).toBeLessThanOrEqual(500)
  expect(bars.reduce((sum, bar) => sum + bar.count, 0)).toBe(10_000)
  expect(bars.filter((bar) => bar.span.ending === 'failed')).toHaveLength(1)
})

test('long runs keep bars of their own, and what is not in view has none', () => {
  const spans = [run(0, 100), run(100, 200), run(200, null)]
  expect(drawnSpans(spans, { from: 50, to: 150 }, 300, 100)).toMatchObject([
    { left: 0, width: 0.5 }, { left: 0.5, width: 0.5 },
  ])
  expect(drawnSpans(spans, { from: 0, to: 300 }, 300, 300)).toHaveLength(3)
})

test('a view is zoomed and moved within the whole time', () => {
  const whole = wholeView([run(0, 100), run(50, null)], 1_000)
  expect(whole).toEqual({ from: 0, to: 1_020 })
  const half = zoomed(whole, whole, 0.5)
  expect(half).toEqual({ from: 255, to: 765 })
  expect(zoomed(half, whole, 100)).toEqual(whole)
  expect(moved(half, whole, 10)).toEqual({ from: 510, to: 1_020 })
})

test('the axis has a few round times from the beginning of the task', () => {
  expect(ticksOf({ from: 1_000, to: 11_000 }, 1_000)).toEqual([0, 2_000, 4_000, 6_000, 8_000, 10_000])
})
