/** Layouts of a graph that a worker makes. */

import { useEffect, useRef, useState } from 'react'
import type { Layout, LayoutRequest } from './layout'
import type { TaskGraph } from './graph-model'

/**
 * Return the layout of a graph; until it is there, the one before, or null. Without a graph, no
 * worker is started.
 */
export function useLayout(graph: TaskGraph | undefined, opened: string[]): Layout | null {
  const [layout, setLayout] = useState<Layout | null>(null)
  const worker = useRef<Worker | null>(null)
  const asked = useRef(0)
  useEffect(() => () => {
    worker.current?.terminate()
    worker.current = null
  }, [])
  useEffect(() => {
    if (!graph) return
    worker.current ??= new Worker(new URL('./layout.worker.ts', import.meta.url), { type: 'module' })
    worker.current.onmessage = ({ data }: MessageEvent<Layout>) => {
      if (data.number === asked.current) setLayout(data)
    }
    asked.current += 1
    const request: LayoutRequest = { number: asked.current, graph, opened }
    worker.current.postMessage(request)
  }, [graph, opened])
  return layout
}
