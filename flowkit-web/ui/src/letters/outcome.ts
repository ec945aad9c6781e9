/** The outcome of a retry of dead letters. */

import type { RetriedLetter } from '../api/types'

/** Return the chosen letters without those that were retried. */
export function stillChosen(chosen: readonly string[], items: readonly RetriedLetter[]): ReadonlySet<string> {
  const retried = new Set(items.filter((item) => item.retried).map((item) => item.letter_id))
  return new Set(chosen.filter((id) => !retried.has(id)))
}

/** Return what to say when all were retried: also what was done, if it is the same for all. */
export function doneText(items: readonly RetriedLetter[]): string {
  const [detail, ...others] = new Set(items.map((item) => item.detail))
  return `${items.length} retried${detail && others.length === 0 ? `: ${detail}` : ''}`
}

/** Return the letters that were not retried, by reason. */
export function refusalsOf(items: readonly RetriedLetter[]): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const { letter_id: id, retried, detail } of items) {
    if (!retried) found.set(detail, [...(found.get(detail) ?? []), id])
  }
  return found
}
