/** One node beside the view of its task: why it is as it is, and what may be done. */

import { keepPreviousData, useQuery } from '@tanstack/react-query'
import { api, path } from '../api/client'
import type { NodeAction, NodeActionList, NodeStatus, NodeView, Page, TaskEvent, TaskView } from '../api/types'
import { useDecision, type Choose } from '../approvals/decision'
import { Link, useSearch } from '../router'
import { Empty, ProblemBox } from '../shared/problem'
import { StatusBadge, isTerminal } from '../shared/status'
import { Duration, Time } from '../shared/time'
import { Json, TaskLink } from '../shared/view'
import { Bar } from './bar'
import { Explanation } from './explanation'
import type { GraphNode } from './graph-model'
import { ApprovalCard, NodeActions } from './node-actions'
import { Panel } from './panel'
import { leftOutText, readNodeHistory } from './node-history'
import { countsText, dataText, waitText } from './rows'
import type { TaskData } from './use-task'

const NODE_EVENTS_A_PAGE = 1_000
const CHILD_MS = 3_000

export function NodePanel({ task, view, nodeId }: { task: TaskData; view: TaskView; nodeId: string }) {
  const [dialog, choose] = useDecision(task.refresh)
  const row = task.rows.get(nodeId)
  const stamp = row ? `${row.status} ${row.attempt ?? 0} ${row.waiting ?? ''}` : null
  const query = useQuery({
    queryKey: ['task', task.id, 'node', nodeId, stamp, view.status],
    queryFn: ({ signal }) => readNode(task.id, nodeId, signal),
    placeholderData: keepPreviousData, // the panel has the node's id as its key
    refetchInterval: ({ state }) =>
      state.data && !isTerminal(state.data.node.status) && (!row || row.type !== 'sleep') ? CHILD_MS : false,
  })
  const graphNode = task.graph?.nodes.find((node) => node.id === nodeId.replace(/\[\d+\]$/, ''))
  return (
    <Panel name={`Node ${nodeId}`} heading={<h2 className="id">{nodeId}</h2>} what="node">
      {query.error && <ProblemBox error={query.error} />}
      {query.isPending && <Empty>Loading…</Empty>}
      {query.data && (
        <Details task={task} {...query.data} graphNode={graphNode} choose={choose} />
      )}
      {dialog}
    </Panel>
  )
}

async function readNode(taskId: string, nodeId: string, signal: AbortSignal) {
  const base = path`/tasks/${taskId}/nodes/${nodeId}`
  const [node, { explanation }, { actions }] = await Promise.all([
    api.get<NodeView>(base, {}, signal),
    api.get<{ explanation: string }>(`${base}/explain`, {}, signal),
    api.get<NodeActionList>(`${base}/actions`, {}, signal),
  ])
  return { node, explanation, actions }
}

