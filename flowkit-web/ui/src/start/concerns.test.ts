import { expect, test } from 'vitest'
import type { Letter, Page, Stats } from '../api/types'
import { concernsOf } from './concerns'

const WELL: Stats = {
  at: '2026-01-01T12:00:00Z', most: 1_000, open: {}, retrying: 0, waiting: {},
  ended_last_hour: { finished: 9, failed: 0 }, ended_last_day: {}, failures_last_day: {},
  queues: [{ role: 'read', waiting: 3, oldest_at: '2026-01-01T11:59:30Z' }],
  workers: { live: 1, silent: 0, running: 0, slots: 4 },
}

/** Return a page of dead letters. */
function letters(count: number, next: string | null = null): Page<Letter> {
  const items = Array.from({ length: count }, (_, place): Letter => ({
    letter_id: String(place), kind: 'node', reason_code: 'odd', error: 'odd', at: WELL.at,
  } as Letter))
  return { items, next }
}

test('an installation that works has no concerns', () => {
  expect(concernsOf(WELL, letters(0))).toEqual([])
})

test('each fault is a concern', () => {
  const texts = concernsOf({
    ...WELL, retrying: 1_000, ended_last_hour: { failed: 1 },
    queues: [{ role: 'read', waiting: 3, oldest_at: '2026-01-01T11:00:00Z' }],
    workers: { live: 0, silent: 2, running: 0, slots: 0 },
  }, letters(1)).map((one) => one.text)
  expect(texts).toEqual([
    'No worker runs',
    '2 workers sent no heartbeat for too long',
    'Nodes of the role read have waited for a worker for 1 h',
    '1 task of the last hour failed',
    '1 dead letter',
    '1,000+ tasks with a node that fails and is tried again',
  ])
})

test('dead letters are counted up to the end of a page', () => {
  const texts = (page: Page<Letter>) => concernsOf(WELL, page).map((one) => one.text)
  expect(texts(letters(12))).toEqual(['12 dead letters'])
  expect(texts(letters(20, '19'))).toEqual(['20+ dead letters'])
})
