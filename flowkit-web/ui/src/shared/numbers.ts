/** Numbers as people read them. */

/** Write a count, which stops at a limit. */
export function countText(count: number, most = Infinity): string {
  return count >= most ? `${most.toLocaleString('en')}+` : count.toLocaleString('en')
}
