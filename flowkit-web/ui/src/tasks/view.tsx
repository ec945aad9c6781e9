/** List of tasks. */

import { useMemo } from 'react'
import type { TaskView } from '../api/types'
import { useSearch } from '../router'
import { usePages } from '../shared/lists'
import { Empty, ProblemBox } from '../shared/problem'
import { ViewHeading } from '../shared/view'
import { BulkActions } from './bulk'
import { filterOf, isEverything } from './filter'
import { FilterBar } from './filter-bar'
import { TaskTable } from './task-table'
import './tasks.css'

export default function TasksPage() {
  const [search] = useSearch()
  const filter = useMemo(() => filterOf(search), [search])
  const { rows, error, onEnd, hasMore } = usePages<TaskView>('/tasks', { ...filter, nodes: 'none' })
  return (
    <>
      <ViewHeading title="Tasks"><BulkActions filter={filter} /></ViewHeading>
      <FilterBar />
      {error && <ProblemBox error={error} />}
      {rows?.length === 0 && (
        <Empty>{isEverything(filter) ? 'There are no tasks yet.' : 'No task matches the filter.'}</Empty>
      )}
      {rows && rows.length > 0 && (
        <>
          <TaskTable rows={rows} onEnd={onEnd} />
          <p className="quiet" role="status">{rows.length}{hasMore ? ' or more' : ''} tasks</p>
        </>
      )}
    </>
  )
}
