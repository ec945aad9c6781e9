/** The views of the page by their addresses. The server answers each of them with the page. */

import { lazy, type ComponentType } from 'react'

export type ViewProps = Record<string, string>

export const VIEWS: [string, ComponentType<ViewProps>][] = [
  ['/', lazy(() => import('./start/view'))],
  ['/tasks', lazy(() => import('./tasks/view'))],
  ['/tasks/{id}', lazy(() => import('./task/view'))],
  ['/waiting', lazy(() => import('./waiting/view'))],
  ['/approvals', lazy(() => import('./approvals/view'))],
  ['/flows', lazy(() => import('./flows/list-view'))],
  ['/flows/{name}', lazy(() => import('./flows/view'))],
  ['/schedules', lazy(() => import('./schedules/list-view'))],
  ['/schedules/{id}', lazy(() => import('./schedules/view'))],
  ['/triggers', lazy(() => import('./triggers/list-view'))],
  ['/triggers/{id}', lazy(() => import('./triggers/view'))],
  ['/workers', lazy(() => import('./workers/view'))],
  ['/dead-letters', lazy(() => import('./letters/view'))],
]

/** The main views, in the order of the navigation. */
export const NAVIGATION: [string, string][] = [
  ['/', 'Start'],
  ['/tasks', 'Tasks'],
  ['/waiting', 'Waiting'],
  ['/approvals', 'Approvals'],
  ['/flows', 'Flows'],
  ['/schedules', 'Schedules'],
  ['/triggers', 'Triggers'],
  ['/workers', 'Workers'],
  ['/dead-letters', 'Dead letters'],
]
