/** JSON whose integers stay exact: those that a number cannot hold are a `bigint`. */

/** Prefix of an integer that travels through `JSON` as a string. No text of a user has it. */
const MARK = `${crypto.getRandomValues(new Uint32Array(4)).join('-')}:`
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, 'g')
const STRING_OR_NUMBER = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g
/** Integers of fewer digits are safe. */
const LONG = /\d{16}/

/** Read JSON. Throw `SyntaxError` if the text is not JSON. */
export function parseJson(text: string): unknown {
  const value: unknown = JSON.parse(text)
  if (!LONG.test(text)) return value
  const marked = text.replace(STRING_OR_NUMBER, (token) =>
    token.startsWith('"') || typeof parseNumber(token) === 'number' ? token : `"${MARK}${token}"`)
  return JSON.parse(marked, (_, part: unknown) =>
    typeof part === 'string' && part.startsWith(MARK) ? BigInt(part.slice(MARK.length)) : part)
}

/** Write a value as JSON. `undefined` is an empty text. */
export function jsonText(value: unknown, indent = 0): string {
  const text = JSON.stringify(value, (_, part: unknown) =>
    typeof part === 'bigint' ? `${MARK}${part}` : part, indent) as string | undefined
  return (text ?? '').replace(MARKED, '$1')
}

/** Read a number. */
export function parseNumber(text: string): number | bigint {
  const number = Number(text)
  return Number.isSafeInteger(number) || !/^-?\d+$/.test(text) ? number : BigInt(text)
}
