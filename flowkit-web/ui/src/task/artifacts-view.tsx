/** The artifacts of a task, or of its selected node. */

import { useInfiniteQuery } from '@tanstack/react-query'
import { useCallback, useMemo } from 'react'
import { api, path } from '../api/client'
import { jsonText } from '../api/json'
import type { Artifact, Page } from '../api/types'
import { useSearch } from '../router'
import { Empty, ProblemBox } from '../shared/problem'
import { Table, type Column } from '../shared/table'
import { Time } from '../shared/time'
import type { TaskData } from './use-task'

const A_PAGE = 200
const COLUMNS: Column<Artifact>[] = [
  { title: 'Node', width: 'minmax(9rem, 1fr)', cell: (one) => <span className="id">{one.node_id}</span> },
  { title: 'Kind', width: '6rem', cell: (one) => (one.partial ? 'batch' : 'complete') },
  { title: 'Stored', width: '11rem', cell: (one) => <Time at={one.created_at} /> },
  { title: 'Uid', width: 'minmax(7rem, 1fr)', cell: (one) => <span className="id" title={one.uid}>{one.uid}</span> },
  {
    title: 'Meta',
    width: 'minmax(12rem, 3fr)',
    cell: (one) => <span className="code" title={jsonText(one.meta, 2)}>{jsonText(one.meta)}</span>,
  },
]

export function ArtifactsView({ task }: { task: TaskData }) {
  const [search, changeSearch] = useSearch()
  const node = search.get('node')
  const query = useInfiniteQuery({
    queryKey: ['task', task.id, 'artifacts', node],
    queryFn: ({ pageParam, signal }) => api.get<Page<Artifact>>(
      node === null ? path`/tasks/${task.id}/artifacts` : path`/tasks/${task.id}/nodes/${node}/artifacts`,
      { limit: A_PAGE, after: pageParam }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next,
  })
  const { hasNextPage, isFetching, fetchNextPage } = query
  const onEnd = useCallback(() => {
    if (hasNextPage && !isFetching) void fetchNextPage()
  }, [hasNextPage, isFetching, fetchNextPage])
  const rows = useMemo(() => query.data?.pages.flatMap((page) => page.items) ?? [], [query.data])
  return (
    <section className="artifacts">
      <div className="filters">
        {node === null ? <span>Artifacts of all nodes</span> : <>
          <span>Artifacts of <span className="id">{node}</span></span>
          <button type="button" onClick={() => changeSearch({ node: null })}>Those of all nodes</button>
        </>}
        <button type="button" onClick={() => void query.refetch()}>Read again</button>
      </div>
      {query.error && <ProblemBox error={query.error} />}
      {query.isPending && <Empty>Loading…</Empty>}
      {query.data && (rows.length === 0
        ? <Empty>No artifacts are stored.</Empty>
        : <Table label="Artifacts" rows={rows} columns={COLUMNS} keyOf={(one) => `${one.node_id}\n${one.uid}\n${one.partial}`} onEnd={onEnd} />)}
    </section>
  )
}
