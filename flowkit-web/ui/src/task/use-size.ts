/** Size of an element. */

import { useEffect, useState, type RefObject } from 'react'

export interface Size {
  width: number
  height: number
}

const UNKNOWN: Size = { width: 1_000, height: 500 }

/** Return the size of an element in pixels, also when it changes. */
export function useSize(element: RefObject<HTMLElement | null>): Size {
  const [size, setSize] = useState(UNKNOWN)
  useEffect(() => {
    const shown = element.current
    if (!shown) return
    const observer = new ResizeObserver(() =>
      setSize({ width: shown.clientWidth, height: shown.clientHeight }))
    observer.observe(shown)
    return () => observer.disconnect()
  }, [element])
  return size
}