function Details({ task, node, explanation, actions, graphNode, choose }: {
  task: TaskData
  node: NodeView
  explanation: string
  actions: readonly NodeAction[]
  graphNode: GraphNode | undefined
  choose: Choose
}) {
  const [, changeSearch] = useSearch()
  const children = node.children ?? {}
  const rounds = Object.entries(node.rounds ?? {})
  return (
    <>
      <p className="panel-status">
        <StatusBadge status={node.status} />
        {(node.attempt ?? 0) > 1 && <span>attempt {node.attempt}</span>}
        <span className="quiet">{graphNode?.what ?? node.type}</span>
      </p>
      <p className={`explanation long-text${node.status === 'failed' ? ' problem' : ''}`} tabIndex={0}><Explanation text={explanation} /></p>
      {node.type === 'approval' && node.status === 'deferred' && <ApprovalCard task={task} nodeId={node.node_id} choose={choose} />}
      <NodeActions task={task} node={node} actions={actions} />
      <dl className="facts">
        {graphNode?.condition && <Fact name="Condition">
          <code>{graphNode.condition}</code>{conditionText(node)}
        </Fact>}
        {graphNode?.map && <Fact name="Map over"><code>{graphNode.map}</code></Fact>}
        {Object.keys(children).length > 0 && <Fact name="Children">
          <Bar counts={children} /> {countsText(children)}{' '}
          <button type="button" className="plain" onClick={() => changeSearch({ tab: 'nodes', map: node.node_id, status: null, text: null })}>List them</button>
          {children.failed ? <>{' '}
            <button type="button" className="plain" onClick={() => changeSearch({ tab: 'nodes', map: node.node_id, status: 'failed', text: null })}>
              Only the failed ones
            </button>
          </> : null}
        </Fact>}
        {node.child_task_id && <Fact name="Child task"><TaskLink id={node.child_task_id} /></Fact>}
        {rounds.length > 0 && <Fact name="Rounds">
          {rounds.map(([number, id]) => (
            <Link key={number} href={path`/tasks/${id}`} className="round">{Number(number) + 1}</Link>
          ))}
        </Fact>}
        {graphNode && graphNode.fanIn !== 'all' && <Fact name="Fan-in">{graphNode.fanIn}</Fact>}
        {graphNode && graphNode.phase !== 'main' && <Fact name="Phase">{graphNode.phase}</Fact>}
        {node.cached && <Fact name="Result">taken from the cache; the node did not run</Fact>}
        {node.worker_id && <Fact name="Worker">{node.worker_id}</Fact>}
        {node.started_at && <Fact name="Began"><Time at={node.started_at} /></Fact>}
        {node.started_at && <Fact name="Took"><Duration from={node.started_at} to={node.finished_at} /></Fact>}
        {node.next_retry_at && <Fact name="Next attempt"><Time at={node.next_retry_at} distance /></Fact>}
        {node.waiting && <Fact name="Waits">{waitText(node.waiting).replace('waits ', '')}{node.waiting_until && <> until <Time at={node.waiting_until} /></>}</Fact>}
        {node.reason_code && <Fact name="Reason"><code>{node.reason_code}</code></Fact>}
        {node.resolved_by && <Fact name="Settled by">{node.resolved_by}</Fact>}
        {node.skipped_batches ? <Fact name="Skipped batches">{node.skipped_batches}</Fact> : null}
        {Object.entries(node.labels ?? {}).map(([key, value]) => <Fact key={key} name={key}>{value}</Fact>)}
      </dl>
      {node.error && !explanation.includes(node.error) && <Part title="Error"><pre className="json">{node.error}</pre></Part>}
      {node.progress != null && <Part title="Progress"><Json value={node.progress} /></Part>}
      {node.result != null && <Part title="Result"><Json value={node.result} /></Part>}
      {Object.keys(node.metrics ?? {}).length > 0 && <Part title="Metrics"><Json value={node.metrics} /></Part>}
      <p className="buttons">
        <button type="button" onClick={() => changeSearch({ tab: 'logs', text: null })}>Its logs</button>
        <button type="button" onClick={() => changeSearch({ tab: 'artifacts' })}>Its artifacts</button>
      </p>
      <NodeEvents task={task} node={node} />
      {graphNode && (
        <details><summary>As it was written</summary><Json value={graphNode.written} /></details>
      )}
    </>
  )
}

function conditionText(node: NodeView): string {
  if (node.reason_code === 'condition_false') return ' was false: the node was skipped'
  if (node.status === 'queued' || node.status === 'paused') return ' is not evaluated yet'
  return node.status === 'skipped' || node.status === 'cancelled' ? '' : ' was true'
}

function Fact({ name, children }: { name: string; children: React.ReactNode }) {
  return <><dt>{name}</dt><dd>{children}</dd></>
}

function Part({ title, children }: { title: string; children: React.ReactNode }) {
  return <section><h3>{title}</h3>{children}</section>
}

function NodeEvents({ task, node }: { task: TaskData; node: NodeView }) {
  const { data: history } = useQuery({
    queryKey: ['task', task.id, 'node-events', node.node_id, node.status, node.attempt],
    queryFn: ({ signal }) => readNodeHistory((after) => api.get<Page<TaskEvent>>(
      path`/tasks/${task.id}/history`,
      { node_id: node.node_id, limit: NODE_EVENTS_A_PAGE, after, newest_first: true }, signal)),
    placeholderData: keepPreviousData,
  })
  if (!history || history.events.length === 0) return null
  const leftOut = leftOutText(history)
  return (
    <details open>
      <summary>History</summary>
      {leftOut && <p className="quiet">{leftOut}</p>}
      <ol className="history">
        {history.events.map((event) => (
          <li key={event.seq}>
            <Time at={event.at} />{' '}
            {event.kind === 'status' && event.status ? <StatusBadge status={event.status as NodeStatus} /> : event.kind}{' '}
            <span className="quiet">{dataText(event)}</span>
          </li>
        ))}
      </ol>
    </details>
  )
}
