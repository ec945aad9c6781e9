import { expect, test } from 'vitest'
import type { NodeView } from '../api/types'
import { refusalOf } from './refusal'

const of = (node: Partial<NodeView>) => refusalOf(node as NodeView)
const UNSENT = 'What is filled in here was not sent.'

test('an approval takes decisions while it waits', () => {
  expect(of({ status: 'deferred', waiting: 'approval' })).toBeNull()
  expect(of({ status: 'finished', result: { choice: 'release', by: 'ann' } }))
    .toBe(`Already decided by ann: release. ${UNSENT}`)
  expect(of({ status: 'skipped', resolved_by: 'bob' })).toBe(`Already settled by bob: skipped. ${UNSENT}`)
  expect(of({ status: 'cancelled' })).toBe(`It waits for no decision: it is cancelled. ${UNSENT}`)
})
