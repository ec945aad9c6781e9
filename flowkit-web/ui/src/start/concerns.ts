/** What needs the attention of an operator, from the figures of the installation. */

import type { Stats } from '../api/types'
import { countText } from '../shared/numbers'
import { durationText } from '../shared/time'

export interface Concern {
  text: string
  href: string
}

/** Time after which a node that waits for a worker is a concern. */
const LONG_WAIT_MS = 60_000

/** Return what is not well, the most urgent first. */
export function concernsOf(stats: Stats): Concern[] {
  const { coordinators, workers, most } = stats
  const at = Date.parse(stats.at)
  const late = stats.queues.filter(({ oldest_at }) => at - Date.parse(oldest_at) >= LONG_WAIT_MS)
  const failed = stats.ended_last_hour.failed ?? 0
  const found: (Concern | false)[] = [
    coordinators.live === 0 && { text: 'No coordinator runs: no task continues', href: '/workers' },
    coordinators.silent > 0 && {
      text: `${countOf('coordinator', coordinators.silent)} sent no heartbeat for too long`, href: '/workers',
    },
    workers.live === 0 && { text: 'No worker runs', href: '/workers' },
    workers.silent > 0 && {
      text: `${countOf('worker', workers.silent)} sent no heartbeat for too long`, href: '/workers',
    },
    ...late.map(({ role, oldest_at }) => ({
      text: `Nodes of the role ${role} have waited for a worker for ${durationText(at - Date.parse(oldest_at))}`,
      href: '/waiting?for=worker',
    })),
    failed > 0 && {
      text: `${tasksText(failed, most)} of the last hour failed`, href: '/tasks?status=failed',
    },
    stats.letters > 0 && {
      text: stats.letters === 1 ? '1 dead letter' : `${countText(stats.letters, stats.most_letters)} dead letters`,
      href: '/dead-letters',
    },
    stats.retrying > 0 && {
      text: `${tasksText(stats.retrying, most)} with a node that fails and is tried again`, href: '/tasks?retrying=true',
    },
  ]
  return found.filter((one) => one !== false)
}

function countOf(what: string, count: number): string {
  return count === 1 ? `A ${what}` : `${count} ${what}s`
}

function tasksText(count: number, most: number): string {
  return count === 1 ? '1 task' : `${countText(count, most)} tasks`
}
