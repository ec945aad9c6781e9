import { expect, test } from 'vitest'
import { jsonText } from '../api/json'
import { fieldsOf, initialValue, withField, withPart, type Field } from './schema'

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

test('a property has a field whatever its name and its schema are, unless nothing matches it', () => {
  const fields = fieldsOf({
    properties: { '': { type: 'string' }, any: true, never: false, pick: { oneOf: [{ type: 'string' }, {}] } },
    required: ['more'],
  }) ?? []
  expect(fields.map(({ title, shape, required }) => [title, shape.kind, required])).toEqual([
    ['property ""', 'text', false], ['any', 'json', false], ['pick', 'json', false], ['more', 'json', true],
  ])
})

test('the values of an enumeration have different texts', () => {
  const texts = (values: unknown[]) => {
    const [field] = fieldsOf({ properties: { a: { enum: values } } }) ?? []
    return field?.shape.kind === 'choice' ? field.shape.choices.map((one) => one.text) : null
  }
  expect(texts([1, '1', 'a'])).toEqual(['1', '"1"', 'a'])
  expect(texts(['', ' a', 'null', null, true, 'true'])).toEqual(['""', '" a"', '"null"', 'null', 'true', '"true"'])
  expect(texts(['a', 'a'])).toEqual(['a'])
})

test('an optional field that may be null has the field of its other type', () => {
  const kindOf = (required: string[]) =>
    fieldsOf({ required, properties: { a: { anyOf: [{ type: 'integer' }, { type: 'null' }], default: null } } })?.[0]
      ?.shape.kind
  expect(kindOf([])).toBe('number')
  expect(kindOf(['a'])).toBe('json')
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

const DEEP = {
  type: 'object',
  required: ['q', 'sure', 'at'],
  properties: {
    q: { type: 'string' },
    sure: { type: 'boolean' },
    loud: { type: 'boolean', default: true },
    at: { type: 'object', properties: { day: { type: 'string' } } },
  },
}
const deep = (required: string[]): Field[] =>
  fieldsOf({ type: 'object', required, properties: { deep: DEEP } }) ?? []

test('an optional object starts left out if its defaults do not suffice', () => {
  expect(initialValue(deep([]))).toEqual({})
  expect(initialValue(deep(['deep']))).toEqual({ deep: { sure: false, loud: true, at: {} } })
})

test('an optional object has its defaults once a field is filled, and is left out once all are empty', () => {
  const [group] = deep([])
  if (!group) throw new Error('no field')
  const filled = withPart(group, undefined, 'q', 'why')
  expect(filled).toEqual({ q: 'why', sure: false, loud: true, at: {} })
  const plain = withField(filled ?? {}, 'loud', undefined)
  expect(withPart(group, plain, 'q', undefined)).toBeUndefined()
  expect(withPart(group, plain, 'at', { day: '2026-01-01' })).toMatchObject({ at: { day: '2026-01-01' } })
  expect(withPart(group, { sure: true, at: {} }, 'sure', false)).toBeUndefined()
})

test('an answer that differs from its default is kept, and a required object is never left out', () => {
  const [group] = deep([])
  const [needed] = deep(['deep'])
  if (!group || !needed) throw new Error('no field')
  expect(withPart(group, { sure: false, loud: true, at: {} }, 'loud', false)).toMatchObject({ loud: false })
  expect(withPart(group, { q: 'why', at: null }, 'q', undefined)).toBeUndefined()
  expect(withPart(needed, { q: 'why' }, 'q', undefined)).toEqual({})
})
