import { expect, test } from 'vitest'
import { bodyOf, filterOf, isEverything } from './filter'

const of = (text: string) => filterOf(new URLSearchParams(text))

test('an address without a filter matches everything', () => {
  expect(isEverything(of(''))).toBe(true)
  expect(isEverything(of('status=odd&label=x&after=never'))).toBe(true)
})

test('a filter is the body of a change of all tasks that match', () => {
  expect(bodyOf(of('status=failed,queued&flow=order&label=a=b=c&retrying=yes'))).toEqual({
    status: ['failed', 'queued'], pipeline: 'order', labels: { a: 'b=c' }, retrying: true,
  })
  expect(bodyOf(of('after=2026-01-01T00:00:00Z')))
    .toEqual({ created_after: '2026-01-01T00:00:00.000Z' })
})
