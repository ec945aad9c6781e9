/** The list of tasks. */

import { useInfiniteQuery } from '@tanstack/react-query'
import { useCallback, useMemo } from 'react'
import { api } from '../api/client'
import type { Page, TaskView } from '../api/types'
import { Empty, ProblemBox } from '../shared/problem'
import { StatusBadge } from '../shared/status'
import { Table, type Column } from '../shared/table'
import { Duration, Time } from '../shared/time'
import { TaskLink, ViewHeading } from '../shared/view'

const COLUMNS: Column<TaskView>[] = [
  { title: 'Task', width: 'minmax(12rem, 2fr)', cell: (task) => <TaskLink id={task.id} /> },
  { title: 'Status', width: '8rem', cell: (task) => <StatusBadge status={task.status} /> },
  { title: 'Created', width: '11rem', cell: (task) => <Time at={task.created_at} /> },
  { title: 'Took', width: '6rem', cell: (task) => <Duration from={task.started_at} to={task.finished_at} /> },
]

export default function TasksPage() {
  const query = useInfiniteQuery({
    queryKey: ['tasks'],
    queryFn: ({ pageParam, signal }) =>
      api.get<Page<TaskView>>('/tasks', { limit: 100, after: pageParam }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next,
  })
  const { hasNextPage, isFetching, fetchNextPage } = query
  const onEnd = useCallback(() => {
    if (hasNextPage && !isFetching) void fetchNextPage()
  }, [hasNextPage, isFetching, fetchNextPage])
  const rows = useMemo(() => query.data?.pages.flatMap((page) => page.items) ?? [], [query.data])
  return (
    <>
      <ViewHeading title="Tasks" />
      {query.error && <ProblemBox error={query.error} />}
      {query.data && rows.length === 0 && <Empty>There are no tasks.</Empty>}
      <Table label="Tasks" columns={COLUMNS} rows={rows} keyOf={(task) => task.id} onEnd={onEnd} />
    </>
  )
}
