/** The same as `jsx-runtime`, for `npm run dev` and the unit tests. */

import * as react from 'react/jsx-dev-runtime'
import { withPrintableText } from './printable-text'

export { Fragment } from 'react/jsx-dev-runtime'
export type { JSX } from 'react/jsx-dev-runtime'

export const jsxDEV: typeof react.jsxDEV = (type, props, ...more) =>
  react.jsxDEV(type, withPrintableText(type, props), ...more)
