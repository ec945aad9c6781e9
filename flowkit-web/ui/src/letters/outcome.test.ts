import { expect, test } from 'vitest'
import { refusalsOf, stillChosen } from './outcome'

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
