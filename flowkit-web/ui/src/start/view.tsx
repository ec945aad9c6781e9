/** Answer to "is it well?" about the whole installation. */

import { useQuery } from '@tanstack/react-query'
import { api } from '../api/client'
import type { Stats } from '../api/types'
import { Loaded } from '../shared/problem'
import { ViewHeading } from '../shared/view'

const EVERY_MS = 5_000

export default function StartPage() {
  const query = useQuery({
    queryKey: ['stats'],
    queryFn: ({ signal }) => api.get<Stats>('/stats', {}, signal),
    refetchInterval: EVERY_MS,
  })
  return (
    <>
      <ViewHeading title="Start" />
      <Loaded query={query}>{(stats) => <Figures stats={stats} />}</Loaded>
    </>
  )
}

function Figures({ stats }: { stats: Stats }) {
  return (
    <section className="card">
      <h2>Workers</h2>
      <p>{stats.workers.live} live, {stats.workers.running} of {stats.workers.slots} slots busy</p>
    </section>
  )
}
