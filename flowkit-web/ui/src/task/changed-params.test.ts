import { expect, test } from 'vitest'
import { parseJson } from '../api/json'
import { changedParams } from './changed-params'

const BEFORE = parseJson('{"id": 9007199254740993, "rate": 1.0, "to": {"city": "Rotterdam"}}') as
  Record<string, unknown>

test('params that were not edited are left to the server', () => {
  expect(changedParams(BEFORE, BEFORE)).toEqual({})
  expect(changedParams(BEFORE, { ...BEFORE, to: { city: 'Rotterdam' } })).toEqual({})
})

test('edited and new params are sent, also if a number cannot tell them apart', () => {
  expect(changedParams(BEFORE, { ...BEFORE, id: 9007199254740992n, day: 'today' })).toEqual(
    { id: 9007199254740992n, day: 'today' })
})

test('a param that was left out is an error, because the server would keep it', () => {
  expect(() => changedParams(BEFORE, { id: 1, rate: 1 })).toThrow('The param to is missing.')
})
