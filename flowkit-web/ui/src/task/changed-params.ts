/** The params that a task runs again with. */

import { jsonText } from '../api/json'

type Params = Record<string, unknown>

/**
 * Return the params that were edited: the server keeps the others exactly as they were submitted.
 * Throw an error if one was left out, because it would be kept as well.
 */
export function changedParams(before: Params, after: Params): Params {
  const missing = Object.keys(before).find((name) => !Object.hasOwn(after, name))
  if (missing !== undefined) {
    throw new Error(`The param ${missing} is missing. It can be changed, but not left out.`)
  }
  return Object.fromEntries(Object.entries(after)
    .filter(([name, value]) => jsonText(value) !== jsonText(before[name])))
}
