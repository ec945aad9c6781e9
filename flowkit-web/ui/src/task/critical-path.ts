/** The critical path: the nodes without which the task would have ended earlier. */

import { neighbours } from './grouping'
import type { TaskGraph } from './graph-model'
import type { Rows } from './rows'

/**
 * Return the ids of the nodes on it, the first one first: from the node that ended last back to the
 * parent that ended last, and so on. While the task runs, it leads to the node that began last.
 */
export function criticalPath(graph: TaskGraph, rows: Rows): string[] {
  const parents = neighbours(graph.edges, 'to')
  const main = graph.nodes.filter((node) => node.phase === 'main').map((node) => node.id)
  const path: string[] = []
  let here = latest(main, rows)
  while (here !== undefined && path.length <= graph.nodes.length) {
    path.push(here)
    here = latest((parents.get(here) ?? []).map((edge) => edge.from), rows)
  }
  return path.reverse()
}

function latest(ids: string[], rows: Rows): string | undefined {
  let found: string | undefined
  let best = ''
  for (const id of ids) {
    const row = rows.get(id)
    if (!row?.started_at || row.status === 'skipped') continue
    const at = row.finished_at ?? `~${row.started_at}` // what still runs comes after what has ended
    if (at > best) [found, best] = [id, at]
  }
  return found
}
