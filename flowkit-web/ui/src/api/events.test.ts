import { expect, test } from 'vitest'
import { MessageParser } from './events'

const STREAM = 'id: 7\ndata: {"seq":7}\n\n:\n\nevent: end\ndata: {}\n\n'
const MESSAGES = [
  { id: '7', event: 'message', data: '{"seq":7}' },
  { id: '', event: 'end', data: '{}' },
]

test('a stream is read wherever it is cut, and comments are skipped', () => {
  for (let cut = 0; cut <= STREAM.length; cut += 1) {
    const parser = new MessageParser()
    const found = [...parser.take(STREAM.slice(0, cut)), ...parser.take(STREAM.slice(cut))]
    expect(found).toEqual(MESSAGES)
  }
})

test('several lines of data are one message', () => {
  expect(new MessageParser().take('data: a\r\ndata: b\r\n\r\n')[0]?.data).toBe('a\nb')
})
