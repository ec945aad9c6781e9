/** The events of one node: the newest, without its progress, and a status once while it lasts. */

import type { Page, TaskEvent } from '../api/types'

const MOST_SHOWN = 200
/** Pages that are read at most: a node may report its progress for days. */
const MOST_PAGES = 5

export interface NodeHistory {
  /** The newest events in their order. */
  events: TaskEvent[]
  /** Whether there are events before them. */
  isCut: boolean
  /** Whether events of progress are left out. */
  hasProgress: boolean
}

/** Read pages of the events of a node, the newest first, until there are enough. */
export async function readNodeHistory(
  readPage: (after: string | null) => Promise<Page<TaskEvent>>,
): Promise<NodeHistory> {
  const found: TaskEvent[] = []
  let hasProgress = false
  let after: string | null = null
  for (let pages = 0; pages < MOST_PAGES && found.length <= MOST_SHOWN; pages += 1) {
    const page = await readPage(after)
    const told = page.items.filter((event) => event.kind !== 'progress')
    hasProgress ||= told.length < page.items.length
    found.push(...told)
    after = page.next
    if (after === null) break
  }
  const isCut = after !== null || found.length > MOST_SHOWN
  const events = found.slice(0, MOST_SHOWN).reverse()
  return { events: events.filter((event, at) => !lasts(event, events[at - 1])), isCut, hasProgress }
}

/** Return whether an event only says that a status lasts: a node is queued when it may run, and when its command is sent. */
function lasts(event: TaskEvent, before: TaskEvent | undefined): boolean {
  return event.kind === 'status' && before?.kind === 'status' && event.status === before.status && event.data === null
}

/** Say which events are left out. Return null if all are shown. */
export function leftOutText({ isCut, hasProgress }: NodeHistory): string | null {
  const parts = [isCut && 'earlier events', hasProgress && 'progress'].filter(Boolean)
  return parts.length ? `Not shown: ${parts.join(', ')}.` : null
}
