import { expect, test } from 'vitest'
import { jsonText, parseJson } from './json'

const LARGEST = 2n ** 1024n - 1n

test.each([
  '9007199254740993', '-9007199254740993', '12345678901234567890123', `${LARGEST}`, `-${LARGEST}`,
  '[9007199254740993,"9007199254740993",{"9007199254740993":[-9007199254740993]}]',
  String.raw`{"a \" 9007199254740993 \\":90071992547409931,"b":"\\","c":90071992547409933}`,
  '{"__proto__":9007199254740993}', '9007199254740991', '0.1', 'null', '""',
])('%s is written as it was read', (text) => {
  expect(jsonText(parseJson(text))).toBe(text)
})

test('integers that a number can hold, and numbers with a fraction or an exponent, are numbers', () => {
  const text = '[9007199254740991, 1, -1, 1.5, 1e30, 0.1234567890123456, 9007199254740993]'
  expect(parseJson(text)).toEqual(
    [9007199254740991, 1, -1, 1.5, 1e30, 0.1234567890123456, 9007199254740993n])
})

test('what is not JSON is refused', () => {
  for (const text of ['', '9007199254740993n', '09007199254740993', '{"a":9007199254740993']) {
    expect(() => parseJson(text)).toThrow(SyntaxError)
  }
})

test('values are indented on request, and undefined is empty', () => {
  expect(jsonText({ a: [9007199254740993n] }, 2)).toBe('{\n  "a": [\n    9007199254740993\n  ]\n}')
  expect(jsonText(undefined)).toBe('')
})
