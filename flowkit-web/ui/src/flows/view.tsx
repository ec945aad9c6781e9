/** A version of a flow, how it differs from an earlier one, and its tasks. */

import { useQuery } from '@tanstack/react-query'
import { useState } from 'react'
import { api, path } from '../api/client'
import type { Created, FlowVersion } from '../api/types'
import { JsonField } from '../forms/schema-form'
import { Link, navigate, useSearch } from '../router'
import { ActionButton } from '../shared/dialog'
import { useMay } from '../shared/me'
import { Empty, Loaded } from '../shared/problem'
import { Badge, type Tone } from '../shared/status'
import { Time } from '../shared/time'
import { Json, ViewHeading } from '../shared/view'
import { differences, type Change } from './difference'
import './flows.css'

const TONES: Record<Change['kind'], Tone> = { added: 'good', removed: 'bad', changed: 'wait' }

function useVersion(name: string, version: number | null) {
  return useQuery({
    queryKey: ['flow', name, version],
    queryFn: ({ signal }) => api.get<FlowVersion>(path`/flows/${name}`, { version }, signal),
    enabled: version !== 0,
  })
}

export default function FlowPage({ name = '' }: { name?: string }) {
  const [search] = useSearch()
  const latest = useVersion(name, null)
  const chosen = Number(search.get('version')) || null
  const query = useVersion(name, chosen)
  const last = latest.data?.version
  return (
    <>
      <ViewHeading title={name}>
        <Link href={`/tasks?pipeline=${encodeURIComponent(name)}`}>Its tasks</Link>
        {query.data && <RunButton flow={query.data} />}
      </ViewHeading>
      <Loaded query={query}>
        {(flow) => (
          <>
            <section className="card">
              <p>{flow.description || <span className="quiet">no description</span>}</p>
              <p className="quiet">Version {flow.version}, registered <Time at={flow.created_at} /></p>
              <Versions last={last ?? flow.version} shown={flow.version} />
            </section>
            <Difference flow={flow} />
            <section className="card"><h2>Graph</h2><Json value={flow.graph} /></section>
          </>
        )}
      </Loaded>
    </>
  )
}

function Versions({ last, shown }: { last: number; shown: number }) {
  const [search, change] = useSearch()
  const numbers = Array.from({ length: last }, (_, place) => last - place)
  return (
    <div className="filters">
      <label>
        Version
        <select value={shown} onChange={(event) => change({ version: event.target.value, from: null })}>
          {numbers.map((one) => <option key={one} value={one}>{one}</option>)}
        </select>
      </label>
      {shown > 1 && (
        <label>
          Compared with
          <select
            value={search.get('from') ?? shown - 1}
            onChange={(event) => change({ from: event.target.value })}
          >
            {numbers.filter((one) => one !== shown).map((one) => (
              <option key={one} value={one}>{one}</option>
            ))}
          </select>
        </label>
      )}
    </div>
  )
}

function Difference({ flow }: { flow: FlowVersion }) {
  const [search] = useSearch()
  const from = Number(search.get('from')) || flow.version - 1
  const query = useVersion(flow.name, from)
  if (from === 0) return null
  return (
    <section className="card">
      <h2>Changes since version {from}</h2>
      <Loaded query={query}>
        {(old) => {
          const changes = differences(old.graph, flow.graph)
          if (changes.length === 0) return <Empty>The graphs are equal.</Empty>
          return <>{changes.map((one) => <ChangeBox key={one.name} change={one} />)}</>
        }}
      </Loaded>
    </section>
  )
}

function ChangeBox({ change }: { change: Change }) {
  return (
    <details>
      <summary><Badge tone={TONES[change.kind]}>{change.kind}</Badge> {change.name}</summary>
      <div className="sides">
        {change.before !== undefined && <div><h3>Before</h3><Json value={change.before} /></div>}
        {change.after !== undefined && <div><h3>After</h3><Json value={change.after} /></div>}
      </div>
    </details>
  )
}

function RunButton({ flow }: { flow: FlowVersion }) {
  const [params, setParams] = useState<unknown>({})
  if (!useMay('operator')) return null
  const run = async (): Promise<void> => {
    const body = { flow: flow.name, version: flow.version, params }
    const { id } = await api.post<Created>('/tasks', body)
    navigate(path`/tasks/${id}`)
  }
  return (
    <ActionButton
      label="Run it" title={`Run ${flow.name}, version ${flow.version}?`} verb="Run it" run={run}
    >
      <JsonField title="Params" value={params} onChange={setParams} required rows={6} />
    </ActionButton>
  )
}
