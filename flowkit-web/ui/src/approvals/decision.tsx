/** The choices of an approval: a button for each, and the dialog that asks for the form and a comment. */

import { useState, type ReactNode } from 'react'
import { api, path } from '../api/client'
import { jsonText } from '../api/json'
import type { Approval, NodeView } from '../api/types'
import { SchemaForm } from '../forms/schema-form'
import { fieldsOf, initialValue, type Schema } from '../forms/schema'
import { ActionDialog } from '../shared/dialog'
import { useLive } from '../shared/lists'
import { useMay, useMe } from '../shared/me'
import { showToast } from '../shared/toasts'
import { refusalOf } from './refusal'

/** Choice that needs no values of the form. */
const REJECT = 'reject'

export type Choose = (approval: Approval, choice: string) => void

export function Choices({ approval, choose }: { approval: Approval; choose: Choose }) {
  const may = useMay('operator')
  const name = useMe()?.name ?? ''
  const isAssigned = !approval.assignees || approval.assignees.includes(name)
  return (
    <>
      <div className="buttons">
        {approval.choices.map((choice) => (
          <button
            key={choice} type="button" className={choice === REJECT ? 'danger' : ''}
            disabled={!may || !isAssigned} onClick={() => choose(approval, choice)}
          >
            {choice}
          </button>
        ))}
      </div>
      {may && !isAssigned && <p className="quiet">Only its assignees may decide. You are {name}.</p>}
    </>
  )
}

interface Draft {
  values: Schema
  comment: string
}

/**
 * Return the dialog of a decision, if one is open, and a function that opens it.
 *
 * The dialog belongs to a part of the page that stays when the approval is decided elsewhere.
 * What was filled in is kept when the dialog is closed.
 */
export function useDecision(onDone: () => void): [ReactNode, Choose] {
  const [open, setOpen] = useState<{ approval: Approval; choice: string } | null>(null)
  const [drafts, setDrafts] = useState<ReadonlyMap<string, Draft>>(new Map())
  const choose: Choose = (approval, choice) => setOpen({ approval, choice })
  if (open === null) return [null, choose]
  const { approval, choice } = open
  const form = choice === REJECT ? null : approval.form ?? null
  const key = jsonText([approval.task_id, approval.node_id, approval.since, choice])
  const dialog = (
    <DecisionDialog
      key={key} approval={approval} choice={choice} form={form} onDone={onDone} onClose={() => setOpen(null)}
      draft={drafts.get(key) ?? { values: initialValue(fieldsOf(form ?? {}) ?? []), comment: '' }}
      onDraft={(draft) => setDrafts(new Map(drafts).set(key, draft))}
    />
  )
  return [dialog, choose]
}

function DecisionDialog({ approval, choice, form, draft, onDraft, onDone, onClose }: {
  approval: Approval
  choice: string
  form: Schema | null
  draft: Draft
  onDraft: (draft: Draft) => void
  onDone: () => void
  onClose: () => void
}) {
  const place = path`/tasks/${approval.task_id}/nodes/${approval.node_id}`
  const node = useLive<NodeView>(place)
  return (
    <ActionDialog
      danger={choice === REJECT}
      title={`Decide: ${choice}`}
      verb={choice}
      refusal={node.data ? refusalOf(node.data) : null}
      run={() => api.post(`${place}/decide`, {
        choice, values: form && draft.values, comment: draft.comment || null,
      })}
      onDone={() => {
        showToast(`Decided: ${choice}`)
        onDone()
      }}
      onClose={onClose}
    >
      <p className="prompt">{approval.prompt}</p>
      {form && <SchemaForm schema={form} value={draft.values} onChange={(values) => onDraft({ ...draft, values })} />}
      <label>
        <span>Comment <span className="quiet">(optional)</span></span>
        <textarea rows={2} value={draft.comment} onChange={(event) => onDraft({ ...draft, comment: event.target.value })} />
      </label>
    </ActionDialog>
  )
}
