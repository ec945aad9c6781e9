/** Worker that groups and lays out graphs, so that the page stays fluid meanwhile. */

import { layOut, type LayoutRequest } from './layout'

self.onmessage = ({ data }: MessageEvent<LayoutRequest>) => {
  self.postMessage(layOut(data))
}
