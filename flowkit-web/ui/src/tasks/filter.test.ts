import { expect, test } from 'vitest'
import { bodyOf, filterFaults, filterOf, isEverything } from './filter'

const of = (text: string) => filterOf(new URLSearchParams(text))

test('an address without a filter matches everything', () => {
  expect(isEverything(of(''))).toBe(true)
  expect(filterFaults(new URLSearchParams())).toEqual([])
})

test('a filter is the body of a change of all tasks that match', () => {
  expect(bodyOf(of('status=failed,queued&pipeline=order&labels=a=b=c&retrying=true&root=false'))).toEqual({
    status: ['failed', 'queued'], pipeline: 'order', labels: { a: 'b=c' }, retrying: true, root: false,
  })
  expect(bodyOf(of('labels=a=1,2&labels=b='))).toEqual({ labels: { a: '1,2', b: '' } })
  expect(bodyOf(of('created_after=2026-01-01T00:00:00Z')))
    .toEqual({ created_after: '2026-01-01T00:00:00.000Z' })
})

test.each([
  ['status=failed&flow=bulk', /^flow is not a filter here\. Filters are status, pipeline, /],
  ['status=failed,bogus', /^status is "bogus", which is none of queued, running, /],
  ['labels=nonsense', 'labels is "nonsense", which is not of the form key=value.'],
  ['labels=a=1&labels=a=2', 'labels has more than one value of "a".'],
  ['created_after=yesterday', 'created_after is "yesterday", which is no time such as 2026-01-31T12:00.'],
  ['created_before=run 5', /^created_before is "run 5", which is no time/],
  ['created_before=2026-13-01T00:00', /^created_before is "2026-13-01T00:00", which is no time/],
  ['waiting=bogus', /^waiting is "bogus", which is none of worker, /],
  ['root=yes', 'root is "yes", which is none of true, false.'],
  ['pipeline=a&pipeline=b', 'pipeline has 2 values. It takes one.'],
])('the filter %s is refused', (text, fault) => {
  expect(filterFaults(new URLSearchParams(text))).toEqual([expect.stringMatching(fault)])
})
