import { expect, test } from 'vitest'
import { criticalPath } from './critical-path'
import { readGraph } from './graph-model'
import { rowsOf, type Row } from './rows'

const GRAPH = readGraph({
  nodes: [
    { node_id: 'a', type: 'w' }, { node_id: 'b', type: 'w', depends_on: ['a'] },
    { node_id: 'c', type: 'w', depends_on: ['a'] }, { node_id: 'd', type: 'w', depends_on: ['b', 'c'] },
  ],
})

function row(node_id: string, from: number, to?: number): Row {
  const at = (sec: number): string => `2026-01-01T00:00:0${sec}Z`
  const row: Row = { node_id, type: 'w', status: 'running', started_at: at(from) }
  return to === undefined ? row : { ...row, status: 'finished', finished_at: at(to) }
}

test('the critical path goes through the parents that ended last', () => {
  const rows = rowsOf({ seq: 1, nodes: [row('a', 0, 1), row('b', 1, 2), row('c', 1, 5), row('d', 5, 6)] })
  expect(criticalPath(GRAPH, rows)).toEqual(['a', 'c', 'd'])
})

test('while the task runs, it leads to what still runs', () => {
  const rows = rowsOf({ seq: 1, nodes: [row('a', 0, 1), row('b', 1), row('c', 1, 5)] })
  expect(criticalPath(GRAPH, rows)).toEqual(['a', 'b'])
})

test('a task of which nothing has begun has none', () => {
  expect(criticalPath(GRAPH, rowsOf({ seq: 1, nodes: [] }))).toEqual([])
})
