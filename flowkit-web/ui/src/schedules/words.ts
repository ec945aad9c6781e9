/** A schedule in words. */

import type { ScheduleView } from '../api/types'
import { durationText } from '../shared/time'

type Schedule = ScheduleView['schedule']

export function patternText(schedule: Schedule): string {
  if (schedule.cron) return `${schedule.cron} (${schedule.timezone})`
  if (schedule.every_sec) return `every ${durationText(1_000 * schedule.every_sec)}`
  return 'once'
}
