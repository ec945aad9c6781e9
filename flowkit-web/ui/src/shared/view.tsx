/** Parts that all views have: the heading, and links to what they name. */

import { useEffect, type ReactNode } from 'react'
import { path } from '../api/client'
import { Link } from '../router'

export function ViewHeading({ title, children }: { title: string; children?: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · FlowKit`
  }, [title])
  return (
    <header className="view-heading">
      <h1>{title}</h1>
      <div className="buttons">{children}</div>
    </header>
  )
}

export function TaskLink({ id, children }: { id: string; children?: ReactNode }) {
  return <Link className="id" href={path`/tasks/${id}`} title={id}>{children ?? id}</Link>
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
  return <pre className="json" tabIndex={0}>{JSON.stringify(value, null, 2)}</pre>
}
