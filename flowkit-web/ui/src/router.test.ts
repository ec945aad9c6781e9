import { expect, test } from 'vitest'
import { match } from './router'

test('the values of an address are decoded', () => {
  expect(match('/tasks/{id}', '/tasks/a%2Fb')).toEqual({ id: 'a/b' })
  expect(match('/tasks/{id}', '/tasks/100%')).toEqual({ id: '100%' })
})

test('an address with other parts does not match', () => {
  expect(match('/tasks/{id}', '/tasks')).toBeNull()
  expect(match('/tasks/{id}', '/flows/a')).toBeNull()
  expect(match('/', '/')).toEqual({})
})
