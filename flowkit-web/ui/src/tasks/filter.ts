/**
 * Filter of the list of tasks. It is kept in the address, so that a list can be sent to others.
 * Its names are those of the API.
 */

import { jsonText } from '../api/json'
import type { TaskStatus, WaitingFor } from '../api/types'
import { allOf, faultsOf, isOneOf, isText, listOf, type Check } from '../shared/filters'

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

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?$/
const isFlag = isOneOf(['true', 'false'])
const isTime: Check = (text) =>
  timeOf(text) === null ? `is ${jsonText(text)}, which is no time such as 2026-01-31T12:00` : null
const isLabel: Check = (text) =>
  text.indexOf('=') > 0 ? null : `is ${jsonText(text)}, which is not of the form key=value`

const CHECKS: Record<keyof Filter, Check> = {
  status: isOneOf(STATUSES), pipeline: isText, labels: isLabel, reason_code: isText,
  waiting: isOneOf(Object.keys(WAIT_NAMES)), retrying: isFlag, parent: isText, root: isFlag,
  created_after: isTime, created_before: isTime,
}

/** Return what is wrong with the filter of an address. Such a filter must not be used. */
export function filterFaults(search: URLSearchParams): string[] {
  const keys = search.getAll('labels').map((pair) => pairOf(pair)[0])
  const twice = new Set(keys.filter((key, place) => keys.indexOf(key) !== place))
  return [
    ...faultsOf(search, CHECKS, { status: listOf, labels: allOf }),
    ...[...twice].map((key) => `labels has more than one value of ${jsonText(key)}.`),
  ]
}

/** Return the filter of an address that has no faults. */
export function filterOf(search: URLSearchParams): Filter {
  const flag = (name: string): boolean | null => (search.has(name) ? search.get(name) === 'true' : null)
  return {
    status: listOf(search, 'status'),
    pipeline: search.get('pipeline'),
    labels: allOf(search, 'labels'),
    reason_code: search.get('reason_code'),
    waiting: search.get('waiting'),
    retrying: flag('retrying'),
    parent: search.get('parent'),
    root: flag('root'),
    created_after: timeOf(search.get('created_after')),
    created_before: timeOf(search.get('created_before')),
  }
}

/** Return the key and the value of a label `key=value`. The key contains no `=`. */
function pairOf(label: string): [string, string] {
  const end = label.indexOf('=')
  return [label.slice(0, end), label.slice(end + 1)]
}

/** Return a time of the address, which is in the viewer's zone unless it names one. */
function timeOf(text: string | null): string | null {
  const at = text && TIME.test(text) ? new Date(text) : null
  return at && !Number.isNaN(at.getTime()) ? at.toISOString() : null
}

/** Return the filter as a body of a request that changes all tasks that match. */
export function bodyOf(filter: Filter): Record<string, unknown> {
  const all = {
    ...filter,
    status: filter.status.length ? filter.status : null,
    labels: filter.labels.length ? Object.fromEntries(filter.labels.map(pairOf)) : null,
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null))
}

/** Return whether the filter matches each task. */
export function isEverything(filter: Filter): boolean {
  return Object.keys(bodyOf(filter)).length === 0
}
