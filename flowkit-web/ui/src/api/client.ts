/** Requests to the API of the server that this page comes from. */

import { jsonText, parseJson } from './json'
import { setRefused, token } from './token'
import type { Problem } from './types'

export const API = '/api/v1'

/** An answer that is an error. `problem` is its problem document. */
export class ApiError extends Error {
  readonly problem: Problem

  constructor(problem: Problem) {
    super(problem.detail)
    this.problem = problem
  }

  /** Kind of the error, such as `task_not_found`. */
  get kind(): string {
    return this.problem.type.replace('urn:flowkit:problem:', '')
  }
}

type Scalar = string | number | boolean
export type Query = Record<string, Scalar | Scalar[] | null | undefined>

/** Write a path of the API, in which each value is percent-encoded. */
export function path(texts: TemplateStringsArray, ...values: string[]): string {
  return String.raw({ raw: texts }, ...values.map(encodeURIComponent))
}

export function queryText(query: Query): string {
  const pairs = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    const values = Array.isArray(value) ? value : [value]
    for (const one of values) if (one !== null && one !== undefined) pairs.append(name, String(one))
  }
  const text = pairs.toString()
  return text && `?${text}`
}

export const api = {
  get: <T>(place: string, query: Query = {}, signal?: AbortSignal) =>
    send<T>('GET', place + queryText(query), undefined, signal),
  post: <T = undefined>(place: string, body?: object) => send<T>('POST', place, body),
  delete: (place: string) => send<undefined>('DELETE', place),
}

/** Send a request. Throw `ApiError` if the answer is an error, or none arrives. */
export async function open(place: string, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers)
  const secret = token()
  if (secret !== null) headers.set('Authorization', `Bearer ${secret}`)
  const request = { ...init, headers, credentials: 'omit', redirect: 'error' } as const
  const answer = await fetch(API + place, request).catch((error: unknown) => {
    if (init.signal?.aborted) throw error
    throw new ApiError(problem(0, 'Not reached', 'The server does not answer. Is it running?'))
  })
  if (answer.ok) return answer
  if (answer.status === 401) setRefused(true)
  throw new ApiError(await problemOf(answer))
}

async function send<T>(
  method: string, place: string, body?: object, signal?: AbortSignal,
): Promise<T> {
  const init: RequestInit = { method }
  if (signal) init.signal = signal
  if (body) {
    init.body = jsonText(body)
    init.headers = { 'Content-Type': 'application/json' }
  }
  const answer = await open(place, init)
  return (answer.status === 204 ? undefined : parseJson(await answer.text())) as T
}

async function problemOf(answer: Response): Promise<Problem> {
  const type = answer.headers.get('Content-Type') ?? ''
  if (type.startsWith('application/problem+json')) return parseJson(await answer.text()) as Problem
  return problem(answer.status, answer.statusText, `The server answered ${answer.status}.`)
}

function problem(status: number, title: string, detail: string): Problem {
  return { type: 'about:blank', title, status, detail, errors: null }
}
