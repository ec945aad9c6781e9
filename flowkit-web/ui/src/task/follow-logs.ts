/** The log lines of a task or a node, as they come. */

import { useEffect, useState } from 'react'
import { ApiError, open, path } from '../api/client'
import { MessageParser } from '../api/events'
import { jsonText, parseJson } from '../api/json'
import type { LogLine, Problem } from '../api/types'

const FLUSH_MS = 100
const WAIT_MS = 2_000
/** Lines that a view keeps at most: the last ones. */
export const MOST_LINES = 50_000

export interface Logs {
  lines: LogLine[]
  state: 'reading' | 'ended' | 'lost'
  problem: Problem | null
}

/** Return what tells a line from all others. */
export function keyOf(line: LogLine): string {
  return [line.node_id, line.attempt, line.batch_uid, line.worker_id, line.number].join('\n')
}

/** Follow the lines until the task has ended. After a lost connection, they are read again. */
export function useLogs(taskId: string, nodeId: string | null): Logs {
  const [logs, setLogs] = useState<{ of: string; logs: Logs }>({ of: '', logs: NOTHING })
  const of = jsonText([taskId, nodeId])
  useEffect(() => {
    const controller = new AbortController()
    const place = nodeId === null
      ? path`/tasks/${taskId}/logs/follow`
      : path`/tasks/${taskId}/nodes/${nodeId}/logs/follow`
    void follow(place, (change) => {
      setLogs((known) => ({ of, logs: change(known.of === of ? known.logs : NOTHING) }))
    }, controller.signal)
    return () => controller.abort()
  }, [taskId, nodeId, of])
  return logs.of === of ? logs.logs : NOTHING
}

const NOTHING: Logs = { lines: [], state: 'reading', problem: null }

async function follow(
  place: string, change: (change: (logs: Logs) => Logs) => void, signal: AbortSignal,
): Promise<void> {
  const seen = new Set<string>()
  while (!signal.aborted) {
    try {
      const end = await readInto(place, seen, (lines) => change((logs) => ({
        ...logs, state: 'reading', problem: null, lines: [...logs.lines, ...lines].slice(-MOST_LINES),
      })), signal)
      if (end) {
        change((logs) => ({ ...logs, state: end.problem ? 'lost' : 'ended', problem: end.problem }))
        return
      }
    } catch (error) {
      if (signal.aborted) return
      if (error instanceof ApiError && error.problem.status >= 400 && error.problem.status < 500) {
        const { problem } = error
        change((logs) => ({ ...logs, state: 'lost', problem }))
        return
      }
    }
    change((logs) => ({ ...logs, state: 'lost' }))
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS))
  }
}

/** Read a stream. Return how it ended, or null if the connection was lost. */
async function readInto(
  place: string, seen: Set<string>, onLines: (lines: LogLine[]) => void, signal: AbortSignal,
): Promise<{ problem: Problem | null } | null> {
  const answer = await open(place, { signal })
  const reader = (answer.body ?? new ReadableStream<Uint8Array<ArrayBuffer>>())
    .pipeThrough(new TextDecoderStream()).getReader()
  const parser = new MessageParser()
  let batch: LogLine[] = []
  let timer: ReturnType<typeof setTimeout> | undefined
  const flush = (): void => {
    clearTimeout(timer)
    timer = undefined
    if (batch.length && !signal.aborted) onLines(batch)
    batch = []
  }
  try {
    onLines([])
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      for (const message of parser.take(part.value)) {
        if (message.event === 'end') return { problem: null }
        if (message.event === 'error') return { problem: parseJson(message.data) as Problem }
        const line = parseJson(message.data) as LogLine
        const key = keyOf(line)
        if (!seen.has(key)) batch.push(line)
        seen.add(key)
      }
      timer ??= setTimeout(flush, FLUSH_MS)
    }
    return null
  } finally {
    flush()
  }
}
