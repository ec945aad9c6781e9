/** Table that draws only the rows that are in view, so that it may have any number of them. */

import { useVirtualizer } from '@tanstack/react-virtual'
import { useEffect, useRef, type ReactNode } from 'react'

export interface Column<T> {
  title: string
  /** Width as in `grid-template-columns`, such as `8rem` or `minmax(10rem, 2fr)`. */
  width: string
  cell: (row: T) => ReactNode
}

interface TableProps<T> {
  label: string
  columns: Column<T>[]
  rows: T[]
  keyOf: (row: T) => string
  /** Called when the last row comes into view. */
  onEnd?: () => void
  /** Number of all rows, where not all of them are here. */
  count?: number
  isSelected?: (row: T) => boolean
}

const ROW_PX = 38
const AHEAD = 12

export function Table<T>({ label, columns, rows, keyOf, onEnd, count, isSelected }: TableProps<T>) {
  const scrolled = useRef<HTMLDivElement>(null)
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scrolled.current,
    estimateSize: () => ROW_PX,
    overscan: AHEAD,
  })
  const shown = virtual.getVirtualItems()
  const last = shown.at(-1)?.index ?? -1
  useEffect(() => {
    if (last >= rows.length - 1) onEnd?.()
  }, [last, rows.length, onEnd])
  const template = { gridTemplateColumns: columns.map((column) => column.width).join(' ') }
  return (
    // The region is in the order of the keyboard, so that the arrow keys scroll it.
    <div ref={scrolled} className="scrolled" tabIndex={0} role="region" aria-label={label}>
      <div role="table" aria-label={label} aria-rowcount={(count ?? rows.length) + 1}>
        <div role="row" aria-rowindex={1} className="row heading" style={template}>
          {columns.map((column) => (
            <span key={column.title} role="columnheader">{column.title}</span>
          ))}
        </div>
        <div role="rowgroup" className="rows" style={{ height: virtual.getTotalSize() }}>
          {shown.map(({ index, start }) => {
            const row = rows[index]
            if (row === undefined) return null
            return (
              <div
                key={keyOf(row)}
                role="row"
                aria-rowindex={index + 2}
                className={isSelected?.(row) ? 'row selected' : 'row'}
                style={{ ...template, height: ROW_PX, transform: `translateY(${start}px)` }}
              >
                {columns.map((column) => (
                  <span key={column.title} role="cell">{column.cell(row)}</span>
                ))}
              </div>
            )
          })}
        </div>
      </div>
    </div>
  )
}
