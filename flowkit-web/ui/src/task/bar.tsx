/** Bars of how many nodes have each status. */

import { toneOf } from '../shared/status'
import { countsText, type Counts } from './rows'

const ORDER = [
  'failed', 'finished', 'running', 'deferred', 'cancelling', 'paused', 'queued', 'cancelled', 'skipped',
] as const

/** Bar of how many nodes have each status. Failures have at least a visible width. */
export function Bar({ counts }: { counts: Counts }) {
  return (
    <span className="bar" role="img" aria-label={countsText(counts)} title={countsText(counts)}>
      {ORDER.filter((status) => counts[status]).map((status) => (
        <span key={status} className={`fill-${toneOf(status)}`} style={{ flexGrow: counts[status] }} />
      ))}
    </span>
  )
}
