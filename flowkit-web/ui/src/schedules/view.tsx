/** One schedule: its next times, its history, and actions. */

import { useQueryClient } from '@tanstack/react-query'
import { api, path } from '../api/client'
import type { Created, NextTimes, ScheduleView } from '../api/types'
import { ActionButton } from '../shared/dialog'
import { useLive } from '../shared/lists'
import { useMay } from '../shared/me'
import { Empty, Loaded } from '../shared/problem'
import { Time } from '../shared/time'
import { showToast } from '../shared/toasts'
import { FlowLink, Json, TaskLink, ViewHeading, withoutNulls } from '../shared/view'
import { ScheduleState } from './list-view'
import { patternText } from './words'

const COUNT = 10

export default function SchedulePage({ id = '' }: { id?: string }) {
  const place = path`/schedules/${id}`
  const query = useLive<ScheduleView>(place)
  return (
    <>
      <ViewHeading title={id}>
        {query.data && <Actions schedule={query.data} place={place} />}
      </ViewHeading>
      <Loaded query={query}>
        {(view) => (
          <div className="cards">
            <Facts view={view} />
            <NextBox place={place} />
            <History view={view} />
            <section className="card whole">
              <h2>Definition</h2>
              <Json value={withoutNulls(view.schedule)} />
            </section>
          </div>
        )}
      </Loaded>
    </>
  )
}

function Facts({ view }: { view: ScheduleView }) {
  const { schedule } = view
  return (
    <section className="card">
      <h2><ScheduleState schedule={view} /></h2>
      <dl className="facts">
        <dt>When</dt><dd>{patternText(schedule)}</dd>
        <dt>Flow</dt>
        <dd>
          {schedule.flow
            ? <FlowLink name={schedule.flow} version={schedule.version ?? null} />
            : 'a graph of its own'}
        </dd>
        <dt>If one still runs</dt><dd>{(schedule.overlap ?? 'skip').replaceAll('_', ' ')}</dd>
        <dt>Missed times</dt><dd>{schedule.catch_up ?? 'latest'}</dd>
        <dt>Open tasks</dt>
        <dd>
          {view.open_tasks?.length
            ? view.open_tasks.map((task) => <div key={task}><TaskLink id={task} /></div>) : 'none'}
        </dd>
      </dl>
    </section>
  )
}

function NextBox({ place }: { place: string }) {
  const query = useLive<NextTimes>(`${place}/next`, { count: COUNT })
  return (
    <section className="card">
      <h2>Next times</h2>
      <Loaded query={query}>
        {({ times }) => times.length === 0 ? <Empty>There are no more.</Empty> : (
          <table>
            <thead><tr><th>Time</th><th>Distance</th></tr></thead>
            <tbody>
              {times.map((at) => (
                <tr key={at}><td><Time at={at} /></td><td><Time at={at} distance /></td></tr>
              ))}
            </tbody>
          </table>
        )}
      </Loaded>
    </section>
  )
}

function History({ view }: { view: ScheduleView }) {
  const entries = (view.history ?? []).toReversed()
  return (
    <section className="card">
      <h2>History</h2>
      {entries.length === 0 ? <Empty>Nothing has happened yet.</Empty> : (
        <table>
          <thead><tr><th>Nominal time</th><th>Outcome</th></tr></thead>
          <tbody>
            {entries.map((entry) => (
              <tr key={`${entry.kind} ${entry.at} ${entry.task_id}`}>
                <td><Time at={entry.at} /></td>
                <td>
                  {entry.task_id ? <TaskLink id={entry.task_id} /> : entry.kind}
                  {(entry.count ?? 1) > 1 && ` × ${entry.count}`}
                  {entry.reason && ` (${entry.reason.replaceAll('_', ' ')})`}
                  {entry.error && <span className="bad-text"> {entry.error}</span>}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  )
}

function Actions({ schedule, place }: { schedule: ScheduleView; place: string }) {
  const queries = useQueryClient()
  if (!useMay('admin')) return null
  const renew = (): void => void queries.invalidateQueries({ queryKey: [place] })
  const trigger = async (): Promise<void> => {
    const { id } = await api.post<Created>(`${place}/trigger`)
    showToast(`Task ${id} was made`)
  }
  return (
    <>
      <ActionButton
        label="Trigger now" title={`Make a task of ${schedule.id} now?`} verb="Make it"
        run={trigger} onDone={renew}
      />
      {schedule.paused
        ? (
          <ActionButton
            label="Resume" title={`Resume ${schedule.id}?`} verb="Resume it"
            run={() => api.post(`${place}/resume`)} onDone={renew}
          />
        )
        : (
          <ActionButton
            label="Pause" title={`Pause ${schedule.id}?`} verb="Pause it"
            run={() => api.post(`${place}/pause`)} onDone={renew}
          >
            <p>It makes no tasks until it is resumed.</p>
          </ActionButton>
        )}
    </>
  )
}
