/** Dead letters: messages and work that failed for ever, until a user retries or drops them. */

import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { api } from '../api/client'
import type { Letter, LetterKind, Page, RetriedLetter } from '../api/types'
import { useSearch } from '../router'
import { ActionButton, Dialog } from '../shared/dialog'
import { FilterFaults } from '../shared/filter-faults'
import { faultsOf, isOneOf } from '../shared/filters'
import { usePages } from '../shared/lists'
import { useMay } from '../shared/me'
import { Empty, ProblemBox } from '../shared/problem'
import { Table, type Column } from '../shared/table'
import { Time } from '../shared/time'
import { showToast } from '../shared/toasts'
import { Json, TaskLink, ViewHeading } from '../shared/view'
import { doneText, refusalsOf, stillChosen } from './outcome'

/** Kinds with what they are. The compiler checks that they are those of the API. */
const KINDS: Record<LetterKind, string> = {
  node: 'Nodes that failed and have no retries left',
  batch: 'Batches that failed and have no retries left',
  message: 'Messages that could not be used',
  task: 'Tasks that are quarantined',
  trigger: 'Events of triggers for which no task could be made',
  webhook: 'Changes of tasks that a webhook could not deliver',
}
const MOST_AT_ONCE = 500

export default function LettersPage() {
  const [search] = useSearch()
  const faults = faultsOf(search, { kind: isOneOf(Object.keys(KINDS)) })
  if (faults.length === 0) return <Letters kind={search.get('kind')} />
  return (
    <>
      <ViewHeading title="Dead letters" />
      <FilterFaults faults={faults} href="/dead-letters" />
    </>
  )
}

function Letters({ kind }: { kind: string | null }) {
  const [, change] = useSearch()
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set())
  const [shown, setShown] = useState<Letter | null>(null)
  const { rows, error, onEnd } = usePages<Letter>('/dead-letters', { kind })
  // A letter that is gone, or that the list does not show, is not changed.
  const ids = (rows ?? []).map((letter) => letter.letter_id).filter((id) => chosen.has(id))
  const toggle = (id: string): void => {
    const next = new Set(chosen)
    if (!next.delete(id)) next.add(id)
    setChosen(next)
  }
  const columns: Column<Letter>[] = [
    {
      title: 'Chosen', width: '4rem',
      cell: ({ letter_id: id }) => (
        <input
          type="checkbox" aria-label={`Choose ${id}`}
          checked={chosen.has(id)} onChange={() => toggle(id)}
        />
      ),
    },
    {
      title: 'Letter', width: 'minmax(9rem, 1.2fr)',
      cell: (letter) => (
        <button type="button" className="plain id" onClick={() => setShown(letter)}>
          {letter.letter_id}
        </button>
      ),
    },
    { title: 'Kind', width: '5rem', cell: (letter) => letter.kind },
    {
      title: 'Task', width: 'minmax(7rem, 1fr)',
      cell: (letter) => letter.task_id ? <TaskLink id={letter.task_id} /> : '—',
    },
    {
      title: 'Why', width: 'minmax(10rem, 2fr)',
      cell: (letter) => (
        <span title={letter.error}><code>{letter.reason_code}</code> {letter.error}</span>
      ),
    },
    { title: 'At', width: '10.5rem', cell: (letter) => <Time at={letter.at} /> },
  ]
  const choose = (ids: string[]): void => setChosen(new Set(ids.slice(0, MOST_AT_ONCE)))
  return (
    <>
      <ViewHeading title="Dead letters">
        <LetterActions ids={ids} choose={setChosen} />
      </ViewHeading>
      <p className="quiet">
        What failed for ever is kept here. Retry it when the cause is repaired, or drop it.
      </p>
      <div className="chips" role="group" aria-label="Kind">
        {Object.entries(KINDS).map(([one, what]) => (
          <button
            key={one} type="button" title={what} aria-pressed={kind === one}
            onClick={() => change({ kind: kind === one ? null : one })}
          >
            {one}
          </button>
        ))}
        {rows && rows.length > 0 && (
          <button type="button" onClick={() => choose(ids.length ? [] : rows.map((one) => one.letter_id))}>
            {ids.length ? 'Choose none' : `Choose all ${rows.length} shown`}
          </button>
        )}
      </div>
      {error && <ProblemBox error={error} />}
      {rows?.length === 0 && <Empty>There are no dead letters.</Empty>}
      {rows && rows.length > 0 && (
        <Table
          label="Dead letters" columns={columns} rows={rows} onEnd={onEnd}
          keyOf={(letter) => letter.letter_id} isSelected={(letter) => chosen.has(letter.letter_id)}
        />
      )}
      {shown && (
        <Dialog title={`Dead letter ${shown.letter_id}`} onClose={() => setShown(null)} wide>
          <Json value={shown} />
          <div className="buttons">
            <button type="button" onClick={() => setShown(null)}>Close</button>
          </div>
        </Dialog>
      )}
    </>
  )
}

function LetterActions({ ids, choose }: { ids: string[]; choose: (ids: ReadonlySet<string>) => void }) {
  const queries = useQueryClient()
  const [outcome, setOutcome] = useState<RetriedLetter[] | null>(null)
  if (!useMay('operator')) return null
  const readAgain = (): void => void queries.invalidateQueries({ queryKey: ['/dead-letters'] })
  const retry = async (): Promise<void> => {
    const { items } = await api.post<Page<RetriedLetter>>('/dead-letters/retry', { letter_ids: ids })
    choose(stillChosen(ids, items))
    if (items.every((item) => item.retried)) showToast(doneText(items))
    else setOutcome(items)
  }
  const drop = async (): Promise<void> => {
    const { dropped } = await api.post<{ dropped: number }>('/dead-letters/drop', { letter_ids: ids })
    choose(new Set())
    showToast(`${dropped} dropped`)
  }
  const chosen = ids.length === 1 ? '1 dead letter' : `${ids.length} dead letters`
  return (
    <>
      <ActionButton
        label={`Retry ${ids.length}`} title={`Retry ${chosen}?`} verb="Retry them"
        disabled={ids.length === 0} run={retry} onDone={readAgain}
      />
      <ActionButton
        label={`Drop ${ids.length}`} title={`Drop ${chosen}?`} verb="Drop them"
        danger disabled={ids.length === 0} run={drop} onDone={readAgain}
      >
        <p>What is dropped is deleted and cannot be retried any more.</p>
      </ActionButton>
      {outcome && <Outcome items={outcome} onClose={() => setOutcome(null)} />}
    </>
  )
}

/** The letters that were not retried, by reason. */
function Outcome({ items, onClose }: { items: RetriedLetter[]; onClose: () => void }) {
  const retried = items.filter((item) => item.retried).length
  return (
    <Dialog title={`${retried} of ${items.length} retried`} onClose={onClose}>
      {[...refusalsOf(items)].map(([reason, ids]) => (
        <section key={reason}>
          <p>{reason}</p>
          <ul>{ids.map((id) => <li key={id} className="id">{id}</li>)}</ul>
        </section>
      ))}
      <div className="buttons"><button type="button" onClick={onClose}>Close</button></div>
    </Dialog>
  )
}
