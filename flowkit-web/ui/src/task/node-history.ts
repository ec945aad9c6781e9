/** The events of one node: the newest, without its progress. */

import type { Page, TaskEvent } from '../api/types'

const MOST_SHOWN = 200

export interface NodeHistory {
  /** The newest events in their order. */
  events: TaskEvent[]
  /** Number of events before them. */
  earlier: number
  /** Number of progress events that are left out. */
  progress: number
}

/** Read all pages of the events of a node, and keep what is shown. */
export async function readNodeHistory(
  readPage: (after: string | null) => Promise<Page<TaskEvent>>,
): Promise<NodeHistory> {
  const found: NodeHistory = { events: [], earlier: 0, progress: 0 }
  let after: string | null = null
  do {
    const page = await readPage(after)
    const told = page.items.filter((event) => event.kind !== 'progress')
    found.progress += page.items.length - told.length
    const all = [...found.events, ...told]
    found.events = all.slice(-MOST_SHOWN)
    found.earlier += all.length - found.events.length
    after = page.next
  } while (after !== null)
  return found
}

/** Say which events are left out. Return null if all are shown. */
export function leftOutText({ earlier, progress }: NodeHistory): string | null {
  const parts = [
    earlier > 0 && `${eventsText(earlier)} before these`,
    progress > 0 && `${eventsText(progress)} of progress`,
  ].filter(Boolean)
  return parts.length ? `Not shown: ${parts.join(', ')}.` : null
}

function eventsText(count: number): string {
  return count === 1 ? '1 event' : `${count.toLocaleString('en')} events`
}
