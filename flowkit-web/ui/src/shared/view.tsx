/** Parts that all views have: the heading, and links to what they name. */

import { useEffect, type ReactNode } from 'react'
import { path } from '../api/client'
import { jsonText } from '../api/json'
import { Link } from '../router'
import { printable } from './printable'

export function ViewHeading({ title, children }: { title: string; children?: ReactNode }) {
  useEffect(() => {
    document.title = printable(`${title} · FlowKit`)
  }, [title])
  return (
    <header className="view-heading">
      <h1>{title}</h1>
      <div className="buttons">{children}</div>
    </header>
  )
}

const SHOWN_ID = 24

/** Shorten a long id in its middle: ids that begin with their time differ at their ends. */
export function shortId(id: string): string {
  return id.length > SHOWN_ID ? `${id.slice(0, 10)}…${id.slice(-10)}` : id
}

export function TaskLink({ id }: { id: string }) {
  return <Link className="id" href={path`/tasks/${id}`} title={id}>{shortId(id)}</Link>
}

export function FlowLink({ name, version }: { name: string; version?: number | null }) {
  return (
    <Link href={path`/flows/${name}` + (version ? `?version=${version}` : '')}>
      {name}{version ? <span className="quiet"> v{version}</span> : null}
    </Link>
  )
}

/** A value as JSON. */
export function Json({ value }: { value: unknown }) {
  return <pre className="json" tabIndex={0}>{jsonText(value, 2)}</pre>
}

/** Return the fields of a definition that are given. */
export function withoutNulls(fields: object): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null))
}
