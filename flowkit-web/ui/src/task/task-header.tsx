/** The head of a task's view: how it is, where it comes from, and why it failed. */

import type { TaskView } from '../api/types'
import { Link, useSearch } from '../router'
import { path } from '../api/client'
import { Badge, StatusBadge, isTerminal } from '../shared/status'
import { Duration, Time } from '../shared/time'
import { FlowLink, TaskLink, ViewHeading } from '../shared/view'
import { TaskActions } from './task-actions'
import type { TaskData } from './use-task'

export function TaskHeader({ task, view }: { task: TaskData; view: TaskView }) {
  return (
    <>
      <ViewHeading title={view.id}><TaskActions key={view.id} task={task} view={view} /></ViewHeading>
      <div className="task-facts">
        <StatusBadge status={view.status} />
        <Stream task={task} view={view} />
        <Facts view={view} />
      </div>
      {view.error && <Failure task={task} view={view} />}
    </>
  )
}

/** Say whether the view is live. */
function Stream({ task, view }: { task: TaskData; view: TaskView }) {
  const { state, problem } = task.stream
  if (isTerminal(view.status)) return null
  if (state === 'live') return <Badge tone="good" sign="●">live</Badge>
  if (state === 'refused') return <Badge tone="bad">{problem?.detail ?? 'not live'}</Badge>
  return state === 'lost' ? <Badge tone="bad" sign="◌">connects again…</Badge> : null
}

function Facts({ view }: { view: TaskView }) {
  const flow = view.flow ? <FlowLink name={view.flow} version={view.version ?? null} /> : view.pipeline
  return (
    <dl className="inline-facts">
      {flow && <Fact name="Flow">{flow}</Fact>}
      {view.parent && <Fact name="Parent"><Parent view={view} /></Fact>}
      {view.schedule && <Fact name="Schedule">
        <Link href={path`/schedules/${view.schedule}`}>{view.schedule}</Link>
        {view.schedule_at && <> for <Time at={view.schedule_at} /></>}
      </Fact>}
      {view.trigger && <Fact name="Trigger"><Link href={path`/triggers/${view.trigger}`}>{view.trigger}</Link></Fact>}
      {view.rerun_of && <Fact name="Run again of"><TaskLink id={view.rerun_of} /></Fact>}
      {view.waiting === 'key' && <Fact name="Waits">for its concurrency key</Fact>}
      <Fact name="Created"><Time at={view.created_at} /></Fact>
      {view.started_at && <Fact name="Began"><Time at={view.started_at} /></Fact>}
      {view.finished_at && <Fact name="Ended"><Time at={view.finished_at} /></Fact>}
      <Fact name="Took"><Duration from={view.started_at} to={view.finished_at} /></Fact>
      {Object.entries(view.labels ?? {}).map(([key, value]) => <Fact key={key} name={key}>{value}</Fact>)}
    </dl>
  )
}

function Fact({ name, children }: { name: string; children: React.ReactNode }) {
  return <div><dt>{name}</dt><dd>{children}</dd></div>
}

function Parent({ view }: { view: TaskView }) {
  const { parent, parent_node: node } = view
  if (!parent) return null
  const href = path`/tasks/${parent}` + (node ? `?node=${encodeURIComponent(node)}` : '')
  return <Link href={href} className="id">{parent}{node && ` · ${node}`}</Link>
}

/** The error of the task, and links to the nodes that failed. */
function Failure({ task, view }: { task: TaskData; view: TaskView }) {
  const [, changeSearch] = useSearch()
  const failed = [...task.rows.values()].filter((row) => row.status === 'failed')
  const show = failed.slice(0, 5)
  return (
    <div className={view.status === 'failed' ? 'problem' : 'problem mild'} role="status">
      <p className="long-text" tabIndex={0}>{view.error ?? ''}</p>
      {show.length > 0 && (
        <p className="buttons">
          {show.map((row) => (
            <button key={row.node_id} type="button" className="plain id" onClick={() => changeSearch({ node: row.node_id, group: null })}>
              {row.node_id}
            </button>
          ))}
          {failed.length > show.length && (
            <button type="button" className="plain" onClick={() => changeSearch({ tab: 'nodes', status: 'failed', map: null })}>
              all {failed.length} failed nodes
            </button>
          )}
        </p>
      )}
    </div>
  )
}
