/** Changes of all tasks that match the filter, with progress. */

import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { api } from '../api/client'
import { jsonText } from '../api/json'
import type { BulkResult } from '../api/types'
import { ActionButton, Dialog } from '../shared/dialog'
import { useMay } from '../shared/me'
import { TaskLink } from '../shared/view'
import { bodyOf, isEverything, type Filter } from './filter'

const SHOWN_REFUSALS = 20

export function BulkActions({ filter }: { filter: Filter }) {
  const may = useMay('operator')
  const queries = useQueryClient()
  const [outcome, setOutcome] = useState<BulkResult | null>(null)
  const [reason, setReason] = useState('')
  if (!may || isEverything(filter)) return null
  const change = (place: string, more: object = {}) => async () => {
    setOutcome(await api.post<BulkResult>(place, { ...bodyOf(filter), ...more }))
    void queries.invalidateQueries({ queryKey: ['/tasks'] })
  }
  return (
    <>
      <ActionButton
        label="Retry all that match" title="Retry all tasks that match?" verb="Retry them"
        run={change('/retry-tasks')}
      >
        <p>Each failed or cancelled task that the filter matches runs again from its failed nodes.</p>
        <FilterText filter={filter} />
      </ActionButton>
      <ActionButton
        label="Cancel all that match" title="Cancel all tasks that match?" verb="Cancel them" danger
        run={change('/cancel-tasks', { reason })}
      >
        <p>Each task that the filter matches and that has not ended is cancelled.</p>
        <FilterText filter={filter} />
        <label>
          Reason
          <input value={reason} onChange={(event) => setReason(event.target.value)} />
        </label>
      </ActionButton>
      {outcome && <Outcome outcome={outcome} onClose={() => setOutcome(null)} />}
    </>
  )
}

function FilterText({ filter }: { filter: Filter }) {
  return (
    <dl className="facts">
      {Object.entries(bodyOf(filter)).map(([name, value]) => (
        <div key={name} className="fact">
          <dt>{name.replaceAll('_', ' ')}</dt>
          <dd>{textOf(value)}</dd>
        </div>
      ))}
    </dl>
  )
}

function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.join(', ')
  return typeof value === 'string' ? value : jsonText(value)
}

function Outcome({ outcome, onClose }: { outcome: BulkResult; onClose: () => void }) {
  const refused = Object.entries(outcome.refused)
  return (
    <Dialog title={`${outcome.changed} of ${outcome.found} tasks changed`} onClose={onClose}>
      {refused.length > 0 && (
        <ul>
          {refused.slice(0, SHOWN_REFUSALS).map(([id, text]) => (
            <li key={id}><TaskLink id={id} />: {text}</li>
          ))}
        </ul>
      )}
      {refused.length > SHOWN_REFUSALS && <p>and {refused.length - SHOWN_REFUSALS} more</p>}
      <div className="buttons"><button type="button" onClick={onClose}>Close</button></div>
    </Dialog>
  )
}
