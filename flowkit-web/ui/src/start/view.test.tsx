import { renderToStaticMarkup } from 'react-dom/server'
import { expect, test } from 'vitest'
import { Queues } from './view'

test('the number of nodes of a role has a plus if more of them wait than are counted', () => {
  const queue = { role: 'fast', waiting: 1_000, oldest_at: '2026-01-01T12:00:00Z' }
  const shown = (limited: boolean) => renderToStaticMarkup(<Queues stats={{ queues: [{ ...queue, limited }] }} />)
  expect(shown(true)).toContain('<span title="Only the nodes of the oldest tasks are counted.">1,000+</span>')
  expect(shown(false)).toContain('<td class="number">1,000</td>')
})
