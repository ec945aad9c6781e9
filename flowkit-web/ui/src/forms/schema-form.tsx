/** Form made from a JSON Schema. What has no field of its own is written as JSON. */

import { useId, useState } from 'react'
import { jsonText, parseJson, parseNumber } from '../api/json'
import { fieldsOf, withField, withPart, type Choice, type Field, type Schema } from './schema'
import { printable } from '../shared/printable'
import './forms.css'

interface FormProps {
  schema: Schema
  value: Schema
  onChange: (value: Schema) => void
}

/** Fields of an object. They belong into a form, which checks them before it is sent. */
export function SchemaForm({ schema, value, onChange }: FormProps) {
  const [asJson, setAsJson] = useState(false)
  const fields = fieldsOf(schema)
  if (fields === null) return <JsonField title="Values" required value={value} onChange={(next) => onChange((next ?? {}) as Schema)} />
  return (
    <div className="schema-form">
      {asJson
        ? <JsonField title="Values" required value={value} onChange={(next) => onChange((next ?? {}) as Schema)} />
        : (
          <Fields
            fields={fields}
            value={value}
            onChange={(name, part) => onChange(withField(value, name, part))}
          />
        )}
      <button type="button" className="plain" onClick={() => setAsJson(!asJson)}>
        {asJson ? 'Edit as a form' : 'Edit as JSON'}
      </button>
    </div>
  )
}

/** Fields of one object. They bind unless the object is optional and empty. */
function Fields({ fields, value, onChange, bind = true }: {
  fields: Field[]
  value: Schema
  onChange: (name: string, part: unknown) => void
  bind?: boolean
}) {
  return fields.map((field) => (
    <FieldInput
      key={field.name}
      field={field}
      required={bind && field.required}
      value={value[field.name]}
      onChange={(part) => onChange(field.name, part)}
    />
  ))
}

interface InputProps {
  field: Field
  /** Whether the form is not sent without it. */
  required: boolean
  value: unknown
  onChange: (value: unknown) => void
}

function FieldInput({ field, required, value, onChange }: InputProps) {
  const { shape } = field
  const help = useId()
  const described = field.description === null ? {} : { 'aria-describedby': help }
  const note = field.description !== null && <span id={help} className="help">{field.description}</span>
  switch (shape.kind) {
    case 'group':
      return (
        <fieldset>
          <legend><Title field={field} /></legend>
          {note}
          <Fields
            fields={shape.fields}
            value={(value ?? {}) as Schema}
            onChange={(name, part) => onChange(withPart(field, value as Schema | null | undefined, name, part))}
            bind={required || (value !== undefined && value !== null)}
          />
        </fieldset>
      )
    case 'check':
      return (
        <label className="check">
          <input type="checkbox" checked={value === true} onChange={(event) => onChange(event.target.checked)} {...described} />
          <span>{field.title}</span>{note}
        </label>
      )
    case 'choice':
      return (
        <label>
          <Title field={field} />
          <select
            value={placeOf(shape.choices, value)}
            required={required}
            onChange={({ target }) => onChange(target.value === NONE ? undefined : shape.choices[Number(target.value)]?.value)}
            {...described}
          >
            <option value={NONE}>—</option>
            {shape.choices.map((choice, place) => (
              <option key={place} value={place}>{choice.text}</option>
            ))}
          </select>
          {note}
        </label>
      )
    case 'number':
      return (
        <label>
          <Title field={field} />
          <input
            type="number"
            step={shape.whole ? 1 : 'any'}
            min={shape.least ?? undefined}
            max={shape.most ?? undefined}
            required={required}
            value={typeof value === 'bigint' ? String(value) : typeof value === 'number' ? value : ''}
            onChange={(event) => onChange(event.target.value === '' ? undefined : parseNumber(event.target.value))}
            {...described}
          />
          {note}
        </label>
      )
    case 'text': {
      const shared = {
        required,
        value: typeof value === 'string' ? value : '',
        onChange: (event: { target: { value: string } }) =>
          onChange(event.target.value || undefined),
        ...described,
      }
      return (
        <label>
          <Title field={field} />
          {shape.long ? <textarea rows={4} {...shared} /> : <input type={shape.input} {...shared} />}
          {note}
        </label>
      )
    }
    case 'lines':
      return (
        <label>
          <Title field={field} more="one a line" />
          <LinesInput required={required} value={value} onChange={onChange} {...described} />
          {note}
        </label>
      )
    case 'json':
      return <>
        <JsonField title={field.title} required={required} value={value} onChange={onChange} />
        {note}
      </>
  }
}

/** Texts of a list. Lines that are empty are no texts. */
function LinesInput({ value, onChange, ...rest }: {
  value: unknown
  onChange: (value: unknown) => void
  required: boolean
  'aria-describedby'?: string
}) {
  const [text, setText] = useState(() => Array.isArray(value) ? value.join('\n') : '')
  const change = (next: string): void => {
    setText(next)
    const lines = next.split('\n').filter((line) => line !== '')
    onChange(lines.length === 0 ? undefined : lines)
  }
  return <textarea rows={3} value={text} onChange={(event) => change(event.target.value)} {...rest} />
}

function Title({ field, more }: { field: Field; more?: string }) {
  const notes = [more, field.required ? null : 'optional'].filter(Boolean).join(', ')
  return <span>{field.title}{notes && <span className="quiet"> ({notes})</span>}</span>
}

/** Value of the option for no choice: the browser sends no form whose required field has it. */
const NONE = ''

function placeOf(choices: Choice[], value: unknown): string {
  const place = choices.findIndex((choice) => sameJson(choice.value, value))
  return place < 0 ? NONE : String(place)
}

function sameJson(one: unknown, other: unknown): boolean {
  return other !== undefined && jsonText(one) === jsonText(other)
}

/** Value written as JSON. The form is not sent while the text is not JSON. */
export function JsonField({ title, value, onChange, required = false, rows = 8 }: {
  title: string
  value: unknown
  onChange: (value: unknown) => void
  required?: boolean
  rows?: number
}) {
  const [text, setText] = useState(() => value === undefined ? '' : jsonText(value, 2))
  const [fault, setFault] = useState<string | null>(null)
  const id = useId()
  const change = (input: HTMLTextAreaElement): void => {
    setText(input.value)
    const problem = faultOf(input.value)
    setFault(problem)
    input.setCustomValidity(printable(problem ?? ''))
    if (problem === null) onChange(input.value.trim() === '' ? undefined : parseJson(input.value))
  }
  return (
    <label>
      <span>{title} <span className="quiet">(JSON)</span></span>
      <textarea
        className="code"
        rows={rows}
        spellCheck={false}
        required={required}
        value={text}
        aria-invalid={fault !== null}
        aria-describedby={fault === null ? undefined : id}
        onChange={(event) => change(event.target)}
      />
      {fault !== null && <span id={id} className="fault">{fault}</span>}
    </label>
  )
}

function faultOf(text: string): string | null {
  if (text.trim() === '') return null
  try {
    parseJson(text)
    return null
  } catch (error) {
    return `This is not JSON: ${error instanceof Error ? error.message : String(error)}`
  }
}
