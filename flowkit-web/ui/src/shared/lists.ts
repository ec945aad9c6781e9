/** Lists of the API: read again every few seconds, or read page by page while they are scrolled. */

import { useInfiniteQuery, useQuery } from '@tanstack/react-query'
import { useCallback, useMemo } from 'react'
import { api, type Query } from '../api/client'
import type { Page } from '../api/types'

export const EVERY_MS = 5_000
const PAGE = 100
/** Number of pages up to which a list is read again: its newest items are at its beginning. */
const RENEWED_PAGES = 2

/** Read something, and read it again every few seconds while the page is visible. */
export function useLive<T>(place: string, query: Query = {}) {
  return useQuery({
    queryKey: [place, query],
    queryFn: ({ signal }) => api.get<T>(place, query, signal),
    refetchInterval: EVERY_MS,
  })
}

/** Read a list page by page. `onEnd` reads the next one. */
export function usePages<T>(place: string, query: Query = {}) {
  const found = useInfiniteQuery({
    queryKey: [place, query],
    queryFn: ({ pageParam, signal }) =>
      api.get<Page<T>>(place, { ...query, limit: PAGE, after: pageParam }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next,
    refetchInterval: ({ state }) =>
      (state.data?.pages.length ?? 0) <= RENEWED_PAGES ? EVERY_MS : false,
  })
  const { data, error, hasNextPage, isFetching, fetchNextPage } = found
  const rows = useMemo(() => data?.pages.flatMap((page) => page.items), [data])
  const onEnd = useCallback(() => {
    if (hasNextPage && !isFetching) void fetchNextPage()
  }, [hasNextPage, isFetching, fetchNextPage])
  return { rows, error, onEnd, hasMore: hasNextPage }
}
