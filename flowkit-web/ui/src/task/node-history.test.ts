import { expect, test } from 'vitest'
import type { TaskEvent } from '../api/types'
import { leftOutText, readNodeHistory } from './node-history'

function event(seq: number, kind: string, status: string | null = null, data: unknown = null): TaskEvent {
  return { seq, at: '2026-01-01T00:00:00Z', task_id: 't', node_id: 'a', kind, status, data } as TaskEvent
}

/** Return a reader of some events in pages, the newest first. */
function paged(events: TaskEvent[], size: number) {
  return async (after: string | null) => {
    const rest = events.filter(({ seq }) => seq < Number(after ?? Infinity)).reverse()
    const items = rest.slice(0, size)
    return { items, next: rest.length > size ? String(items.at(-1)?.seq) : null }
  }
}

test('the end of a node is in its history after much progress', async () => {
  const events = [
    event(1, 'status', 'running'), ...Array.from({ length: 99 }, (_, at) => event(at + 2, 'progress')), event(101, 'status', 'finished'),
  ]
  const history = await readNodeHistory(paged(events, 50))
  expect(history.events.map(({ seq }) => seq)).toEqual([1, 101])
  expect(leftOutText(history)).toBe('Not shown: progress.')
  const begin = await readNodeHistory(paged(events, 10))
  expect(begin.events.map(({ seq }) => seq)).toEqual([101])
  expect(leftOutText(begin)).toBe('Not shown: earlier events, progress.')
})

test('the newest events are shown, and that some were before them', async () => {
  const history = await readNodeHistory(paged(Array.from({ length: 450 }, (_, at) => event(at + 1, 'batch')), 100))
  expect(history.events.map(({ seq }) => seq)).toEqual(Array.from({ length: 200 }, (_, at) => at + 251))
  expect(leftOutText(history)).toBe('Not shown: earlier events.')
})

test('a history that is shown whole leaves nothing out', async () => {
  const history = await readNodeHistory(paged([event(1, 'status')], 100))
  expect(history.events).toHaveLength(1)
  expect(leftOutText(history)).toBeNull()
})

test('a status that lasts is shown once, unless an event says more', async () => {
  const events = [
    event(1, 'status', 'deferred'), event(2, 'status', 'queued', { retry: true }), event(3, 'status', 'queued'),
    event(4, 'status', 'running', { worker_id: 'w' }), event(5, 'status', 'running', { worker_id: 'v' }),
    event(6, 'batch', 'finished'), event(7, 'status', 'finished'),
  ]
  const history = await readNodeHistory(paged(events, 100))
  expect(history.events.map(({ seq }) => seq)).toEqual([1, 2, 4, 5, 6, 7])
})
