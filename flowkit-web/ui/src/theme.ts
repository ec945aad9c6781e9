/** The theme of the page: that of the system, until the viewer chooses one. */

export type Theme = 'light' | 'dark'

const KEY = 'flowkit.theme'

export function shownTheme(): Theme {
  const chosen = localStorage.getItem(KEY)
  if (chosen === 'light' || chosen === 'dark') return chosen
  return window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'
}

export function chooseTheme(theme: Theme): void {
  localStorage.setItem(KEY, theme)
  showChosenTheme()
}

export function showChosenTheme(): void {
  document.documentElement.dataset['theme'] = shownTheme()
}
