/** The data of a task: params, vars, result, and its graph as it was written. */

import { useEffect } from 'react'
import type { TaskView } from '../api/types'
import { Json } from '../shared/view'
import type { TaskData } from './use-task'

export function DataView({ task, view }: { task: TaskData; view: TaskView }) {
  const { refetch } = task.header
  useEffect(() => {
    void refetch() // vars change without an event
  }, [refetch])
  return (
    <div className="data">
      <Part title="Params" value={view.params} none="The task has no params." />
      <Part title="Vars" value={view.vars} none="No node has set a var." />
      <Part
        title="Result"
        value={view.result ?? null}
        none={view.finished_at ? 'The task has no result.' : 'The task has not ended.'}
      />
      <details className="card">
        <summary><h2>Graph as it was written</h2></summary>
        {task.document && <Json value={task.document} />}
      </details>
    </div>
  )
}

function Part({ title, value, none }: { title: string; value: unknown; none: string }) {
  const isEmpty = value === null || value === undefined ||
    (typeof value === 'object' && Object.keys(value).length === 0)
  return (
    <section className="card">
      <h2>{title}</h2>
      {isEmpty ? <p className="quiet">{none}</p> : <Json value={value} />}
    </section>
  )
}
