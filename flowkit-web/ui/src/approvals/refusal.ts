/** Why an approval takes no decision any more. */

import type { NodeView } from '../api/types'

/** Return why a node takes no decision, or null while it waits for one. */
export function refusalOf({ status, waiting, result, resolved_by: by }: NodeView): string | null {
  if (status === 'deferred' && waiting === 'approval') return null
  return `${happened(status, result, by)} What is filled in here was not sent.`
}

function happened(status: string, result: unknown, settledBy: string | null | undefined): string {
  if (settledBy) return `Already settled by ${settledBy}: ${status}.`
  const { choice, by } = (result ?? {}) as Record<string, unknown>
  return typeof by === 'string' ? `Already decided by ${by}: ${String(choice)}.` : `It waits for no decision: it is ${status}.`
}
