/** The frame of all views: navigation, theme, time zone, access and messages. */

import { useQueryClient } from '@tanstack/react-query'
import { Suspense, useEffect, useRef, useState, useSyncExternalStore } from 'react'
import { forgetToken, isRefused, keepToken, onRefusal, token } from './api/token'
import { Link, match, usePath } from './router'
import { Dialog } from './shared/dialog'
import { useMe } from './shared/me'
import { Empty } from './shared/problem'
import { useZone } from './shared/time'
import { Toasts } from './shared/toasts'
import { chooseTheme, shownTheme } from './theme'
import { NAVIGATION, VIEWS } from './views'

export function App() {
  return (
    <div className="frame">
      <a className="skip" href="#main">Skip to the content</a>
      <SideBar />
      <main id="main" tabIndex={-1}><CurrentView /></main>
      <Access />
      <Toasts />
    </div>
  )
}

function CurrentView() {
  const place = usePath()
  for (const [pattern, View] of VIEWS) {
    const values = match(pattern, place)
    if (values) {
      return <Suspense fallback={<Empty>Loading…</Empty>}><View key={place} {...values} /></Suspense>
    }
  }
  return <Empty>There is no page at this address. <Link href="/">Go to the start</Link></Empty>
}

function SideBar() {
  const place = usePath()
  const current = (address: string): boolean =>
    address === '/' ? place === '/' : place === address || place.startsWith(`${address}/`)
  const views = useRef<HTMLElement>(null)
  // On a narrow screen the views are in a row that is wider than the screen.
  useEffect(() => {
    views.current?.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' })
  }, [place])
  return (
    <div className="side">
      <Link className="brand" href="/">FlowKit</Link>
      <nav aria-label="Views" ref={views}>
        {NAVIGATION.map(([address, name]) => (
          <Link key={address} href={address} aria-current={current(address) ? 'page' : undefined}>
            {name}
          </Link>
        ))}
      </nav>
      <div className="settings">
        <Caller />
        <ZoneButton />
        <ThemeButton />
      </div>
    </div>
  )
}

function Caller() {
  const me = useMe()
  const queries = useQueryClient()
  if (!me) return null
  const leave = (): void => {
    forgetToken()
    queries.clear()
  }
  return (
    <div className="caller">
      <span>{me.name} <span className="quiet">{me.role}</span></span>
      {token() !== null && <button type="button" onClick={leave}>Sign out</button>}
    </div>
  )
}

function ZoneButton() {
  const { zone, setZone } = useZone()
  const next = zone === 'local' ? 'utc' : 'local'
  return (
    <button type="button" onClick={() => setZone(next)}>
      {zone === 'local' ? 'Times: local' : 'Times: UTC'}
    </button>
  )
}

function ThemeButton() {
  const [theme, setTheme] = useState(shownTheme)
  const next = theme === 'dark' ? 'light' : 'dark'
  const change = (): void => {
    chooseTheme(next)
    setTheme(next)
  }
  return <button type="button" onClick={change}>Theme: {theme}</button>
}

function Access() {
  const refused = useSyncExternalStore(onRefusal, isRefused)
  const queries = useQueryClient()
  if (!refused) return null
  const enter = (form: FormData): void => {
    keepToken(String(form.get('token')).trim())
    void queries.resetQueries()
  }
  return (
    <Dialog title="This server needs a token">
      <form action={enter}>
        <p>
          {token() === null
            ? 'Add one with flowkit token add NAME --role ROLE, and enter it here.'
            : 'The server does not accept the token of this tab. Enter another one.'}
          {' '}This browser tab keeps it until it is closed.
        </p>
        <label>Token <input name="token" type="password" autoComplete="off" required /></label>
        <div className="buttons"><button type="submit" className="main">Continue</button></div>
      </form>
    </Dialog>
  )
}
