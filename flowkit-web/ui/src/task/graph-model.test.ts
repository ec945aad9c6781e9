import { expect, test } from 'vitest'
import { readGraph } from './graph-model'

test('edges are read in all forms in which they may be written', () => {
  const graph = readGraph({
    nodes: [
      { node_id: 'a', type: 'work', routing: { on_failure: ['e'] } },
      { node_id: 'b', type: 'work', depends_on: ['a'] },
      { node_id: 'c', type: 'work', io: { start_when: 'first_batch' }, depends_on: ['b'] },
      { node_id: 'd', type: 'work', map: { over: { artifacts: 'c' } }, depends_on: ['c'] },
      { node_id: 'e', type: 'work' },
    ],
    edges: [['a', 'e'], { from: 'a', to: 'd', mode: 'async' }],
    edges_ex: [{ from: 'b', to: 'd', trigger: 'on_done' }],
  })
  expect(graph.edges.map(({ from, to, route, streams }) => `${from}${to} ${route} ${streams}`)).toEqual([
    'ab always false', 'bc always true', 'cd always true', 'ae failure false', 'ad always true',
    'bd always false',
  ])
})

test('nodes of later phases follow the others', () => {
  const graph = readGraph({
    nodes: [{ node_id: 'a', type: 'work', undo: { type: 'coordinator_fn', io: { fn: 'back' } } }],
    finally: [{ node_id: 'f', type: 'work' }],
  })
  expect(graph.nodes.map(({ id, phase, what }) => [id, phase, what])).toEqual([
    ['a', 'main', null], ['f', 'finally', null], ['a~undo', 'undo', 'back'],
  ])
  expect(graph.edges).toEqual([{ from: 'a', to: 'a~undo', route: 'always', streams: false }])
})

test('a node says how many shards it has', () => {
  const { nodes } = readGraph({
    nodes: [
      { node_id: 'a', type: 'work', io: { shards: 4 }, undo: { type: 'work' } },
      { node_id: 'b', type: 'work' },
    ],
  })
  expect(nodes.map((node) => node.shards)).toEqual([4, null, null])
})

test('a node says what it runs and what its map goes over', () => {
  const { nodes } = readGraph({
    nodes: [
      { node_id: 'a', type: 'subflow', io: { flow: 'etl' }, map: { over: [1, 2, 3] } },
      { node_id: 'b', type: 'wait_signal', io: { signal: 'go' }, when: 'vars.x' },
    ],
  })
  expect(nodes.map((node) => [node.what, node.map, node.condition, node.runsTasks])).toEqual([
    ['subflow etl', '3 items', null, true], ['signal go', null, 'vars.x', false],
  ])
})
