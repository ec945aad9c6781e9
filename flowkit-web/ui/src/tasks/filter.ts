/** Filter of the list of tasks. It is kept in the address, so that a list can be sent to others. */

import type { TaskStatus, WaitingFor } from '../api/types'

export const STATUSES: readonly TaskStatus[] = [
  'queued', 'running', 'deferred', 'paused', 'cancelling', 'finished', 'failed', 'cancelled',
]
export const WAIT_NAMES: Record<WaitingFor, string> = {
  worker: 'a worker', approval: 'an approval', signal: 'a signal', timer: 'a time',
  key: 'a key', rate: 'a rate', cache: 'a stored result',
}

export interface Filter {
  status: string[]
  pipeline: string | null
  labels: string[]
  reason_code: string | null
  waiting: string | null
  retrying: boolean | null
  parent: string | null
  root: boolean | null
  created_after: string | null
  created_before: string | null
}

/** Return the filter of an address. */
export function filterOf(search: URLSearchParams): Filter {
  const list = (name: string): string[] => (search.get(name) ?? '').split(',').filter(Boolean)
  return {
    status: list('status').filter((one) => (STATUSES as readonly string[]).includes(one)),
    pipeline: search.get('flow'),
    labels: list('label').filter((one) => one.indexOf('=') > 0),
    reason_code: search.get('reason'),
    waiting: search.get('waiting'),
    retrying: search.get('retrying') === 'yes' || null,
    parent: search.get('parent'),
    root: search.get('root') === 'yes' || null,
    created_after: timeOf(search.get('after')),
    created_before: timeOf(search.get('before')),
  }
}

/** Return a time of the address, which is in the viewer's zone unless it names one. */
export function timeOf(text: string | null): string | null {
  const at = text ? new Date(text) : null
  return at && !Number.isNaN(at.getTime()) ? at.toISOString() : null
}

/** Return the filter as a body of a request that changes all tasks that match. */
export function bodyOf(filter: Filter): Record<string, unknown> {
  const labels = filter.labels.map((pair): [string, string] => {
    const [key = '', ...rest] = pair.split('=')
    return [key, rest.join('=')]
  })
  const all = {
    ...filter,
    status: filter.status.length ? filter.status : null,
    labels: labels.length ? Object.fromEntries(labels) : null,
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null))
}

/** Return whether the filter matches each task. */
export function isEverything(filter: Filter): boolean {
  return Object.keys(bodyOf(filter)).length === 0
}
