import { expect, test } from 'vitest'
import { printable } from './printable'

test('marks of the writing direction and control characters are escaped, lines stay', () => {
  expect(printable('a\u202eb\u2066c\u200f')).toBe('a\\u202eb\\u2066c\\u200f')
  expect(printable('\x1b[31mred')).toBe('\\u001b[31mred')
  expect(printable('one\n\ttwo ä שלום')).toBe('one\n\ttwo ä שלום')
})
