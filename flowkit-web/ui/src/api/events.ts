/** The events of a task, as server-sent events that are read with fetch: they need a header. */

import { useEffect, useEffectEvent, useState } from 'react'
import { ApiError, open, path } from './client'
import { parseJson } from './json'
import type { Problem, TaskEvent } from './types'

export interface Message {
  id: string
  event: string
  data: string
}

const FIRST_WAIT_MS = 500
const LONGEST_WAIT_MS = 10_000
const BATCH_MS = 50

/** Parser of a stream of server-sent events, which may be cut at any place. */
export class MessageParser {
  #rest = ''

  /** Take more of the stream, and return the messages that are complete. */
  take(text: string): Message[] {
    const blocks = (this.#rest + text).replaceAll('\r\n', '\n').split('\n\n')
    this.#rest = blocks.pop() ?? ''
    return blocks.map(parsed).filter((message) => message.data !== '')
  }
}

function parsed(block: string): Message {
  const message: Message = { id: '', event: 'message', data: '' }
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':')
    const field = line.slice(0, colon)
    const value = line.slice(colon + 1).replace(/^ /, '')
    if (field === 'id') message.id = value
    if (field === 'event') message.event = value
    if (field === 'data') message.data += (message.data && '\n') + value
  }
  return message
}

export type StreamState = 'connecting' | 'live' | 'lost' | 'ended' | 'refused'

interface Follower {
  onEvents: (events: TaskEvent[]) => void
  onState: (state: StreamState, problem?: Problem) => void
}

/** Follow a task after an event until it has ended. Connect again where a connection is lost. */
export async function followTask(
  taskId: string, after: number, follower: Follower, signal: AbortSignal,
): Promise<void> {
  let last = after
  let waitMs = FIRST_WAIT_MS
  while (!signal.aborted) {
    try {
      const headers: Record<string, string> = last ? { 'Last-Event-ID': String(last) } : {}
      const answer = await open(path`/tasks/${taskId}/events`, { headers, signal })
      follower.onState('live')
      const ended = await readInto(answer, follower, (seq) => {
        last = seq
        waitMs = FIRST_WAIT_MS
      })
      if (ended) return
    } catch (error) {
      if (signal.aborted) return
      if (error instanceof ApiError && [401, 403, 404].includes(error.problem.status)) {
        follower.onState('refused', error.problem)
        return
      }
    }
    follower.onState('lost')
    await new Promise((resolve) => setTimeout(resolve, waitMs))
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS)
  }
}

/** Read a stream in batches. Return whether the task has ended or the stream cannot go on. */
async function readInto(
  answer: Response, follower: Follower, onSeq: (seq: number) => void,
): Promise<boolean> {
  const reader = (answer.body ?? new ReadableStream<Uint8Array<ArrayBuffer>>())
    .pipeThrough(new TextDecoderStream()).getReader()
  const parser = new MessageParser()
  let batch: TaskEvent[] = []
  let timer: ReturnType<typeof setTimeout> | undefined
  const flush = (): void => {
    clearTimeout(timer)
    timer = undefined
    if (batch.length) follower.onEvents(batch)
    batch = []
  }
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      for (const message of parser.take(part.value)) {
        if (message.event === 'message') {
          const event = parseJson(message.data) as TaskEvent
          batch.push(event)
          onSeq(event.seq)
        } else {
          flush()
          if (message.event === 'end') follower.onState('ended')
          else follower.onState('refused', parseJson(message.data) as Problem)
          return true
        }
      }
      timer ??= setTimeout(flush, BATCH_MS)
    }
    return false
  } finally {
    flush()
  }
}

/** Follow the events of a task while a component is shown. `null` follows nothing. */
export function useTaskEvents(
  taskId: string | null, after: number, onEvents: (events: TaskEvent[]) => void,
): { state: StreamState; problem: Problem | undefined } {
  const [stream, setStream] = useState<{ state: StreamState; problem: Problem | undefined }>(
    { state: 'connecting', problem: undefined },
  )
  const receive = useEffectEvent(onEvents)
  useEffect(() => {
    if (taskId === null) return
    const controller = new AbortController()
    const onState = (state: StreamState, problem?: Problem): void => {
      if (!controller.signal.aborted) setStream({ state, problem })
    }
    void followTask(taskId, after, { onEvents: (batch) => receive(batch), onState },
      controller.signal)
    return () => controller.abort()
  }, [taskId, after])
  return stream
}
