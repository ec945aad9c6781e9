/** What the handlers of a task have logged, as it comes. */

import { useVirtualizer } from '@tanstack/react-virtual'
import { useDeferredValue, useEffect, useMemo, useRef, useState } from 'react'
import { jsonText } from '../api/json'
import type { LogLine } from '../api/types'
import { useSearch } from '../router'
import { Empty, ProblemBox } from '../shared/problem'
import { timeText, useZone } from '../shared/time'
import { keyOf, useLogs } from './follow-logs'

const LEVELS = ['debug', 'info', 'warning', 'error', 'critical']
const LINE_PX = 22

export function LogsView({ taskId }: { taskId: string }) {
  const [search, changeSearch] = useSearch()
  const node = search.get('node')
  const logs = useLogs(taskId, node)
  const level = search.get('level') ?? 'debug'
  const text = search.get('text') ?? ''
  const wanted = useDeferredValue(text.toLowerCase())
  const lines = useMemo(() => {
    const least = LEVELS.indexOf(level)
    return logs.lines.filter((line) => LEVELS.indexOf(line.level) >= least &&
      (wanted === '' || `${line.node_id} ${line.text}`.toLowerCase().includes(wanted)))
  }, [logs.lines, level, wanted])
  return (
    <section className="logs" aria-label="Logs">
      <div className="filters">
        <label>Text
          <input type="search" value={text} onChange={(event) => changeSearch({ text: event.target.value })} />
        </label>
        <label>Level at least
          <select value={level} onChange={(event) => changeSearch({ level: event.target.value })}>
            {LEVELS.map((one) => <option key={one}>{one}</option>)}
          </select>
        </label>
        {node !== null && (
          <button type="button" onClick={() => changeSearch({ node: null })}>Lines of all nodes</button>
        )}
        <span className="quiet" role="status">
          {lines.length.toLocaleString('en')} lines{node !== null && ` of ${node}`}
          {logs.state === 'reading' ? ', follows new ones' : logs.state === 'lost' ? ', connection lost' : ''}
        </span>
      </div>
      {logs.problem && <ProblemBox error={new Error(logs.problem.detail)} />}
      {lines.length === 0
        ? <Empty>{logs.lines.length ? 'No line matches.' : 'Nothing is logged yet.'}</Empty>
        : <Lines lines={lines} withNode={node === null} />}
    </section>
  )
}

function Lines({ lines, withNode }: { lines: LogLine[]; withNode: boolean }) {
  const frame = useRef<HTMLDivElement>(null)
  const [follows, setFollows] = useState(true)
  const virtual = useVirtualizer({
    count: lines.length,
    getScrollElement: () => frame.current,
    estimateSize: () => LINE_PX,
    getItemKey: (index) => (lines[index] ? keyOf(lines[index]) : index),
    overscan: 20,
  })
  useEffect(() => {
    if (follows) virtual.scrollToIndex(lines.length - 1, { align: 'end' })
  }, [lines.length, follows, virtual])
  const onScroll = (): void => {
    const { scrollHeight = 0, scrollTop = 0, clientHeight = 0 } = frame.current ?? {}
    setFollows(scrollHeight - scrollTop - clientHeight < 2 * LINE_PX)
  }
  return (
    <>
      <div ref={frame} className="log-frame" tabIndex={0} role="log" aria-label="Log lines" aria-live="off" onScroll={onScroll}>
        <div className="rows" style={{ height: virtual.getTotalSize() }}>
          {virtual.getVirtualItems().map(({ index, key, start }) => (
            <div key={key} ref={virtual.measureElement} data-index={index} className="log-place" style={{ transform: `translateY(${start}px)` }}>
              {lines[index] && <Line line={lines[index]} withNode={withNode} />}
            </div>
          ))}
        </div>
      </div>
      {!follows && (
        <button type="button" className="to-end" onClick={() => setFollows(true)}>Follow the end</button>
      )}
    </>
  )
}

function Line({ line, withNode }: { line: LogLine; withNode: boolean }) {
  const { zone } = useZone()
  const at = new Date(line.at)
  const fields = Object.entries(line.fields ?? {})
  return (
    <div className={`log-line level-${line.level}`}>
      <time dateTime={line.at} title={`${timeText(at, 'utc')} UTC`}>
        {timeText(at, zone).slice(11)}.{String(at.getMilliseconds()).padStart(3, '0')}
      </time>
      <span className="level">{line.level}</span>
      {withNode && <span className="id quiet">{line.node_id}</span>}
      <span className="log-text">
        {line.dropped ? <em className="quiet">({line.dropped} lines are not kept) </em> : null}
        {line.attempt > 1 && <span className="quiet">[attempt {line.attempt}] </span>}
        {line.text}
        {fields.map(([name, value]) => (
          <span key={name} className="quiet"> {`${name}=${typeof value === 'string' ? value : jsonText(value)}`}</span>
        ))}
        {line.traceback && <pre>{line.traceback}</pre>}
      </span>
    </div>
  )
}
