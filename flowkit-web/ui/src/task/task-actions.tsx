/** What may be done with a task. */

import { keepPreviousData, useQuery } from '@tanstack/react-query'
import { useState } from 'react'
import { api, path } from '../api/client'
import type { Created, TaskAction, TaskActionList, TaskView } from '../api/types'
import { JsonField, SchemaForm } from '../forms/schema-form'
import type { Schema } from '../forms/schema'
import { navigate } from '../router'
import { ActionButton } from '../shared/dialog'
import { useMay } from '../shared/me'
import { isTerminal } from '../shared/status'
import { showToast } from '../shared/toasts'
import { changedParams } from './changed-params'
import type { TaskData } from './use-task'

export function TaskActions({ task, view }: { task: TaskData; view: TaskView }) {
  const may = useMay('operator')
  const signals = signalsOf(task)
  const actions = useActions(task, view)
  if (!may) return null
  const ended = isTerminal(view.status)
  const post = (verb: string, body?: object) => () => api.post(`${path`/tasks/${task.id}`}/${verb}`, body)
  const done = (text: string) => () => {
    showToast(text)
    task.refresh()
  }
  return (
    <>
      {actions.includes('pause') && (
        <ActionButton label="Pause" title="Pause this task?" verb="Pause" run={post('pause')} onDone={done('The task is paused.')}>
          <p>It starts no new nodes. Nodes that run go on to their ends.</p>
        </ActionButton>
      )}
      {actions.includes('resume') && (
        <ActionButton label="Resume" title="Resume this task?" verb="Resume" run={post('resume')} onDone={done('The task goes on.')} />
      )}
      {!ended && signals.length > 0 && <SignalButton task={task} signals={signals} />}
      {actions.includes('retry') && (
        <ActionButton label="Retry" title="Retry this task?" verb="Retry" run={post('retry')} onDone={done('The task runs again.')}>
          <p>It runs again from its failed nodes. What is finished is kept.</p>
        </ActionButton>
      )}
      <RerunButton task={task} view={view} />
      {actions.includes('force_cancel') && <CancelButton task={task} isEnding={!actions.includes('cancel')} />}
    </>
  )
}

const ACTIONS_MS = 30_000
const NO_ACTIONS: TaskAction[] = []

/** Return the actions that the server would carry out. */
function useActions(task: TaskData, view: TaskView): readonly TaskAction[] {
  // They change with the status, and when the first node of an undo or of `finally` begins.
  const isEnding = (task.graph?.nodes ?? []).some(
    ({ id, phase }) => phase !== 'main' && !['queued', undefined].includes(task.rows.get(id)?.status))
  const query = useQuery({
    queryKey: ['task', task.id, 'actions', view.status, isEnding],
    queryFn: ({ signal }) => api.get<TaskActionList>(path`/tasks/${task.id}/actions`, {}, signal),
    placeholderData: keepPreviousData,
    refetchInterval: isTerminal(view.status) ? false : ACTIONS_MS,
  })
  return query.data?.actions ?? NO_ACTIONS
}

/** `isEnding`: only its undos and its `finally` run. */
function CancelButton({ task, isEnding }: { task: TaskData; isEnding: boolean }) {
  const [reason, setReason] = useState('')
  const [force, setForce] = useState(false)
  return (
    <ActionButton
      danger
      label={isEnding ? 'Cancel by force' : 'Cancel'}
      title={isEnding ? 'End the undo and finally of this task?' : 'Cancel this task?'}
      verb="Cancel the task"
      run={() => api.post(path`/tasks/${task.id}/cancel`, { reason, force: force || isEnding })}
      onDone={() => {
        showToast('The task is being cancelled.')
        task.refresh()
      }}
    >
      <p>Nodes that run are stopped, and its child tasks are cancelled.</p>
      <label>Reason <input value={reason} onChange={(event) => setReason(event.target.value)} /></label>
      {!isEnding && (
        <label className="check">
          <input type="checkbox" checked={force} onChange={(event) => setForce(event.target.checked)} />
          <span>Run neither undo nor finally</span>
        </label>
      )}
    </ActionButton>
  )
}

function RerunButton({ task, view }: { task: TaskData; view: TaskView }) {
  const [params, setParams] = useState<Schema>(view.params ?? {})
  const [created, setCreated] = useState<string | null>(null)
  const schema = task.document?.['params'] as Schema | undefined
  return (
    <ActionButton
      label="Run again…"
      title="Run again as a new task"
      verb="Submit"
      run={async () => {
        const body = { params: changedParams(view.params ?? {}, params) }
        const { id } = await api.post<Created>(path`/tasks/${task.id}/rerun`, body)
        setCreated(id)
        navigate(path`/tasks/${id}`)
      }}
      onDone={() => showToast(`A new task was submitted${created ? `: ${created}` : ''}.`)}
    >
      <p>The new task has the same graph{view.flow ? ` (${view.flow} v${view.version})` : ''} and labels, and these params.</p>
      {schema
        ? <SchemaForm schema={schema} value={params} onChange={setParams} />
        : <JsonField title="Params" value={params} onChange={(value) => setParams((value ?? {}) as Schema)} />}
    </ActionButton>
  )
}

interface Signal {
  name: string
  schema: Schema | null
}

/** Return the signals for which nodes of the graph wait. */
function signalsOf(task: TaskData): Signal[] {
  const found = new Map<string, Signal>()
  for (const node of task.graph?.nodes ?? []) {
    const io = node.written['io'] as Record<string, unknown> | undefined
    if (node.type !== 'wait_signal' || typeof io?.['signal'] !== 'string') continue
    const schema = (io['schema'] ?? null) as Schema | null
    found.set(io['signal'], { name: io['signal'], schema })
  }
  return [...found.values()]
}

export function SignalButton({ task, signals }: { task: TaskData; signals: Signal[] }) {
  const [chosen, setChosen] = useState(0)
  const [payload, setPayload] = useState<unknown>(undefined)
  const signal = signals[chosen]
  if (!signal) return null
  return (
    <ActionButton
      label="Signal…"
      title="Send a signal"
      verb="Send"
      run={() => api.post(path`/tasks/${task.id}/signal`, { name: signal.name, payload: payload ?? null })}
      onDone={() => {
        showToast(`The signal ${signal.name} was sent.`)
        task.refresh()
      }}
    >
      <p>The node that has waited the longest for it takes the signal. If none waits yet, it is kept.</p>
      <label>Name
        <select value={chosen} onChange={(event) => setChosen(Number(event.target.value))}>
          {signals.map((one, place) => <option key={one.name} value={place}>{one.name}</option>)}
        </select>
      </label>
      {signal.schema?.['type'] === 'object'
        ? <SchemaForm key={chosen} schema={signal.schema} value={(payload ?? {}) as Schema} onChange={setPayload} />
        : <JsonField key={chosen} title="Payload" rows={4} value={payload} onChange={setPayload} />}
    </ActionButton>
  )
}
