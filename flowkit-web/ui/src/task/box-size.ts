/** Size of a box in pixels. The page needs it without the library of the layout. */

export const BOX_WIDTH = 196
export const BOX_HEIGHT = 58
