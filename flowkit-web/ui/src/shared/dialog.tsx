/** Dialogs. The browser keeps the focus inside of them, and Escape closes them. */

import { useMutation } from '@tanstack/react-query'
import { useId, useLayoutEffect, useRef, useState, type ReactNode } from 'react'
import { ProblemBox } from './problem'

export function Dialog({ title, onClose, children, wide = false }: {
  title: string
  /** Called when the dialog is closed by Escape. Without it, the dialog stays. */
  onClose?: () => void
  children: ReactNode
  wide?: boolean
}) {
  const shown = useRef<HTMLDialogElement>(null)
  const heading = useId()
  // The browser gives the focus back to the button only if it closes the dialog before it is gone.
  useLayoutEffect(() => {
    const dialog = shown.current
    dialog?.showModal()
    return () => dialog?.close()
  }, [])
  return (
    <dialog
      ref={shown}
      aria-labelledby={heading}
      className={wide ? 'wide' : ''}
      onCancel={(event) => {
        event.preventDefault()
        onClose?.()
      }}
    >
      <h2 id={heading}>{title}</h2>
      {children}
    </dialog>
  )
}

export interface Action {
  /** Words of the button that opens the dialog. */
  label: string
  /** Question of the dialog. */
  title: string
  /** Words of the button that acts. */
  verb: string
  run: () => Promise<unknown>
  danger?: boolean
  disabled?: boolean
  onDone?: () => void
  /** Explanation, or fields. */
  children?: ReactNode
}

/** Button that acts after a confirmation. An error is shown in the dialog. */
export function ActionButton({ label, disabled = false, ...action }: Action) {
  const [isOpen, setOpen] = useState(false)
  return (
    <>
      <button
        type="button"
        disabled={disabled}
        className={action.danger ? 'danger' : ''}
        onClick={() => setOpen(true)}
      >
        {label}
      </button>
      {isOpen && <ActionDialog {...action} onClose={() => setOpen(false)} />}
    </>
  )
}

/** Dialog that asks before it acts. With a `refusal`, which says why it cannot act, it only shows its fields. */
export function ActionDialog({ title, verb, run, onDone, onClose, danger = false, refusal = null, children }:
  Omit<Action, 'label' | 'disabled'> & { onClose: () => void; refusal?: string | null }) {
  const action = useMutation({
    mutationFn: run,
    onSuccess: () => {
      onClose()
      onDone?.()
    },
  })
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault()
          action.mutate()
        }}
        onChange={(event) => {
          // A field shows its own fault now, so that of the values that were sent is out of date.
          if (action.error && event.currentTarget.matches(':invalid')) action.reset()
        }}
      >
        {children}
        {refusal !== null
          ? <p role="alert" className="problem">{refusal}</p>
          : action.error && <ProblemBox error={action.error} />}
        <div className="buttons">
          <button type="button" onClick={onClose}>Back</button>
          <button type="submit" className={danger ? 'danger main' : 'main'} disabled={action.isPending || refusal !== null}>
            {action.isPending ? 'Working…' : verb}
          </button>
        </div>
      </form>
    </Dialog>
  )
}
