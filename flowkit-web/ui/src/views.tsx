/** The views of the page by their addresses. The server answers each of them with the page. */

import { lazy, type ComponentType } from 'react'

export type ViewProps = Record<string, string>

export const VIEWS: [string, ComponentType<ViewProps>][] = [
  ['/', lazy(() => import('./start/view'))],
  ['/tasks', lazy(() => import('./tasks/view'))],
  ['/tasks/{id}', lazy(() => import('./task/view'))],
]

/** The main views, in the order of the navigation. */
export const NAVIGATION: [string, string][] = [
  ['/', 'Start'],
  ['/tasks', 'Tasks'],
]
