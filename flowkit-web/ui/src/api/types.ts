import type { components, operations } from './schema'

type Schemas = components['schemas']

export type Approval = Schemas['Approval']
export type Artifact = Schemas['Artifact']
export type BatchTimes = Schemas['BatchTimes']
export type BulkResult = Schemas['BulkResult']
export type Created = Schemas['Created']
export type FlowInfo = Schemas['FlowInfo']
export type FlowVersion = Schemas['FlowVersion']
export type TaskActionList = Schemas['TaskActions']
export type TaskAction = TaskActionList['actions'][number]
export type NodeActionList = Schemas['NodeActions']
export type NodeAction = NodeActionList['actions'][number]
export type Letter = Schemas['Letter']
export type LetterKind =
  NonNullable<NonNullable<operations['list_letters']['parameters']['query']>['kind']>
export type LogLine = Schemas['LogLine']
export type Me = Schemas['Me']
export type NextTimes = Schemas['NextTimes']
export type NodeStatus = Schemas['NodeStatus']
export type NodeView = Schemas['NodeView']
export type Problem = Schemas['ProblemDocument']
export type RetriedLetter = Schemas['RetriedLetter']
export type ScheduleView = Schemas['ScheduleView']
export type Stats = Schemas['Stats']
export type TaskStatus = Schemas['TaskStatus']
export type TaskView = Schemas['TaskView']
export type TriggerView = Schemas['TriggerView']
export type WaitingFor = NonNullable<Schemas['TasksFilter']['waiting']>
export type WorkerView = Schemas['WorkerView']

export interface Page<T> {
  items: T[]
  next: string | null
}

/** A change of a task or of one of its nodes, as the stream of events sends it. */
export interface TaskEvent {
  seq: number
  at: string
  task_id: string
  node_id: string | null
  kind: string
  status: string | null
  data: unknown
}
