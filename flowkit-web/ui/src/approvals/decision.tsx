/** The choices of an approval: a button for each, which asks for the form and a comment. */

import { useState } from 'react'
import { api, path } from '../api/client'
import type { Approval } from '../api/types'
import { SchemaForm } from '../forms/schema-form'
import { fieldsOf, initialValue } from '../forms/schema'
import { ActionButton } from '../shared/dialog'
import { useMay, useMe } from '../shared/me'
import { showToast } from '../shared/toasts'

/** Choice that needs no values of the form. */
const REJECT = 'reject'

export function Decision({ approval, onDone }: { approval: Approval; onDone: () => void }) {
  const may = useMay('operator')
  const name = useMe()?.name ?? ''
  const isAssigned = !approval.assignees || approval.assignees.includes(name)
  return (
    <>
      <div className="buttons">
        {approval.choices.map((choice) => (
          <ChoiceButton
            key={choice} approval={approval} choice={choice} disabled={!may || !isAssigned} onDone={onDone}
          />
        ))}
      </div>
      {may && !isAssigned && <p className="quiet">Only its assignees may decide. You are {name}.</p>}
    </>
  )
}

function ChoiceButton({ approval, choice, disabled, onDone }: {
  approval: Approval
  choice: string
  disabled: boolean
  onDone: () => void
}) {
  const form = choice === REJECT ? null : approval.form ?? null
  const [values, setValues] = useState(() => initialValue(fieldsOf(form ?? {}) ?? []))
  const [comment, setComment] = useState('')
  return (
    <ActionButton
      label={choice}
      danger={choice === REJECT}
      disabled={disabled}
      title={`Decide: ${choice}`}
      verb={choice}
      run={() => api.post(path`/tasks/${approval.task_id}/nodes/${approval.node_id}/decide`, {
        choice, values: form && values, comment: comment || null,
      })}
      onDone={() => {
        showToast(`Decided: ${choice}`)
        onDone()
      }}
    >
      <p className="prompt">{approval.prompt}</p>
      {form && <SchemaForm schema={form} value={values} onChange={setValues} />}
      <label>
        <span>Comment <span className="quiet">(optional)</span></span>
        <textarea rows={2} value={comment} onChange={(event) => setComment(event.target.value)} />
      </label>
    </ActionButton>
  )
}
