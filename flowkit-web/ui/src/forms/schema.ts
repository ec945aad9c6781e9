/** JSON Schemas of forms: which field each part of a value gets. */

import { jsonText } from '../api/json'

export type Schema = Record<string, unknown>

/** Limit of a number as an attribute of an input. */
type Limit = number | string | null

export type FieldKind =
  | { kind: 'text'; input: 'text' | 'date' | 'email' | 'url'; long: boolean }
  | { kind: 'number'; whole: boolean; least: Limit; most: Limit }
  | { kind: 'check' }
  | { kind: 'choice'; choices: Choice[] }
  | { kind: 'lines' }
  | { kind: 'group'; fields: Field[] }
  | { kind: 'json' }

/** Value of an enumeration, and its text, which no other value has. */
export interface Choice {
  value: unknown
  text: string
}

export interface Field {
  name: string
  title: string
  description: string | null
  required: boolean
  initial: unknown
  shape: FieldKind
}

const MOST_LEVELS = 4
const INPUTS = { date: 'date', email: 'email', uri: 'url' } as const

/** Return the fields of an object's schema, or null if only JSON can be its form. */
export function fieldsOf(schema: Schema, root: Schema = schema, level = 0): Field[] | null {
  const { properties, required } = resolved(schema, root)
  if (!isObject(properties) || level > MOST_LEVELS) return null
  const needed: unknown[] = Array.isArray(required) ? required : []
  // A required property may have no schema of its own. `true` is a schema too; `false` matches nothing.
  const others = needed.filter((name): name is string => typeof name === 'string' && !(name in properties))
  return [...Object.entries(properties), ...others.map((name) => [name, true] as const)]
    .filter(([, part]) => part !== false)
    .map(([name, part]) => field(
      name, isObject(part) ? resolved(part, root) : {}, root, level, needed.includes(name)))
}

function field(name: string, schema: Schema, root: Schema, level: number, required: boolean): Field {
  const title = typeof schema['title'] === 'string' ? schema['title'].trim() : ''
  return {
    name,
    title: title || name.trim() || `property ${jsonText(name)}`,
    description: typeof schema['description'] === 'string' ? schema['description'] : null,
    required,
    initial: 'default' in schema ? schema['default'] : undefined,
    shape: shapeOf(required ? schema : withoutNull(schema, root), root, level),
  }
}

/** Return the schema of a value that may also be null: an optional field that is empty is left out. */
function withoutNull(schema: Schema, root: Schema): Schema {
  const { anyOf } = schema
  if (!Array.isArray(anyOf)) return schema
  const others: unknown[] = anyOf.filter((one) => !isObject(one) || one['type'] !== 'null')
  return others.length === 1 && anyOf.length === 2 && isObject(others[0]) ? resolved(others[0], root) : schema
}

/** Return the values of an enumeration as they are shown: as JSON where a text could be another value. */
function choicesOf(values: unknown[]): Choice[] {
  const different = new Map(values.map((value) => [jsonText(value), value]))
  return [...different].map(([json, value]) => ({
    value,
    text: typeof value === 'string' && value !== '' && value.trim() === value && !different.has(value)
      ? value : json,
  }))
}

function shapeOf(schema: Schema, root: Schema, level: number): FieldKind {
  if (Array.isArray(schema['enum'])) return { kind: 'choice', choices: choicesOf(schema['enum']) }
  if ('const' in schema) return { kind: 'choice', choices: choicesOf([schema['const']]) }
  switch (schema['type']) {
    case 'boolean':
      return { kind: 'check' }
    case 'integer':
    case 'number':
      return {
        kind: 'number',
        whole: schema['type'] === 'integer',
        least: limitOf(schema['minimum']),
        most: limitOf(schema['maximum']),
      }
    case 'string':
      return {
        kind: 'text',
        input: INPUTS[schema['format'] as keyof typeof INPUTS] ?? 'text',
        long: Number(schema['maxLength'] ?? 0) > 200,
      }
    case 'array':
      return isObject(schema['items']) && resolved(schema['items'], root)['type'] === 'string'
        ? { kind: 'lines' } : { kind: 'json' }
    case 'object': {
      const fields = fieldsOf(schema, root, level + 1)
      return fields === null ? { kind: 'json' } : { kind: 'group', fields }
    }
    default:
      return { kind: 'json' }
  }
}

/** Follow a reference within the document. */
function resolved(schema: Schema, root: Schema): Schema {
  let here: unknown = schema
  for (let step = 0; step < 10 && isObject(here) && typeof here['$ref'] === 'string'; step += 1) {
    const names = here['$ref'].replace(/^#\/?/, '').split('/').filter(Boolean)
    here = names.reduce<unknown>((part, name) =>
      isObject(part) ? part[name.replaceAll('~1', '/').replaceAll('~0', '~')] : undefined, root)
  }
  return isObject(here) ? here : {}
}

function isObject(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function limitOf(value: unknown): Limit {
  return typeof value === 'bigint' ? String(value) : typeof value === 'number' ? value : null
}

/** Return the value of an untouched form: the defaults of the schema. */
export function initialValue(fields: readonly Field[]): Schema {
  const value: Schema = {}
  for (const one of fields) {
    const initial = one.initial ?? impliedValue(one)
    if (initial !== undefined) value[one.name] = initial
  }
  return value
}

function impliedValue({ shape, required }: Field): unknown {
  if (shape.kind === 'check') return required ? false : undefined
  if (shape.kind !== 'group') return undefined
  const value = initialValue(shape.fields)
  return required || isAnyFilled(shape.fields, value) && isComplete(shape.fields, value) ? value : undefined
}

function isComplete(fields: readonly Field[], value: Schema): boolean {
  return fields.every(({ name, shape, required }) => {
    const part = value[name]
    if (part === undefined || part === null) return !required
    return shape.kind !== 'group' || isComplete(shape.fields, part as Schema)
  })
}

/** Return whether an object has more than boxes that are not checked, as they are at first. */
function isAnyFilled(fields: readonly Field[], value: Schema): boolean {
  return Object.entries(value).some(([name, part]) => {
    const field = fields.find((one) => one.name === name)
    if (field?.shape.kind === 'group') return isAnyFilled(field.shape.fields, (part ?? {}) as Schema)
    return field?.shape.kind !== 'check' || part !== false || field.initial === true
  })
}

/** Return an object of a form with one field changed: `undefined` if it is optional and empty. */
export function withPart(
  group: Field, value: Schema | null | undefined, name: string, part: unknown,
): Schema | undefined {
  const fields = group.shape.kind === 'group' ? group.shape.fields : []
  const next = withField(value ?? initialValue(fields), name, part)
  return group.required || isAnyFilled(fields, next) ? next : undefined
}

/** Return an object with one field changed; `undefined` leaves it out. */
export function withField(value: Schema, name: string, part: unknown): Schema {
  const next = { ...value, [name]: part }
  if (part === undefined) Reflect.deleteProperty(next, name)
  return next
}
