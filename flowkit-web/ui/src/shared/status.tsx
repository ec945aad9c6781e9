/** Statuses of tasks and nodes: a word, a sign and a colour, so that none of them is needed alone. */

import type { NodeStatus } from '../api/types'

export type Tone = 'good' | 'bad' | 'busy' | 'wait' | 'quiet'

const STATUSES: Record<NodeStatus, { tone: Tone; sign: string }> = {
  queued: { tone: 'quiet', sign: '○' },
  running: { tone: 'busy', sign: '▶' },
  deferred: { tone: 'wait', sign: '◔' },
  paused: { tone: 'wait', sign: '‖' },
  cancelling: { tone: 'wait', sign: '◌' },
  finished: { tone: 'good', sign: '✓' },
  failed: { tone: 'bad', sign: '✕' },
  cancelled: { tone: 'quiet', sign: '⊘' },
  skipped: { tone: 'quiet', sign: '⇥' },
}
export const TERMINAL: readonly NodeStatus[] = ['finished', 'failed', 'cancelled', 'skipped']

export function toneOf(status: NodeStatus): Tone {
  return STATUSES[status].tone
}

export function isTerminal(status: NodeStatus): boolean {
  return TERMINAL.includes(status)
}

export function StatusBadge({ status }: { status: NodeStatus }) {
  const { tone, sign } = STATUSES[status]
  return <Badge tone={tone} sign={sign}>{status}</Badge>
}

export function Badge({ tone, sign, children }: {
  tone: Tone
  sign?: string
  children: React.ReactNode
}) {
  return (
    <span className={`badge tone-${tone}`}>
      {sign && <span aria-hidden="true" className="sign">{sign}</span>}
      {children}
    </span>
  )
}
