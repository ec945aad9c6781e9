/** Short messages about what was done, which screen readers announce. */

import { useEffect, useState } from 'react'

interface Toast {
  id: number
  text: string
}

const SHOWN_MS = 6_000
const SENT = 'flowkit:toast'
let sent = 0

/** Show a message for some seconds. */
export function showToast(text: string): void {
  sent += 1
  window.dispatchEvent(new CustomEvent<Toast>(SENT, { detail: { id: sent, text } }))
}

export function Toasts() {
  const [toasts, setToasts] = useState<Toast[]>([])
  useEffect(() => {
    const onToast = (event: Event): void => {
      const toast = (event as CustomEvent<Toast>).detail
      setToasts((shown) => [...shown, toast])
      setTimeout(() => setToasts((shown) => shown.filter((one) => one !== toast)), SHOWN_MS)
    }
    window.addEventListener(SENT, onToast)
    return () => window.removeEventListener(SENT, onToast)
  }, [])
  return (
    <div role="status" className="toasts">
      {toasts.map((toast) => <p key={toast.id}>{toast.text}</p>)}
    </div>
  )
}
