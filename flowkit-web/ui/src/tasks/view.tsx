/** List of tasks. */

import { useMemo } from 'react'
import type { TaskView } from '../api/types'
import { useSearch } from '../router'
import { FilterFaults } from '../shared/filter-faults'
import { usePages } from '../shared/lists'
import { Empty, ProblemBox } from '../shared/problem'
import { ViewHeading } from '../shared/view'
import { BulkActions } from './bulk'
import { filterFaults, filterOf, isEverything, type Filter } from './filter'
import { FilterBar } from './filter-bar'
import { TaskTable } from './task-table'
import './tasks.css'

export default function TasksPage() {
  const [search] = useSearch()
  const faults = useMemo(() => filterFaults(search), [search])
  const filter = useMemo(() => filterOf(search), [search])
  const isValid = faults.length === 0
  return (
    <>
      <ViewHeading title="Tasks">{isValid && <BulkActions filter={filter} />}</ViewHeading>
      <FilterBar />
      {isValid ? <TaskList filter={filter} /> : <FilterFaults faults={faults} href="/tasks" />}
    </>
  )
}

function TaskList({ filter }: { filter: Filter }) {
  const { rows, error, onEnd, hasMore } = usePages<TaskView>('/tasks', { ...filter, nodes: 'none' })
  return (
    <>
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
