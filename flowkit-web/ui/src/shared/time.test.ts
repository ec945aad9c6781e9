import { expect, test } from 'vitest'
import { distanceText, durationText, timeText } from './time'

test.each([
  [0, '0 ms'],
  [999, '999 ms'],
  [1_500, '1.5 s'],
  [59_000, '59 s'],
  [60_000, '1 min'],
  [3_725_000, '1 h 2 min'],
  [90_061_000, '1 d 1 h'],
])('%i ms is %s', (ms, text) => {
  expect(durationText(ms)).toBe(text)
})

test('a distance names its direction', () => {
  const noon = new Date('2026-01-01T12:00:00Z')
  expect(distanceText(noon, noon.getTime() + 125_000)).toBe('2 min ago')
  expect(distanceText(noon, noon.getTime() - 7_200_000)).toBe('in 2 h')
  expect(distanceText(noon, noon.getTime() + 10)).toBe('now')
})

test('a time is written in UTC', () => {
  expect(timeText(new Date('2026-01-31T13:05:09Z'), 'utc')).toBe('2026-01-31 13:05:09')
})
