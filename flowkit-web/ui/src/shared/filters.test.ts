import { expect, test } from 'vitest'
import { faultsOf, isOneOf, isText, listOf } from './filters'

const of = (text: string) =>
  faultsOf(new URLSearchParams(text), { kind: isOneOf(['node', 'task']), name: isText, tags: isText }, { tags: listOf })

test('an address with known filters has no faults', () => {
  expect(of('')).toEqual([])
  expect(of('kind=node&name=a,b&tags=a,b&tags=c')).toEqual([])
})

test('unknown names, values that are none of the known, empty and repeated ones are faults', () => {
  expect(of('kinds=node&constructor=x')).toEqual([
    'kinds is not a filter here. Filters are kind, name, tags.',
    'constructor is not a filter here. Filters are kind, name, tags.',
  ])
  expect(of('kind=bogus&name=&tags=a,')).toEqual([
    'kind is "bogus", which is none of node, task.', 'name has no value.', 'tags has no value.',
  ])
  expect(of('name=a&name=b')).toEqual(['name has 2 values. It takes one.'])
})
