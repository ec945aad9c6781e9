/** What may be done with a node. */

import { useQuery } from '@tanstack/react-query'
import { useState } from 'react'
import { api, path } from '../api/client'
import type { Approval, NodeAction, NodeView, Page } from '../api/types'
import { Choices, type Choose } from '../approvals/decision'
import { JsonField } from '../forms/schema-form'
import { ActionButton } from '../shared/dialog'
import { ProblemBox } from '../shared/problem'
import { useMay } from '../shared/me'
import { Time } from '../shared/time'
import { showToast } from '../shared/toasts'
import type { TaskData } from './use-task'

interface ActionsProps {
  task: TaskData
  node: NodeView
  /** Those that the server would carry out. */
  actions: readonly NodeAction[]
}

export function NodeActions({ task, node, actions }: ActionsProps) {
  const may = useMay('operator')
  if (!may) return null
  const base = path`/tasks/${task.id}/nodes/${node.node_id}`
  const done = (text: string) => () => {
    showToast(text)
    task.refresh()
  }
  return (
    <div className="buttons">
      {actions.includes('run_now') && (
        <ActionButton label="Run now" title={`End the wait of ${node.node_id}?`} verb="Run now" run={() => api.post(`${base}/run-now`)} onDone={done(`${node.node_id} goes on.`)}>
          <p>{node.next_retry_at ? 'The next attempt begins at once.' : 'Its wait ends at once.'}</p>
        </ActionButton>
      )}
      {actions.includes('retry') && (
        <ActionButton
          label="Retry from here"
          title={`Retry from ${node.node_id}?`}
          verb="Retry"
          run={() => api.post(path`/tasks/${task.id}/retry`, { from_nodes: [node.node_id] })}
          onDone={done(`The task runs again from ${node.node_id}.`)}
        >
          <p>This node and all nodes below it run again. What else is finished is kept.</p>
        </ActionButton>
      )}
      {actions.includes('resolve') && (
        <SettleButton base={base} node={node} onDone={done(`${node.node_id} is settled.`)} />
      )}
    </div>
  )
}

const OUTCOMES = ['finished', 'failed', 'skipped'] as const

function SettleButton({ base, node, onDone }: { base: string; node: NodeView; onDone: () => void }) {
  const isAdmin = useMay('admin')
  // Only an admin may settle an approval as finished: the result is the decision of an assignee.
  const outcomes = OUTCOMES.filter((one) => one !== 'finished' || node.type !== 'approval' || isAdmin)
  const [chosen, setOutcome] = useState<(typeof OUTCOMES)[number]>('finished')
  const outcome = outcomes.includes(chosen) ? chosen : 'failed'
  const [result, setResult] = useState<unknown>(undefined)
  const [reason, setReason] = useState('')
  return (
    <ActionButton
      danger
      label="Settle…"
      title={`Choose the outcome of ${node.node_id}`}
      verb="Settle"
      run={() => api.post(`${base}/resolve`, {
        outcome, reason, result: outcome === 'finished' ? (result ?? null) : null,
      })}
      onDone={onDone}
    >
      <p>What runs of it is stopped. Your name is kept in the history.</p>
      <label>Outcome
        <select value={outcome} onChange={(event) => setOutcome(event.target.value as typeof outcome)}>
          {outcomes.map((one) => <option key={one}>{one}</option>)}
        </select>
      </label>
      {outcome === 'finished' && <JsonField title="Result" rows={4} value={result} onChange={setResult} />}
      <label>Reason <input value={reason} onChange={(event) => setReason(event.target.value)} /></label>
    </ActionButton>
  )
}

/** The question of an approval, and a button for each choice. */
export function ApprovalCard({ task, nodeId, choose }: { task: TaskData; nodeId: string; choose: Choose }) {
  const approvals = useQuery({
    queryKey: ['task', task.id, 'approvals'],
    queryFn: ({ signal }) => api.get<Page<Approval>>('/approvals', { task_id: task.id, limit: 200 }, signal),
  })
  const approval = approvals.data?.items.find((one) => one.node_id === nodeId)
  if (approvals.error) return <ProblemBox error={approvals.error} />
  if (!approval) return null
  return <Question approval={approval} choose={choose} />
}

function Question({ approval, choose }: { approval: Approval; choose: Choose }) {
  return (
    <section className="approval" aria-label="Approval">
      <p className="prompt">{approval.prompt}</p>
      <p className="quiet">
        Asked <Time at={approval.since} distance />
        {approval.assignees && <>, of {approval.assignees.join(', ')}</>}
        {approval.until && <>, until <Time at={approval.until} /></>}
      </p>
      <Choices approval={approval} choose={choose} />
    </section>
  )
}
