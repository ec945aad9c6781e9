import { expect, test } from 'vitest'
import type { TaskEvent } from '../api/types'
import { applied, countsOf, countsText, dataText, rowsOf, worstOf } from './rows'

let seq = 0

function event(node_id: string, status: string | null, data: unknown = null, kind = 'status'): TaskEvent {
  seq += 1
  return { seq, at: `2026-01-01T00:00:0${seq % 10}Z`, task_id: 't', node_id, kind, status, data }
}

const BASE = rowsOf({ seq: 3, nodes: [{ node_id: 'a', type: 'work', status: 'queued' }] })

test('a retried node has the error of its last attempt until the next one begins', () => {
  const failed = applied(BASE, [
    event('a', 'running', { worker_id: 'w1' }),
    event('a', 'deferred', { reason_code: 'bad', error: 'oh', attempt: 1 }),
  ])
  expect(failed.get('a')).toMatchObject({
    status: 'deferred', attempt: 1, worker_id: 'w1', reason_code: 'bad', error: 'oh',
  })
  const again = applied(failed, [
    event('a', 'queued', { attempt: 2 }), event('a', 'running', { worker_id: 'w2' }),
  ]).get('a')
  expect(again).toMatchObject({ status: 'running', attempt: 2, worker_id: 'w2' })
  expect(again?.error).toBeUndefined()
})

test('progress is kept, and events of other nodes change nothing', () => {
  const rows = applied(BASE, [
    event('a', 'running', {}), event('a', null, { done: 3 }, 'progress'), event('m[3]', 'failed'),
  ])
  expect([...rows.keys()]).toEqual(['a'])
  expect(rows.get('a')?.progress).toEqual({ done: 3 })
})

test('a group is shown by its worst status, with counts', () => {
  const rows = rowsOf({
    seq: 1,
    nodes: [
      { node_id: 'a', type: 'w', status: 'finished' }, { node_id: 'b', type: 'w', status: 'failed' },
      { node_id: 'c', type: 'w', status: 'finished' },
    ],
  })
  const counts = countsOf(['a', 'b', 'c', 'unknown'], rows)
  expect(countsText(counts)).toBe('1 failed, 2 finished')
  expect(worstOf(counts)).toBe('failed')
})

test('an event is told in words', () => {
  expect(dataText(event('a', 'running', { worker_id: 'w1' }))).toBe('on w1')
  expect(dataText(event('a', 'deferred', { reason_code: 'bad', error: 'oh', attempt: 2 })))
    .toBe('attempt 2, bad: oh')
  expect(dataText(event('a', 'finished', { cached: true }))).toBe('taken from the cache')
  expect(dataText(event('a', 'deferred', { waiting: 'approval', other: 1 })))
    .toBe('waits for a decision, {"other":1}')
})
