/** Parts that the list of the triggers and the view of one of them have in common. */

import { useQueryClient } from '@tanstack/react-query'
import { api, path } from '../api/client'
import type { TriggerView } from '../api/types'
import { ActionButton } from '../shared/dialog'
import { useMay } from '../shared/me'
import { countText } from '../shared/numbers'
import { Badge } from '../shared/status'

/** Number at which the server stops to count ends of tasks. */
const MOST_ENDS = 1_000

export function TriggerState({ trigger }: { trigger: TriggerView }) {
  return trigger.paused
    ? <Badge tone="wait" sign="‖">paused</Badge> : <Badge tone="good" sign="✓">active</Badge>
}

export function Behind({ trigger: { behind, trigger } }: { trigger: TriggerView }) {
  return behind == null
    ? <span className="quiet" title="Its source does not answer.">unknown</span>
    : <span>{trigger.source.startsWith('task:') ? countText(behind, MOST_ENDS) : countText(behind)}</span>
}

export function PauseButton({ trigger: { id, paused } }: { trigger: TriggerView }) {
  const queries = useQueryClient()
  const may = useMay('admin')
  const verb = paused ? 'Resume' : 'Pause'
  return (
    <ActionButton
      label={verb} title={`${verb} ${id}?`} verb={`${verb} it`} disabled={!may}
      run={() => api.post(path`/triggers/${id}` + (paused ? '/resume' : '/pause'))}
      onDone={() => void queries.invalidateQueries({ queryKey: ['/triggers'] })}
    >
      {!paused && <p>It makes no tasks until it is resumed. Its events are kept.</p>}
    </ActionButton>
  )
}
