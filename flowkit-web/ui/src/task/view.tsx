/** One task: its graph, timeline, nodes, events, data, artifacts and logs. */

import { lazy, Suspense, useState, type KeyboardEvent } from 'react'
import type { TaskView } from '../api/types'
import { useSearch } from '../router'
import { Empty, Loaded, ProblemBox } from '../shared/problem'
import { ViewHeading } from '../shared/view'
import { NodePanel } from './node-panel'
import { GroupPanel } from './group-panel'
import { useClosePanel } from './panel'
import { TaskHeader } from './task-header'
import { useLayout } from './use-layout'
import { useTask, type TaskData } from './use-task'
import './task.css'

const GraphView = lazy(() => import('./graph-view').then((module) => ({ default: module.GraphView })))
const TimelineView = lazy(() => import('./timeline-view').then((module) => ({ default: module.TimelineView })))
const NodesView = lazy(() => import('./nodes-view').then((module) => ({ default: module.NodesView })))
const EventsView = lazy(() => import('./events-view').then((module) => ({ default: module.EventsView })))
const DataView = lazy(() => import('./data-view').then((module) => ({ default: module.DataView })))
const ArtifactsView = lazy(() => import('./artifacts-view').then((module) => ({ default: module.ArtifactsView })))
const LogsView = lazy(() => import('./logs-view').then((module) => ({ default: module.LogsView })))

const TABS = {
  graph: 'Graph', timeline: 'Timeline', nodes: 'Nodes', events: 'Events', data: 'Data',
  artifacts: 'Artifacts', logs: 'Logs',
} as const
type Tab = keyof typeof TABS
const NAMES = Object.keys(TABS) as Tab[]

export default function TaskPage({ id = '' }: { id?: string }) {
  const task = useTask(id)
  if (!task.header.data) {
    return <>
      <ViewHeading title={id} />
      <Loaded query={task.header}>{() => null}</Loaded>
    </>
  }
  return <Task task={task} view={task.header.data} />
}

function Task({ task, view }: { task: TaskData; view: TaskView }) {
  const [search] = useSearch()
  const named = search.get('tab') as Tab
  const tab = NAMES.includes(named) ? named : 'graph'
  const node = search.get('node')
  const group = search.get('group')
  const [opened, setOpened] = useState<string[]>([])
  const close = useClosePanel()
  const onKey = (event: KeyboardEvent): void => {
    // Escape in a dialog, or in a field, is for it alone.
    if (event.key === 'Escape' && !(event.target as Element).closest('dialog, input, select, textarea')) close()
  }
  const layout = useLayout(tab === 'graph' || group !== null ? task.graph : undefined, opened)
  return (
    <>
      <TaskHeader task={task} view={view} />
      {task.header.error && <ProblemBox error={task.header.error} />}
      {task.fault && <ProblemBox error={task.fault} />}
      <Tabs tab={tab} />
      <div className={node !== null || group !== null ? 'task-body split' : 'task-body'} onKeyDown={onKey}>
        <div role="tabpanel" id="tab-panel" aria-labelledby={`tab-${tab}`} className="tab-panel">
          <Suspense fallback={<Empty>Loading…</Empty>}>
            {tab === 'graph'
              ? <GraphView task={task} layout={layout} opened={opened} onOpened={setOpened} />
              : <TabView tab={tab} task={task} view={view} />}
          </Suspense>
        </div>
        {node !== null
          ? <NodePanel key={node} task={task} view={view} nodeId={node} />
          : group !== null && <GroupPanel task={task} layout={layout} groupId={group} />}
      </div>
    </>
  )
}

function TabView({ tab, task, view }: { tab: Exclude<Tab, 'graph'>; task: TaskData; view: TaskView }) {
  switch (tab) {
    case 'timeline': return <TimelineView task={task} />
    case 'nodes': return <NodesView task={task} />
    case 'events': return <EventsView task={task} />
    case 'data': return <DataView task={task} view={view} />
    case 'artifacts': return <ArtifactsView task={task} />
    case 'logs': return <LogsView taskId={task.id} />
  }
}

function Tabs({ tab }: { tab: Tab }) {
  const [, changeSearch] = useSearch()
  const select = (next: Tab): void =>
    changeSearch({ tab: next === 'graph' ? null : next, text: null, status: null, map: null })
  const onKey = (event: KeyboardEvent<HTMLDivElement>): void => {
    const place = NAMES.indexOf(tab)
    const next = NAMES.at({
      ArrowLeft: place - 1, ArrowRight: (place + 1) % NAMES.length, Home: 0, End: -1,
    }[event.key] ?? NAMES.length)
    if (next === undefined) return
    event.preventDefault()
    select(next)
    document.getElementById(`tab-${next}`)?.focus()
  }
  return (
    <div role="tablist" aria-label="Views of the task" className="tabs" onKeyDown={onKey}>
      {NAMES.map((name) => (
        <button
          key={name}
          type="button"
          role="tab"
          id={`tab-${name}`}
          aria-selected={name === tab}
          aria-controls="tab-panel"
          tabIndex={name === tab ? 0 : -1}
          onClick={() => select(name)}
        >
          {TABS[name]}
        </button>
      ))}
    </div>
  )
}
