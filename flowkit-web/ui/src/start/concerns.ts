/** What needs the attention of an operator, from the figures of the installation. */

import type { Letter, Page, Stats } from '../api/types'
import { countText } from '../shared/numbers'
import { durationText } from '../shared/time'

export interface Concern {
  text: string
  href: string
}

/** Time after which a node that waits for a worker is a concern. */
const LONG_WAIT_MS = 60_000

/** Return what is not well, the most urgent first. `letters` is the first page of the dead letters. */
export function concernsOf(stats: Stats, letters: Page<Letter>): Concern[] {
  const { workers, most } = stats
  const at = Date.parse(stats.at)
  const late = stats.queues.filter(({ oldest_at }) => at - Date.parse(oldest_at) >= LONG_WAIT_MS)
  const failed = stats.ended_last_hour.failed ?? 0
  const found: (Concern | false)[] = [
    workers.live === 0 && { text: 'No worker runs', href: '/workers' },
    workers.silent > 0 && {
      text: `${workersText(workers.silent)} sent no heartbeat for too long`, href: '/workers',
    },
    ...late.map(({ role, oldest_at }) => ({
      text: `Nodes of the role ${role} have waited for a worker for ${durationText(at - Date.parse(oldest_at))}`,
      href: '/waiting?for=worker',
    })),
    failed > 0 && {
      text: `${tasksText(failed, most)} of the last hour failed`, href: '/tasks?status=failed',
    },
    letters.items.length > 0 && { text: lettersText(letters), href: '/dead-letters' },
    stats.retrying > 0 && {
      text: `${tasksText(stats.retrying, most)} with a node that fails and is tried again`, href: '/tasks?retrying=true',
    },
  ]
  return found.filter((one) => one !== false)
}

function workersText(count: number): string {
  return count === 1 ? 'A worker' : `${count} workers`
}

function tasksText(count: number, most: number): string {
  return count === 1 ? '1 task' : `${countText(count, most)} tasks`
}

function lettersText({ items, next }: Page<Letter>): string {
  if (next === null && items.length === 1) return '1 dead letter'
  return `${countText(items.length, next === null ? Infinity : items.length)} dead letters`
}
