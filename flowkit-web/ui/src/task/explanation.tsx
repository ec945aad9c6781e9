/** An explanation of the server, with its times in the zone of the viewer and its commands as code. */

import { Time } from '../shared/time'

const PARTS = /(`[^`\n]+`|\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))/

export function Explanation({ text }: { text: string }) {
  return <>{text.split(PARTS).map((part, place) => {
    if (place % 2 === 0) return part
    return part.startsWith('`')
      ? <code key={place}>{part.slice(1, -1)}</code> : <Time key={place} at={part} />
  })}</>
}
