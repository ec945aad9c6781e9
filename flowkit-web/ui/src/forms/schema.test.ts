import { expect, test } from 'vitest'
import { jsonText } from '../api/json'
import { fieldsOf, initialValue, withField } from './schema'

const SCHEMA = {
  type: 'object',
  required: ['discount', 'sure'],
  properties: {
    discount: { type: 'number', title: 'Discount', minimum: 0, maximum: 50 },
    note: { type: 'string', description: 'For the record' },
    day: { type: 'string', format: 'date' },
    channel: { enum: ['web', 'print', null], default: 'web' },
    sure: { type: 'boolean' },
    tags: { type: 'array', items: { type: 'string' } },
    rows: { type: 'array', items: { type: 'object' } },
    to: { $ref: '#/$defs/address' },
  },
  $defs: { address: { type: 'object', properties: { city: { type: 'string', default: 'Rotterdam' } } } },
}

test('each property gets the field of its type', () => {
  const fields = fieldsOf(SCHEMA) ?? []
  expect(fields.map((field) => [field.name, field.shape.kind, field.required])).toEqual([
    ['discount', 'number', true], ['note', 'text', false], ['day', 'text', false],
    ['channel', 'choice', false], ['sure', 'check', true], ['tags', 'lines', false],
    ['rows', 'json', false], ['to', 'group', false],
  ])
  expect(fields[0]?.title).toBe('Discount')
  expect(fields[1]?.description).toBe('For the record')
})

test('an untouched form has the defaults, and an answer to each question that must have one', () => {
  expect(initialValue(fieldsOf(SCHEMA) ?? [])).toEqual({
    channel: 'web', sure: false, to: { city: 'Rotterdam' },
  })
})

test('a schema without properties, or one that contains itself, is written as JSON', () => {
  expect(fieldsOf({ type: 'object' })).toBeNull()
  const tree = { type: 'object', properties: { child: { $ref: '#' } } }
  expect(jsonText(fieldsOf(tree))).toContain('"kind":"json"')
})

test('a field that is emptied is left out', () => {
  expect(withField({ a: 1, b: 2 }, 'a', undefined)).toEqual({ b: 2 })
  expect(withField({ a: 1 }, 'b', null)).toEqual({ a: 1, b: null })
})
