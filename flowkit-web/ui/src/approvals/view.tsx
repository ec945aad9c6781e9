/** Nodes of all tasks that wait for the decision of a human. */

import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { api, path } from '../api/client'
import type { Approval } from '../api/types'
import { SchemaForm } from '../forms/schema-form'
import { fieldsOf, initialValue } from '../forms/schema'
import { useSearch } from '../router'
import { ActionDialog } from '../shared/dialog'
import { usePages } from '../shared/lists'
import { useMay, useMe } from '../shared/me'
import { Empty, ProblemBox } from '../shared/problem'
import { Badge } from '../shared/status'
import { Time } from '../shared/time'
import { showToast } from '../shared/toasts'
import { TaskLink, ViewHeading } from '../shared/view'
import './approvals.css'

export default function ApprovalsPage() {
  const [search, change] = useSearch()
  const me = useMe()
  const mine = search.get('mine') === 'yes'
  const assignee = mine ? me?.name ?? null : null
  const { rows, error, onEnd, hasMore } = usePages<Approval>('/approvals', { assignee })
  return (
    <>
      <ViewHeading title="Approvals" />
      <div className="chips">
        <button
          type="button" aria-pressed={mine} onClick={() => change({ mine: mine ? null : 'yes' })}
        >
          that I may decide about
        </button>
      </div>
      {error && <ProblemBox error={error} />}
      {rows?.length === 0 && <Empty>Nothing waits for a decision.</Empty>}
      <ul className="approvals">
        {rows?.map((one) => (
          <li key={`${one.task_id} ${one.node_id}`}><ApprovalCard approval={one} /></li>
        ))}
      </ul>
      {hasMore && <button type="button" onClick={onEnd}>Show more</button>}
    </>
  )
}

function ApprovalCard({ approval }: { approval: Approval }) {
  const [choice, setChoice] = useState<string | null>(null)
  const may = useMay('operator')
  const name = useMe()?.name ?? ''
  const isAssigned = !approval.assignees || approval.assignees.includes(name)
  return (
    <section className="card">
      <h2>{approval.prompt}</h2>
      <p>
        <TaskLink id={approval.task_id} /> <span className="quiet">node {approval.node_id}</span>
      </p>
      <p className="quiet">
        asked <Time at={approval.since} distance />
        {approval.until && <>, until <Time at={approval.until} /></>}
      </p>
      {approval.assignees && (
        <p>{approval.assignees.map((one) => <Badge key={one} tone="quiet">{one}</Badge>)}</p>
      )}
      <div className="buttons">
        {approval.choices.map((one) => (
          <button
            key={one} type="button" disabled={!may || !isAssigned} onClick={() => setChoice(one)}
          >
            {one}
          </button>
        ))}
      </div>
      {may && !isAssigned && <p className="quiet">Only its assignees may decide. You are {name}.</p>}
      {choice !== null && (
        <DecisionDialog approval={approval} choice={choice} onClose={() => setChoice(null)} />
      )}
    </section>
  )
}

function DecisionDialog({ approval, choice, onClose }: {
  approval: Approval
  choice: string
  onClose: () => void
}) {
  const queries = useQueryClient()
  const form = approval.form ?? null
  const [values, setValues] = useState(() => initialValue(fieldsOf(form ?? {}) ?? []))
  const [comment, setComment] = useState('')
  const decide = async (): Promise<void> => {
    const body = { choice, values: form ? values : null, comment: comment || null }
    await api.post(path`/tasks/${approval.task_id}/nodes/${approval.node_id}/decide`, body)
    showToast(`Decided: ${choice}`)
    await queries.invalidateQueries({ queryKey: ['/approvals'] })
  }
  return (
    <ActionDialog title={approval.prompt} verb={choice} run={decide} onClose={onClose}>
      {form && <SchemaForm schema={form} value={values} onChange={setValues} />}
      <label>
        Comment
        <textarea rows={2} value={comment} onChange={(event) => setComment(event.target.value)} />
      </label>
    </ActionDialog>
  )
}
