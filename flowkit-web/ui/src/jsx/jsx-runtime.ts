/** JSX of the page, which makes all text that elements show printable. */

import * as react from 'react/jsx-runtime'
import { withPrintableText } from './printable-text'

export { Fragment } from 'react/jsx-runtime'
export type { JSX } from 'react/jsx-runtime'

export const jsx: typeof react.jsx = (type, props, key) => react.jsx(type, withPrintableText(type, props), key)
export const jsxs: typeof react.jsxs = (type, props, key) => react.jsxs(type, withPrintableText(type, props), key)
