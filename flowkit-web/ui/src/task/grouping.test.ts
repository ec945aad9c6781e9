import { expect, test } from 'vitest'
import { readGraph, type Json } from './graph-model'
import { MOST_BOXES, grouped } from './grouping'

function graphOf(nodes: Json[]) {
  return readGraph({ nodes })
}

function node(id: string, type: string, ...after: string[]): Json {
  return { node_id: id, type, depends_on: after }
}

function parallelChains(width: number, length: number): Json[] {
  const rows = Array.from({ length }, (_, level) =>
    Array.from({ length: width }, (_, place) =>
      node(`n${level}_${place}`, 'work', ...(level ? [`n${level - 1}_${place}`] : ['split']))))
  return [node('split', 'cut'), ...rows.flat()]
}

test('each node of a small graph has a box of its own', () => {
  const { boxes, edges } = grouped(graphOf(parallelChains(5, 2)))
  expect(boxes).toHaveLength(11)
  expect(edges).toHaveLength(10)
})

test('nodes with the same place in a large graph share a box', () => {
  const { boxes, edges } = grouped(graphOf([
    ...parallelChains(50, 3),
    node('join', 'sum', ...Array.from({ length: 50 }, (_, place) => `n2_${place}`)),
  ]))
  expect(boxes.map((box) => [box.id, box.nodes.length])).toEqual([
    ['split', 1], ['n0_0…', 50], ['n1_0…', 50], ['n2_0…', 50], ['join', 1],
  ])
  expect(edges.map((edge) => [edge.from, edge.to])).toEqual([
    ['split', 'n0_0…'], ['n0_0…', 'n1_0…'], ['n1_0…', 'n2_0…'], ['n2_0…', 'join'],
  ])
})

test('the nodes of an opened group have boxes of their own', () => {
  const { boxes, edges } = grouped(graphOf(parallelChains(50, 2)), new Set(['n0_0…']))
  expect(boxes).toHaveLength(1 + 50 + 1)
  expect(edges).toHaveLength(50 + 50)
})

test('a node that leads elsewhere is not in the group', () => {
  const { boxes } = grouped(graphOf([...parallelChains(100, 1), node('extra', 'mail', 'n0_7')]))
  expect(boxes.map((box) => box.nodes.length)).toEqual([1, 99, 1, 1])
})

test('a graph of thousands of nodes has few boxes in any shape', () => {
  const chain = Array.from({ length: 2_000 }, (_, place) =>
    node(`n${place}`, `role${place % 7}`, ...(place ? [`n${place - 1}`] : [])))
  const wide = Array.from({ length: 2_000 }, (_, place) => node(`n${place}`, `role${place}`))
  const mixed = Array.from({ length: 2_000 }, (_, place) =>
    node(`n${place}`, 'work', ...(place ? [`n${Math.floor((place * 7919) % place)}`] : [])))
  for (const nodes of [chain, wide, mixed]) {
    const { boxes } = grouped(graphOf(nodes))
    expect(boxes.length).toBeLessThanOrEqual(MOST_BOXES)
    expect(boxes.reduce((sum, box) => sum + box.nodes.length, 0)).toBe(2_000)
  }
})
