/** Times and durations. A time is shown in the viewer's zone or in UTC; the other is its title. */

import { createContext, useContext, useEffect, useState, type ReactNode } from 'react'

export type Zone = 'local' | 'utc'

const KEY = 'flowkit.zone'
const ZoneContext = createContext<{ zone: Zone; setZone: (zone: Zone) => void }>(
  { zone: 'local', setZone: () => undefined },
)

export function ZoneProvider({ children }: { children: ReactNode }) {
  const [zone, setZone] = useState<Zone>(localStorage.getItem(KEY) === 'utc' ? 'utc' : 'local')
  const change = (next: Zone): void => {
    localStorage.setItem(KEY, next)
    setZone(next)
  }
  return <ZoneContext value={{ zone, setZone: change }}>{children}</ZoneContext>
}

export function useZone() {
  return useContext(ZoneContext)
}

const SHAPE = {
  year: 'numeric', month: '2-digit', day: '2-digit',
  hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23',
} as const
const FORMATS = {
  local: new Intl.DateTimeFormat('sv-SE', SHAPE),
  utc: new Intl.DateTimeFormat('sv-SE', { ...SHAPE, timeZone: 'UTC' }),
}
const LOCAL_NAME = Intl.DateTimeFormat().resolvedOptions().timeZone

/** Write a time such as `2026-01-31 14:05:09` in a zone. */
export function timeText(at: Date, zone: Zone): string {
  return FORMATS[zone].format(at)
}

/** Write a duration in its two largest units, such as `2 h 5 min` or `340 ms`. */
export function durationText(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`
  if (ms < 60_000) return `${(ms / 1_000).toFixed(ms < 10_000 ? 1 : 0)} s`
  const units: [number, string][] = [[86_400_000, 'd'], [3_600_000, 'h'], [60_000, 'min'], [1_000, 's']]
  const first = units.findIndex(([size]) => ms >= size)
  const texts = units.slice(first, first + 2).map(([size, name], place) => {
    const count = Math.floor((place === 0 ? ms : ms % (units[first]?.[0] ?? 1)) / size)
    return count ? `${count} ${name}` : ''
  })
  return texts.filter(Boolean).join(' ')
}

/** Write how far a time is from now: `3 min ago` or `in 2 h`. */
export function distanceText(at: Date, now: number): string {
  const ms = now - at.getTime()
  if (Math.abs(ms) < 1_000) return 'now'
  const [size] = durationText(Math.abs(ms)).match(/^[\d.]+ \S+/) ?? ['']
  return ms > 0 ? `${size} ago` : `in ${size}`
}

/** Return the present time in milliseconds, which is renewed each second. */
export function useNow(everyMs = 1_000): number {
  const [now, setNow] = useState(Date.now)
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs)
    return () => clearInterval(timer)
  }, [everyMs])
  return now
}

interface TimeProps {
  at: string | null | undefined
  /** Show the distance from now instead of the time. */
  distance?: boolean
}

/** A time. Its title has it in the viewer's zone and in UTC. */
export function Time({ at, distance = false }: TimeProps) {
  const { zone } = useZone()
  if (!at) return <span className="quiet">—</span>
  const date = new Date(at)
  const title = `${timeText(date, 'local')} ${LOCAL_NAME}\n${timeText(date, 'utc')} UTC`
  return (
    <time dateTime={at} title={title}>
      {distance ? <Distance at={date} /> : timeText(date, zone)}
    </time>
  )
}

function Distance({ at }: { at: Date }) {
  return <>{distanceText(at, useNow())}</>
}

/** The time between two times; up to now while the second is missing. */
export function Duration({ from, to }: {
  from: string | null | undefined
  to: string | null | undefined
}) {
  if (!from) return <span className="quiet">—</span>
  const start = new Date(from).getTime()
  if (to) return <span className="number">{durationText(new Date(to).getTime() - start)}</span>
  return <span className="number"><Since start={start} /></span>
}

function Since({ start }: { start: number }) {
  return <>{durationText(useNow() - start)}</>
}
