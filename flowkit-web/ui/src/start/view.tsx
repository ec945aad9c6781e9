/** Answer to "is it well?" about the whole installation. */

import type { ReactNode } from 'react'
import type { Stats, TaskStatus, WaitingFor } from '../api/types'
import { Link } from '../router'
import { useLive } from '../shared/lists'
import { countText } from '../shared/numbers'
import { Empty, Loaded } from '../shared/problem'
import { Badge, StatusBadge } from '../shared/status'
import { Time } from '../shared/time'
import { ViewHeading } from '../shared/view'
import { WAIT_NAMES } from '../tasks/filter'
import { concernsOf, type Concern } from './concerns'
import './start.css'

export default function StartPage() {
  const query = useLive<Stats>('/stats')
  return (
    <>
      <ViewHeading title="Is it well?" />
      <Loaded query={query}>
        {(stats) => (
          <>
            <Concerns concerns={concernsOf(stats)} />
            <div className="cards">
              <OpenTasks stats={stats} />
              <Ended stats={stats} />
              <Failures stats={stats} />
              <Queues stats={stats} />
              <Waits stats={stats} />
              <Workers stats={stats} />
            </div>
          </>
        )}
      </Loaded>
    </>
  )
}

function Concerns({ concerns }: { concerns: Concern[] }) {
  if (concerns.length === 0) {
    return <p className="verdict good" role="status"><span aria-hidden="true">✓ </span>All is well.</p>
  }
  return (
    <div className="verdict" role="status">
      <ul>{concerns.map(({ text, href }) => <li key={text}><Link href={href}>{text}</Link></li>)}</ul>
    </div>
  )
}

function Card({ title, children }: { title: string; children: ReactNode }) {
  return <section className="card"><h2>{title}</h2>{children}</section>
}

/** Numbers with their links, one a line. */
function Counts({ rows }: { rows: { name: ReactNode; count: string; href: string; key: string }[] }) {
  return (
    <table>
      <tbody>
        {rows.map(({ key, name, count, href }) => (
          <tr key={key}>
            <td>{name}</td>
            <td className="number"><Link href={href} aria-label={`${count} ${key}`}>{count}</Link></td>
          </tr>
        ))}
      </tbody>
    </table>
  )
}

function OpenTasks({ stats }: { stats: Stats }) {
  const rows = entriesOf(stats.open).map(([status, count]) => ({
    key: status, name: <StatusBadge status={status} />,
    count: countText(count, stats.most), href: `/tasks?status=${status}`,
  }))
  const retrying = {
    key: 'retrying', name: <Badge tone="wait" sign="↻">retrying</Badge>,
    count: countText(stats.retrying, stats.most), href: '/tasks?retrying=true',
  }
  return <Card title="Open tasks"><Counts rows={[...rows, retrying]} /></Card>
}

function Ended({ stats }: { stats: Stats }) {
  return (
    <Card title="Ended, by the time of creation">
      <table>
        <thead>
          <tr><th>Status</th><th className="number">Last hour</th><th className="number">Last day</th></tr>
        </thead>
        <tbody>
          {entriesOf(stats.ended_last_day).map(([status, count]) => (
            <tr key={status}>
              <td><Link href={`/tasks?status=${status}`}><StatusBadge status={status} /></Link></td>
              <td className="number">{countText(stats.ended_last_hour[status] ?? 0, stats.most)}</td>
              <td className="number">{countText(count, stats.most)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Card>
  )
}

function Failures({ stats }: { stats: Stats }) {
  const reasons = Object.entries(stats.failures_last_day)
  const rows = reasons.map(([code, count]) => ({
    key: code, name: <code>{code}</code>, count: countText(count, stats.most),
    href: `/tasks?status=failed&reason_code=${encodeURIComponent(code)}`,
  }))
  return (
    <Card title="Failures of the last day">
      {rows.length ? <Counts rows={rows} /> : <Empty>No task failed.</Empty>}
    </Card>
  )
}

const LIMITED = 'Only the nodes of the oldest tasks are counted.'

export function Queues({ stats }: { stats: Pick<Stats, 'queues'> }) {
  return (
    <Card title="Nodes that wait for a worker">
      {stats.queues.length === 0 ? <Empty>None waits.</Empty> : (
        <table>
          <thead><tr><th>Role</th><th className="number">Nodes</th><th>Oldest</th></tr></thead>
          <tbody>
            {stats.queues.map(({ role, waiting, oldest_at, limited }) => (
              <tr key={role}>
                <td><code>{role}</code></td>
                <td className="number">
                  {limited ? <span title={LIMITED}>{countText(waiting, waiting)}</span> : countText(waiting)}
                </td>
                <td><Time at={oldest_at} distance /></td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Card>
  )
}

function Waits({ stats }: { stats: Stats }) {
  const rows = Object.entries(WAIT_NAMES).map(([wait, name]) => ({
    key: wait, name, count: countText(stats.waiting[wait as WaitingFor] ?? 0, stats.most),
    href: `/waiting?for=${wait}`,
  }))
  return <Card title="Tasks that wait for"><Counts rows={rows} /></Card>
}

function Workers({ stats: { coordinators, workers } }: { stats: Stats }) {
  return (
    <Card title="Workers">
      <table>
        <tbody>
          <tr><td>live coordinators</td><td className="number">{countText(coordinators.live)}</td></tr>
          <tr><td>live workers</td><td className="number">{countText(workers.live)}</td></tr>
          <tr><td>without heartbeats</td><td className="number">{countText(workers.silent)}</td></tr>
          <tr>
            <td>busy slots</td>
            <td className="number">{countText(workers.running)} of {countText(workers.slots)}</td>
          </tr>
        </tbody>
      </table>
      <p><Link href="/workers">All workers</Link></p>
    </Card>
  )
}

function entriesOf(counts: Partial<Record<TaskStatus, number>>): [TaskStatus, number][] {
  return Object.entries(counts) as [TaskStatus, number][]
}
