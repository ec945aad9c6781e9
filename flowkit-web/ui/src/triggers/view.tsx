/** One trigger: what it waits for, what it starts, and its definition. */

import type { Page, TriggerView } from '../api/types'
import { useLive } from '../shared/lists'
import { Empty, Loaded } from '../shared/problem'
import { Time } from '../shared/time'
import { FlowLink, Json, ViewHeading, withoutNulls } from '../shared/view'
import { Behind, PauseButton, TriggerState } from './parts'

export default function TriggerPage({ id = '' }: { id?: string }) {
  const query = useLive<Page<TriggerView>>('/triggers')
  const found = query.data?.items.find((one) => one.id === id)
  return (
    <>
      <ViewHeading title={id}>{found && <PauseButton trigger={found} />}</ViewHeading>
      <Loaded query={query}>
        {() => found ? <Trigger view={found} /> : <Empty>There is no trigger {id}.</Empty>}
      </Loaded>
    </>
  )
}

function Trigger({ view }: { view: TriggerView }) {
  const { trigger } = view
  return (
    <div className="cards">
      <section className="card">
        <h2><TriggerState trigger={view} /></h2>
        <dl className="facts">
          <dt>Source</dt><dd><code>{trigger.source}</code></dd>
          <dt>Only when</dt><dd>{trigger.when ? <code>{trigger.when}</code> : 'always'}</dd>
          <dt>Flow</dt>
          <dd>
            {trigger.flow
              ? <FlowLink name={trigger.flow} version={trigger.version ?? null} />
              : 'a graph of its own'}
          </dd>
          <dt>Events that wait</dt><dd><Behind trigger={view} /></dd>
          <dt>Since</dt><dd><Time at={view.created_at} /></dd>
        </dl>
      </section>
      <section className="card whole">
        <h2>Definition</h2>
        <Json value={withoutNulls(trigger)} />
      </section>
    </div>
  )
}
