/** The access token, which is kept for this browser tab alone and never put into an address. */

const KEY = 'flowkit.token'
const listeners = new Set<() => void>()
let refused = false

export function token(): string | null {
  return sessionStorage.getItem(KEY)
}

export function keepToken(value: string): void {
  sessionStorage.setItem(KEY, value)
  setRefused(false)
}

export function forgetToken(): void {
  sessionStorage.removeItem(KEY)
  setRefused(true)
}

/** Whether the server refused a request because it had no valid token. */
export function isRefused(): boolean {
  return refused
}

export function setRefused(value: boolean): void {
  if (refused === value) return
  refused = value
  listeners.forEach((listener) => listener())
}

export function onRefusal(listener: () => void): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}
