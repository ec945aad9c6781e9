import { expect, test } from 'vitest'
import { doneText, refusalsOf, stillChosen } from './outcome'

const ITEMS = [
  { letter_id: 'a', retried: true, detail: '' },
  { letter_id: 'b', retried: false, detail: 'its task has finished' },
  { letter_id: 'c', retried: false, detail: 'its task has finished' },
  { letter_id: 'd', retried: false, detail: 'there is none' },
]

test('letters that were retried are not chosen any more', () => {
  expect([...stillChosen(['a', 'b', 'e'], ITEMS)]).toEqual(['b', 'e'])
})

test('each letter that was not retried is listed with its reason', () => {
  expect([...refusalsOf(ITEMS)]).toEqual([['its task has finished', ['b', 'c']], ['there is none', ['d']]])
})

test('what was done is told if it is the same for all letters', () => {
  const done = (detail: string, id = 'a') => ({ letter_id: id, retried: true, detail })
  expect(doneText([done('sent to x again'), done('sent to x again', 'b')])).toBe('2 retried: sent to x again')
  expect(doneText([done('node a runs again'), done('node b runs again', 'b')])).toBe('2 retried')
})
