/** Fields of the filter of the list of tasks. */

import { useState, type ReactNode } from 'react'
import { useSearch } from '../router'
import { allOf, listOf } from '../shared/filters'
import { STATUSES, WAIT_NAMES } from './filter'

export function FilterBar() {
  const [search, change] = useSearch()
  const [isOpen, setOpen] = useState(
    ['labels', 'reason_code', 'created_after', 'created_before', 'parent'].some((name) => search.has(name)),
  )
  const chosen = listOf(search, 'status')
  const toggle = (status: string): void => {
    const next = chosen.includes(status)
      ? chosen.filter((one) => one !== status) : [...chosen, status]
    change({ status: next.join(',') })
  }
  return (
    <search className="filter-bar">
      <div className="chips" role="group" aria-label="Status">
        {STATUSES.map((status) => (
          <button
            key={status} type="button"
            aria-pressed={chosen.includes(status)} onClick={() => toggle(status)}
          >
            {status}
          </button>
        ))}
        <Toggle name="retrying">retrying now</Toggle>
        <Toggle name="root">without child tasks</Toggle>
      </div>
      <div className="filters">
        <Field name="pipeline" label="Flow or pipeline" />
        <label>
          Waiting for
          <select
            value={search.get('waiting') ?? ''}
            onChange={(event) => change({ waiting: event.target.value })}
          >
            <option value="">anything or nothing</option>
            {Object.entries(WAIT_NAMES).map(([one, name]) => <option key={one} value={one}>{name}</option>)}
          </select>
        </label>
        {isOpen && (
          <>
            <Labels />
            <Field name="reason_code" label="Reason" hint="lease_expired" />
            <Field name="parent" label="Parent task" />
            <Field name="created_after" label="Created after" type="datetime-local" />
            <Field name="created_before" label="Created before" type="datetime-local" />
          </>
        )}
        <button type="button" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
          {isOpen ? 'Fewer filters' : 'More filters'}
        </button>
      </div>
    </search>
  )
}

function Toggle({ name, children }: { name: string; children: ReactNode }) {
  const [search, change] = useSearch()
  const isOn = search.get(name) === 'true'
  return (
    <button type="button" aria-pressed={isOn} onClick={() => change({ [name]: isOn ? null : 'true' })}>
      {children}
    </button>
  )
}

function Field({ name, label, hint, type = 'text' }: {
  name: string
  label: string
  hint?: string
  type?: string
}) {
  const [search, change] = useSearch()
  const value = search.get(name) ?? ''
  const keep = (text: string): void => {
    if (text !== value) change({ [name]: text.trim() })
  }
  return <label>{label}<Input key={value} type={type} value={value} hint={hint} keep={keep} /></label>
}

/** The labels of the filter, and a field that adds one. Values of labels may contain commas. */
function Labels() {
  const [search, change] = useSearch()
  const labels = allOf(search, 'labels')
  const add = (text: string): void => {
    const next = text.trim()
    if (next && !labels.includes(next)) change({ labels: [...labels, next] })
  }
  return (
    <>
      <label>Label<Input key={labels.join()} value="" hint="key=value" keep={add} /></label>
      {labels.map((one) => (
        <button
          key={one} type="button" className="label" title="Remove this label from the filter"
          onClick={() => change({ labels: labels.filter((other) => other !== one) })}
        >
          {one} <span aria-hidden>×</span>
        </button>
      ))}
    </>
  )
}

/** Input that keeps its text when it is left, or with Enter. */
function Input({ value, hint, keep, type = 'text' }: {
  value: string
  hint?: string | undefined
  keep: (text: string) => void
  type?: string
}) {
  return (
    <input
      type={type} defaultValue={value} placeholder={hint} autoComplete="off"
      onBlur={(event) => keep(event.target.value)}
      onKeyDown={(event) => {
        if (event.key === 'Enter') keep(event.currentTarget.value)
      }}
    />
  )
}
