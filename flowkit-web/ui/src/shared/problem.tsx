/** Errors, empty lists and what is still loading. */

import type { UseQueryResult } from '@tanstack/react-query'
import type { ReactNode } from 'react'
import { ApiError } from '../api/client'

export function ProblemBox({ error }: { error: unknown }) {
  const problem = error instanceof ApiError ? error.problem : null
  const text = error instanceof Error ? error.message : String(error)
  const faults = problem?.errors ?? []
  return (
    <div role="alert" className="problem">
      <strong>{problem?.title ?? 'Error'}</strong>
      <p>{text}</p>
      {faults.length > 1 && (
        <ul>
          {faults.map((fault, place) => (
            <li key={place}>{`${fault.node_id ?? fault.field}: ${fault.message}`}</li>
          ))}
        </ul>
      )}
    </div>
  )
}

export function Empty({ children }: { children: ReactNode }) {
  return <p className="empty">{children}</p>
}

/** Show the data of a query; until then that it loads, or its error. Keep old data on errors. */
export function Loaded<T>({ query, children }: {
  query: UseQueryResult<T>
  children: (data: T) => ReactNode
}) {
  if (query.data === undefined) {
    if (query.error) return <ProblemBox error={query.error} />
    return <p className="empty" role="status">Loading…</p>
  }
  return (
    <>
      {query.error && <ProblemBox error={query.error} />}
      {children(query.data)}
    </>
  )
}
