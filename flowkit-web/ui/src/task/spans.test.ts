import { expect, test } from 'vitest'
import type { TaskEvent } from '../api/types'
import { density, nodeLanes, spansOf, withBatches, workerLanes } from './spans'

let seq = 0

function event(sec: number, node_id: string | null, status: string, data: unknown = null): TaskEvent {
  seq += 1
  const at = new Date(Date.UTC(2026, 0, 1) + 1_000 * sec).toISOString()
  return { seq, at, task_id: 't', node_id, kind: 'status', status, data }
}

const RETRIED = [
  event(0, null, 'queued'), event(0, 'a', 'queued'), event(1, 'a', 'running', { worker_id: 'w1' }),
  event(3, 'a', 'deferred', { reason_code: 'bad', error: 'oh', attempt: 1 }),
  event(5, 'a', 'queued'), event(5, 'a', 'queued', { attempt: 2 }),
  event(6, 'a', 'running', { worker_id: 'w2' }), event(9, 'a', 'finished'),
]

test('queue time, attempts and pauses before retries are spans of their own', () => {
  const start = Date.UTC(2026, 0, 1)
  expect(spansOf(RETRIED).map((span) => [
    span.kind, (span.from - start) / 1_000, ((span.to ?? 0) - start) / 1_000, span.attempt,
    span.worker, span.ending, span.note,
  ])).toEqual([
    ['queue', 0, 1, 1, null, 'running', null],
    ['run', 1, 3, 1, 'w1', 'deferred', 'oh'],
    ['retry', 3, 5, 1, null, 'queued', null],
    ['queue', 5, 6, 2, null, 'running', null],
    ['run', 6, 9, 2, 'w2', 'finished', null],
  ])
})

test('a wait says what for, and lasts while its node has not ended', () => {
  const spans = spansOf([
    event(0, 's', 'deferred', { attempt: 1 }), event(1, 's', 'deferred', { attempt: 1, waiting: 'signal' }),
  ])
  expect(spans).toMatchObject([{ kind: 'wait', note: 'signal', to: null }])
})

test('a node that is skipped or cancelled before it began has no span', () => {
  expect(spansOf([event(0, 'a', 'skipped', { reason_code: 'condition_false' })])).toEqual([])
})

test('a worker has a lane for each run at a time', () => {
  const run = (from: number, to: number, node: string): TaskEvent[] =>
    [event(from, node, 'running', { worker_id: 'w' }), event(to, node, 'finished')]
  const [a1, a2] = run(0, 4, 'a')
  const [b1, b2] = run(2, 6, 'b')
  const [c1, c2] = run(5, 7, 'c')
  const spans = spansOf([a1, b1, a2, c1, b2, c2].filter((one) => one !== undefined))
  expect(workerLanes(spans).map((lane) => [lane.name, lane.spans.map((span) => span.node)])).toEqual([
    ['w', ['a', 'c']], ['w', ['b']],
  ])
  expect(nodeLanes(spans).map((lane) => lane.name)).toEqual(['a', 'b', 'c'])
})

test('batches are counted by their times in the run that stored them', () => {
  const start = Date.UTC(2026, 0, 1)
  const runs = spansOf([
    event(0, 'a', 'running'), event(10, 'a', 'deferred', { reason_code: 'bad' }),
    event(20, 'a', 'running'), event(30, 'a', 'finished'), event(30, 'b', 'running'),
  ])
  const times = new Map([['a', [1, 1, 9, 25].map((sec) => start + 1_000 * sec)]])
  const [span, ...others] = withBatches(runs, times)
  expect(others.map((one) => one.batches.length)).toEqual([0, 1, 0])
  expect(span && density(span, 0, 5)).toEqual([2, 0, 0, 0, 1])
})

test('a node whose children run is on no worker until its own end runs', () => {
  const children = { ...event(1, 'reads', 'running'), kind: 'children', status: null, data: { number: 2 } }
  const spans = spansOf([
    event(0, 'reads', 'running'), children, event(1, 'reads[0]', 'running', { worker_id: 'w1' }),
    event(4, 'reads[0]', 'finished'), event(4, 'reads', 'queued'),
    event(5, 'reads', 'running', { worker_id: 'w2', attempt: 1 }), event(6, 'reads', 'finished'),
  ])
  expect(nodeLanes(spans).map((lane) => [lane.name, lane.spans.map((span) => span.kind)])).toEqual([
    ['reads', ['run', 'queue', 'run']], ['reads[0]', ['run']],
  ])
  expect(workerLanes(spans).map((lane) => [lane.name, lane.spans.map((span) => span.node)])).toEqual([
    ['w1', ['reads[0]']], ['w2', ['reads']],
  ])
})
