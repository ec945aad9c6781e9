/** Filters in the address. An unknown one is a fault: a list without it would show too much. */

import { jsonText } from '../api/json'

/** Return what is wrong with a value of a filter, or null. */
export type Check = (text: string) => string | null

export const isText: Check = (text) => (text === '' ? 'has no value' : null)

export function isOneOf(values: readonly string[]): Check {
  return (text) => (values.includes(text) ? null : `is ${jsonText(text)}, which is none of ${values.join(', ')}`)
}

/** Return the values of a filter that takes several, which commas or repetition separate. */
export function listOf(search: URLSearchParams, name: string): string[] {
  return search.getAll(name).flatMap((text) => text.split(','))
}

/** Return the values of a filter that takes several. Each may contain commas. */
export function allOf(search: URLSearchParams, name: string): string[] {
  return search.getAll(name)
}

/** Return what is wrong with the filters of an address. Those of `lists` take several values. */
export function faultsOf(
  search: URLSearchParams, checks: Record<string, Check>, lists: Record<string, typeof allOf> = {},
): string[] {
  const known = new Map(Object.entries(checks))
  return [...new Set(search.keys())].flatMap((name) => {
    const check = known.get(name)
    if (!check) return `${name} is not a filter here. Filters are ${[...known.keys()].join(', ')}.`
    const values = (lists[name] ?? allOf)(search, name)
    if (values.length > 1 && !(name in lists)) return `${name} has ${values.length} values. It takes one.`
    return values.map(check).filter((fault) => fault !== null).map((fault) => `${name} ${fault}.`)
  })
}
