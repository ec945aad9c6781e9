/** The address of the page: which view it shows, and with which filters. */

import { useMemo, useSyncExternalStore, type ComponentProps, type MouseEvent } from 'react'

const MOVED = 'flowkit:moved'

function subscribe(listener: () => void): () => void {
  window.addEventListener('popstate', listener)
  window.addEventListener(MOVED, listener)
  return () => {
    window.removeEventListener('popstate', listener)
    window.removeEventListener(MOVED, listener)
  }
}

/** Go to an address of the page. */
export function navigate(to: string, { replace = false } = {}): void {
  window.history[replace ? 'replaceState' : 'pushState'](null, '', to)
  window.dispatchEvent(new Event(MOVED))
}

/** Return the path of the address, whose parts are percent-encoded. */
export function usePath(): string {
  return useSyncExternalStore(subscribe, () => window.location.pathname)
}

export type Search = Record<string, string | readonly string[] | null>

/** Return the query of the address, and a function that changes some of its values. */
export function useSearch(): [URLSearchParams, (changes: Search) => void] {
  const text = useSyncExternalStore(subscribe, () => window.location.search)
  const search = useMemo(() => new URLSearchParams(text), [text])
  return [search, changeSearch]
}

function changeSearch(changes: Search): void {
  const next = new URLSearchParams(window.location.search)
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name)
    for (const one of typeof value === 'string' ? [value] : value ?? []) {
      if (one !== '') next.append(name, one)
    }
  }
  const text = next.toString()
  navigate(window.location.pathname + (text && `?${text}`), { replace: true })
}

/** Return the values of a pattern such as `/tasks/{id}` in a path, or null if it does not fit. */
export function match(pattern: string, place: string): Record<string, string> | null {
  const parts = place.split('/')
  const names = pattern.split('/')
  if (parts.length !== names.length) return null
  const values: Record<string, string> = {}
  for (const [position, name] of names.entries()) {
    const part = parts[position] ?? ''
    if (name.startsWith('{')) values[name.slice(1, -1)] = decoded(part)
    else if (name !== part) return null
  }
  return values
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** Link to an address of the page. */
export function Link({ href, onClick, ...rest }: ComponentProps<'a'> & { href: string }) {
  const follow = (event: MouseEvent<HTMLAnchorElement>): void => {
    onClick?.(event)
    const plain = event.button === 0 &&
      !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey)
    if (!plain || event.defaultPrevented) return
    event.preventDefault()
    navigate(href)
    window.scrollTo(0, 0)
  }
  return <a href={href} onClick={follow} {...rest} />
}
