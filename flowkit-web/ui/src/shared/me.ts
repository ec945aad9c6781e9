/** The viewer as the server knows them, and what they may do. */

import { useQuery } from '@tanstack/react-query'
import { api } from '../api/client'
import type { Me } from '../api/types'

const ROLES = ['viewer', 'operator', 'admin'] as const

export function useMe(): Me | undefined {
  return useQuery({ queryKey: ['me'], queryFn: () => api.get<Me>('/me'), staleTime: 60_000 }).data
}

/** Return whether the viewer may use what needs a role. */
export function useMay(needed: Me['role']): boolean {
  const role = useMe()?.role
  return role !== undefined && ROLES.indexOf(role) >= ROLES.indexOf(needed)
}
