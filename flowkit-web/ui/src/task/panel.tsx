/** What is shown beside the view of a task: a node, or a group of them. */

import type { ReactNode } from 'react'
import { useSearch } from '../router'

export function Panel({ what, name, heading, children }: {
  what: 'node' | 'group'
  /** Name for screen readers. */
  name: string
  heading: ReactNode
  children: ReactNode
}) {
  const close = useClosePanel()
  return (
    <aside className="panel card" aria-label={name}>
      <div className="panel-heading">
        {heading}
        <button type="button" onClick={close} aria-label={`Close the ${what}`}>✕</button>
      </div>
      {children}
    </aside>
  )
}

/** Return a function that closes the panel, and gives the focus to what opens it in the view. */
export function useClosePanel(): () => void {
  const [search, changeSearch] = useSearch()
  const id = search.get('node') ?? search.get('group')
  return () => {
    if (id === null) return
    const opener = document.querySelector<HTMLElement>(`[data-opens="${CSS.escape(id)}"]`)
    // A node in a group, or a row that is scrolled away, is not in view.
    const instead = document.querySelector<HTMLElement>('[role="tab"][aria-selected="true"]')
    ;(opener ?? instead)?.focus()
    changeSearch({ node: null, group: null })
  }
}
