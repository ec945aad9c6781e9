import { expect, test } from 'vitest'
import { differences } from './difference'

const node = (id: string, more: object = {}) => ({ node_id: id, type: 'x', ...more })

test('equal graphs have no difference, in any order of their keys', () => {
  expect(differences(
    { nodes: [{ node_id: 'a', type: 'x' }], v: 1 }, { v: 1, nodes: [{ type: 'x', node_id: 'a' }] },
  )).toEqual([])
})

test('nodes and fields are added, removed and changed', () => {
  const found = differences(
    { nodes: [node('a'), node('b')], priority: 1 },
    { nodes: [node('a', { optional: true })], finally: [node('c')], priority: 2 },
  )
  expect(found.map(({ name, kind }) => `${name} ${kind}`)).toEqual(
    ['node a changed', 'node c added', 'priority changed', 'node b removed'],
  )
})
