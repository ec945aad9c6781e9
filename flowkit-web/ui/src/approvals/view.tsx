/** Nodes of all tasks that wait for the decision of a human. */

import { useQueryClient } from '@tanstack/react-query'
import type { Approval } from '../api/types'
import { useSearch } from '../router'
import { usePages } from '../shared/lists'
import { useMe } from '../shared/me'
import { Empty, ProblemBox } from '../shared/problem'
import { Badge } from '../shared/status'
import { Time } from '../shared/time'
import { TaskLink, ViewHeading } from '../shared/view'
import { Choices, useDecision, type Choose } from './decision'
import './approvals.css'

export default function ApprovalsPage() {
  const [search, change] = useSearch()
  const me = useMe()
  const queries = useQueryClient()
  const [dialog, choose] = useDecision(() => void queries.invalidateQueries({ queryKey: ['/approvals'] }))
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
          <li key={`${one.task_id} ${one.node_id}`}><ApprovalCard approval={one} choose={choose} /></li>
        ))}
      </ul>
      {dialog}
      {hasMore && <button type="button" onClick={onEnd}>Show more</button>}
    </>
  )
}

function ApprovalCard({ approval, choose }: { approval: Approval; choose: Choose }) {
  return (
    <section className="card">
      <h2 className="prompt">{approval.prompt}</h2>
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
      <Choices approval={approval} choose={choose} />
    </section>
  )
}
