import { expect, test } from 'vitest'
import type { Stats } from '../api/types'
import { concernsOf } from './concerns'

const WELL: Stats = {
  at: '2026-01-01T12:00:00Z', most: 1_000, open: {}, retrying: 0, waiting: {},
  ended_last_hour: { finished: 9, failed: 0 }, ended_last_day: {}, failures_last_day: {},
  queues: [{ role: 'read', waiting: 3, oldest_at: '2026-01-01T11:59:30Z', limited: false }],
  workers: { live: 1, silent: 0, running: 0, slots: 4 }, coordinators: { live: 1, silent: 0 },
  letters: 0, most_letters: 100,
}

test('an installation that works has no concerns', () => {
  expect(concernsOf(WELL)).toEqual([])
})

test('each fault is a concern', () => {
  const texts = concernsOf({
    ...WELL, retrying: 1_000, ended_last_hour: { failed: 1 },
    queues: [{ role: 'read', waiting: 3, oldest_at: '2026-01-01T11:00:00Z', limited: false }],
    workers: { live: 0, silent: 2, running: 0, slots: 0 }, coordinators: { live: 0, silent: 1 },
    letters: 1,
  }).map((one) => one.text)
  expect(texts).toEqual([
    'No coordinator runs: no task continues',
    'A coordinator sent no heartbeat for too long',
    'No worker runs',
    '2 workers sent no heartbeat for too long',
    'Nodes of the role read have waited for a worker for 1 h',
    '1 task of the last hour failed',
    '1 dead letter',
    '1,000+ tasks with a node that fails and is tried again',
  ])
})

test('dead letters are counted up to a limit', () => {
  const texts = (count: number) => concernsOf({ ...WELL, letters: count }).map((one) => one.text)
  expect(texts(12)).toEqual(['12 dead letters'])
  expect(texts(100)).toEqual(['100+ dead letters'])
})
