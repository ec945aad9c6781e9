import { renderToStaticMarkup } from 'react-dom/server'
import { expect, test } from 'vitest'
import { Explanation } from './explanation'

test('times of an explanation are times of the page, and commands are code', () => {
  const text = "node 'a' sleeps until 2026-01-31T14:05:09+00:00. Start `flowkit coordinator`."
  const shown = renderToStaticMarkup(<Explanation text={text} />)
  expect(shown).toMatch(/^node &#x27;a&#x27; sleeps until <time dateTime="2026-01-31T14:05:09\+00:00"[^>]*>2026-0[12]-\d\d \d\d:05:09<\/time>\./i)
  expect(shown).toContain('Start <code>flowkit coordinator</code>.')
})
