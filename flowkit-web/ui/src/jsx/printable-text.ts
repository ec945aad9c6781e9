/** Props of an element, with escapes in the text that it shows. */

import { printable } from '../shared/printable'

/** Attributes of elements that browsers show, or that screen readers read. */
const SHOWN = ['title', 'aria-label', 'placeholder', 'alt']

/**
 * Return the props of an element, in which all text that it shows is printable.
 *
 * Values of fields, addresses and other attributes stay exact, and so do the props of components.
 */
export function withPrintableText(type: unknown, props: unknown): object {
  const given = props as Record<string, unknown>
  const found = { ...given }
  if ('children' in given) found['children'] = shown(given['children'])
  if (typeof type !== 'string') return found
  for (const name of SHOWN) if (name in given) found[name] = shown(given[name])
  return found
}

function shown(part: unknown): unknown {
  if (typeof part === 'string') return printable(part)
  return Array.isArray(part) ? part.map(shown) : part
}
