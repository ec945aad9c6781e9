/** One task. */

import { useQuery, useQueryClient } from '@tanstack/react-query'
import { api, path } from '../api/client'
import { useTaskEvents } from '../api/events'
import type { TaskView } from '../api/types'
import { Loaded } from '../shared/problem'
import { StatusBadge } from '../shared/status'
import { Time } from '../shared/time'
import { ViewHeading } from '../shared/view'

export default function TaskPage({ id = '' }: { id?: string }) {
  const queries = useQueryClient()
  const key = ['task', id]
  const query = useQuery({
    queryKey: key,
    queryFn: ({ signal }) => api.get<TaskView>(path`/tasks/${id}`, {}, signal),
  })
  useTaskEvents(id, 0, () => void queries.invalidateQueries({ queryKey: key }))
  return (
    <>
      <ViewHeading title={id} />
      <Loaded query={query}>
        {(task) => (
          <section className="card">
            <p><StatusBadge status={task.status} /> since <Time at={task.created_at} /></p>
            {task.error && <p>{task.error}</p>}
          </section>
        )}
      </Loaded>
    </>
  )
}
