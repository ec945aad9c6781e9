import { renderToStaticMarkup } from 'react-dom/server'
import { expect, test } from 'vitest'

const ODD = 'a\u202eb\x1bc'
const ESCAPED = 'a\\u202eb\\u001bc'

test('text, titles and names of elements are printable, at any depth', () => {
  expect(renderToStaticMarkup(
    <p title={ODD} aria-label={ODD}>{ODD} and {[ODD, [ODD]]}<><b>{`${ODD}!`}</b></></p>,
  )).toBe(`<p title="${ESCAPED}" aria-label="${ESCAPED}">${ESCAPED} and ${ESCAPED}${ESCAPED}<b>${ESCAPED}!</b></p>`)
})

test('values of fields, addresses and props of components stay exact', () => {
  const Length = ({ title }: { title: string }) => <i>{title.length}</i>
  expect(renderToStaticMarkup(
    <><input defaultValue={ODD} /><a href={`#${ODD}`}>{ODD}</a><Length title={ODD} /></>,
  )).toBe(`<input value="${ODD}"/><a href="#${ODD}">${ESCAPED}</a><i>${ODD.length}</i>`)
})
