"""The error codes of MongoDB's servers, by what an operation that met one can expect: data.

A test asks a real server for the name of every code and compares: none is missing here.
"""


def _codes(text: str) -> frozenset[int]:
    """The numbers in a list of ``NUMBER NAME, …``."""
    return frozenset(int(item.split()[0]) for item in text.split(","))


PASSING = _codes("""
    6 HostUnreachable, 7 HostNotFound, 24 LockTimeout, 43 CursorNotFound, 46 LockBusy, 50 MaxTimeMSExpired, 64 WriteConcernFailed,
    83 RemoteResultsUnavailable, 89 NetworkTimeout, 90 CallbackCanceled, 91 ShutdownInProgress, 94 NotYetInitialized, 107 LockFailed,
    109 ConfigurationInProgress, 112 WriteConflict, 117 ConflictingOperationInProgress, 133 FailedToSatisfyReadPreference,
    134 ReadConcernMajorityNotAvailableYet, 135 StaleTerm, 136 CappedPositionLost, 143 CursorInUse, 145 PooledConnectionsDropped,
    149 NoConfigPrimary, 150 StaleEpoch, 172 TransportSessionClosed, 173 TransportSessionNotFound, 174 TransportSessionUnknown,
    175 QueryPlanKilled, 187 LinearizableReadConcernError, 189 PrimarySteppedDown, 190 MasterSlaveConnectionFailure,
    194 BalancerInterrupted, 199 ReplicaSetMonitorRemoved, 200 ChunkRangeCleanupPending, 202 NetworkInterfaceExceededTimeLimit,
    203 ShardingStateNotInitialized, 206 NoSuchSession, 208 TooManyLocks, 209 StaleClusterTime, 211 KeyNotFound, 215 DatabaseDropPending,
    216 ElectionInProgress, 230 DNSHostNotFound, 234 RetryChangeStream, 237 CursorKilled, 239 SnapshotTooOld, 246 SnapshotUnavailable,
    248 ProducerConsumerQueueEndClosed, 250 StaleChunkHistory, 259 KeyedExecutorRetry, 261 TooManyLogicalSessions, 262 ExceededTimeLimit,
    264 TooManyFilesOpen, 267 PreparedTransactionInProgress, 272 MigrationConflict, 276 IndexBuildAborted, 279 ClientDisconnect,
    281 TransactionCoordinatorSteppingDown, 282 TransactionCoordinatorReachedAbortDecision, 285 IndexBuildAlreadyInProgress,
    287 TransactionCoordinatorDeadlineTaskCanceled, 289 WaitForMajorityServiceEarlierOpTimeAvailable,
    290 TransactionExceededLifetimeLimitSeconds, 306 ReadThroughCacheLookupCanceled, 308 CurrentConfigNotCommittedYet,
    309 ExhaustCommandFinished, 310 PeriodicJobIsStopped, 311 TransactionCoordinatorCanceled, 312 OperationIsKilledAndDelisted,
    314 ObjectIsBusy, 317 ConnectionPoolExpired, 319 MovePrimaryInProgress, 325 TenantMigrationAborted,
    328 TenantMigrationAccessBlockerShuttingDown, 329 TenantMigrationInProgress, 333 ServiceExecutorInShutdown,
    337 AuthenticationAbandoned, 342 ReshardingCriticalSectionTimeout, 355 InterruptedDueToStorageChange,
    358 InternalTransactionNotSupported, 360 ShardVersionRefreshCanceled, 363 RetryableTransactionInProgress, 365 TemporarilyUnavailable,
    371 UserWritesBlocked, 374 TransactionAPIMustRetryTransaction, 375 TransactionAPIMustRetryCommit,
    379 DatabaseMetadataRefreshCanceled, 384 ConnectionError, 391 ReauthenticationRequired, 9001 SocketException, 10058 LegacyNotPrimary,
    10107 NotWritablePrimary, 11600 InterruptedAtShutdown, 11601 Interrupted, 11602 InterruptedDueToReplStateChange, 13388 StaleConfig,
    13435 NotPrimaryNoSecondaryOk, 13436 NotPrimaryOrSecondary, 14031 OutOfDiskSpace, 46841 ClientMarkedKilled
""")
"""The operation may succeed when it is repeated: a server is away, busy, starting, stopping or
electing.
"""

TOO_LARGE = _codes("""
    116 DocTooLargeForCapped, 10003 CannotGrowDocumentInCappedNamespace, 10334 BSONObjectTooLarge, 17419 AnUpdateMadeItTooLarge,
    17420 AnInsertMadeItTooLarge
""")
"""The document, or what an update would make of it, is above a limit."""

DUPLICATE_KEY = 11000

LASTING = _codes("""
    1 InternalError, 2 BadValue, 3 OBSOLETE_DuplicateKey, 4 NoSuchKey, 5 GraphContainsCycle, 8 UnknownError, 9 FailedToParse,
    10 CannotMutateObject, 11 UserNotFound, 12 UnsupportedFormat, 13 Unauthorized, 14 TypeMismatch, 15 Overflow, 16 InvalidLength,
    17 ProtocolError, 18 AuthenticationFailed, 19 CannotReuseObject, 20 IllegalOperation, 21 EmptyArrayOperation, 22 InvalidBSON,
    23 AlreadyInitialized, 25 RemoteValidationError, 26 NamespaceNotFound, 27 IndexNotFound, 28 PathNotViable, 29 NonExistentPath,
    30 InvalidPath, 31 RoleNotFound, 32 RolesNotRelated, 33 PrivilegeNotFound, 34 CannotBackfillArray, 35 UserModificationFailed,
    36 RemoteChangeDetected, 37 FileRenameFailed, 38 FileNotOpen, 39 FileStreamFailed, 40 ConflictingUpdateOperators, 41 FileAlreadyOpen,
    42 LogWriteFailed, 45 UserDataInconsistent, 47 NoMatchingDocument, 48 NamespaceExists, 49 InvalidRoleModification,
    51 ManualInterventionRequired, 52 DollarPrefixedFieldName, 53 InvalidIdField, 54 NotSingleValueField, 55 InvalidDBRef,
    56 EmptyFieldName, 57 DottedFieldName, 58 RoleModificationFailed, 59 CommandNotFound, 60 OBSOLETE_DatabaseNotFound,
    61 ShardKeyNotFound, 62 OplogOperationUnsupported, 63 OBSOLETE_StaleShardVersion, 66 ImmutableField, 67 CannotCreateIndex,
    68 IndexAlreadyExists, 69 AuthSchemaIncompatible, 70 ShardNotFound, 71 ReplicaSetNotFound, 72 InvalidOptions, 73 InvalidNamespace,
    74 NodeNotFound, 75 WriteConcernLegacyOK, 76 NoReplicationEnabled, 77 OperationIncomplete, 78 CommandResultSchemaViolation,
    79 UnknownReplWriteConcern, 80 RoleDataInconsistent, 81 NoMatchParseContext, 82 NoProgressMade, 84 OBSOLETE_DuplicateKeyValue,
    85 IndexOptionsConflict, 86 IndexKeySpecsConflict, 87 CannotSplit, 88 OBSOLETE_SplitFailed, 92 OBSOLETE_ReplicaSetMonitor,
    93 InvalidReplicaSetConfig, 95 NotSecondary, 96 OperationFailed, 97 NoProjectionFound, 98 DBPathInUse, 100 UnsatisfiableWriteConcern,
    101 OutdatedClient, 102 IncompatibleAuditMetadata, 103 NewReplicaSetConfigurationIncompatible, 104 NodeNotElectable,
    105 IncompatibleShardingMetadata, 106 DistributedClockSkewed, 108 InconsistentReplicaSetNames, 110 CannotInitializeNodeWithData,
    111 NotExactValueField, 113 InitialSyncFailure, 114 InitialSyncOplogSourceMissing, 115 CommandNotSupported, 118 NamespaceNotSharded,
    119 InvalidSyncSource, 120 OplogStartMissing, 122 OBSOLETE_ReadAfterOptimeTimeout, 123 NotAReplicaSet,
    124 IncompatibleElectionProtocol, 125 CommandFailed, 126 RPCProtocolNegotiationFailed, 127 UnrecoverableRollbackError,
    128 LockNotFound, 129 LockStateChangeFailed, 130 SymbolNotFound, 132 OBSOLETE_ConfigServersInconsistent,
    137 IncompatibleShardingConfigVersion, 138 RemoteOplogStale, 139 JSInterpreterFailure, 140 InvalidSSLConfiguration,
    141 SSLHandshakeFailed, 142 JSUncatchableError, 144 IncompatibleCatalogManager, 146 ExceededMemoryLimit, 147 ZLibError,
    148 ReadConcernMajorityNotEnabled, 151 OperationCannotBeBatched, 152 OplogOutOfOrder, 153 ChunkTooBig, 154 InconsistentShardIdentity,
    155 CannotApplyOplogWhilePrimary, 156 OBSOLETE_NeedsDocumentMove, 157 CanRepairToDowngrade, 158 MustUpgrade, 159 DurationOverflow,
    160 MaxStalenessOutOfRange, 161 IncompatibleCollationVersion, 162 CollectionIsEmpty, 163 ZoneStillInUse, 164 InitialSyncActive,
    165 ViewDepthLimitExceeded, 166 CommandNotSupportedOnView, 167 OptionNotSupportedOnView, 168 InvalidPipelineOperator,
    170 TooManyMatchingDocuments, 171 CannotIndexParallelArrays, 176 FileOpenFailed, 177 ZoneNotFound, 178 RangeOverlapConflict,
    179 WindowsPdhError, 180 BadPerfCounterPath, 181 AmbiguousIndexKeyPattern, 182 InvalidViewDefinition, 183 ClientMetadataMissingField,
    184 ClientMetadataAppNameTooLarge, 185 ClientMetadataDocumentTooLarge, 186 ClientMetadataCannotBeMutated,
    188 IncompatibleServerVersion, 191 OBSOLETE_BalancerLostDistributedLock, 192 FailPointEnabled, 193 NoShardingEnabled,
    195 ViewPipelineMaxSizeExceeded, 197 InvalidIndexSpecificationOption, 198 OBSOLETE_ReceivedOpReplyMessage, 201 CannotBuildIndexKeys,
    204 TimeProofMismatch, 205 ClusterTimeFailsRateLimiter, 207 InvalidUUID, 210 CannotVerifyAndSignLogicalTime,
    212 IncompatibleRollbackAlgorithm, 213 DuplicateSession, 214 AuthenticationRestrictionUnmet, 217 IncompleteTransactionHistory,
    218 UpdateOperationFailed, 219 FTDCPathNotSet, 220 FTDCPathAlreadySet, 221 IndexModified, 222 CloseChangeStream,
    223 IllegalOpMsgFlag, 224 QueryFeatureNotAllowed, 225 TransactionTooOld, 226 AtomicityFailure, 228 SessionTransferIncomplete,
    229 MustDowngrade, 231 DNSProtocolError, 232 MaxSubPipelineDepthExceeded, 233 TooManyDocumentSequences,
    235 InternalErrorNotSupported, 238 NotImplemented, 240 DNSRecordTypeMismatch, 241 ConversionFailure, 242 CannotCreateCollection,
    243 IncompatibleWithUpgradedServer, 244 NOT_YET_AVAILABLE_TransactionAborted, 245 BrokenPromise,
    247 ProducerConsumerQueueBatchTooLarge, 251 NoSuchTransaction, 252 ReentrancyNotAllowed, 253 FreeMonHttpInFlight,
    254 FreeMonHttpTemporaryFailure, 255 FreeMonHttpPermanentFailure, 256 TransactionCommitted, 257 TransactionTooLarge,
    258 UnknownFeatureCompatibilityVersion, 260 InvalidResumeToken, 263 OperationNotSupportedInTransaction,
    265 OrphanedRangeCleanUpFailed, 266 FailPointSetFailed, 268 CannotBackup, 269 DataModifiedByRepair, 270 RepairedReplicaSetNode,
    273 ProducerConsumerQueueProducerQueueDepthExceeded, 274 ProducerConsumerQueueConsumed, 275 ExchangePassthrough,
    277 AlarmAlreadyFulfilled, 278 UnsatisfiableCommitQuorum, 280 ChangeStreamFatalError, 286 ChangeStreamHistoryLost,
    288 ChecksumMismatch, 291 NoQueryExecutionPlans, 292 QueryExceededMemoryLimitNoDiskUseAllowed, 293 InvalidSeedList,
    294 InvalidTopologyType, 295 InvalidHeartBeatFrequency, 296 TopologySetNameRequired, 297 HierarchicalAcquisitionLevelViolation,
    298 InvalidServerType, 299 OCSPCertificateStatusRevoked, 300 RangeDeletionAbandonedBecauseCollectionWithUUIDDoesNotExist,
    301 DataCorruptionDetected, 302 OCSPCertificateStatusUnknown, 307 RangeDeletionAbandonedBecauseTaskDocumentDoesNotExist,
    313 ResumableRangeDeleterDisabled, 315 TooStaleToSyncFromSource, 316 QueryTrialRunCompleted, 318 ForTestingOptionalErrorExtraInfo,
    321 TenantMigrationCommitted, 322 APIVersionError, 323 APIStrictError, 324 APIDeprecationError, 326 OplogQueryMinTsMissing,
    327 NoSuchTenantMigration, 331 FailedToRunWithReplyBuilder, 332 CannotDowngrade, 334 MechanismUnavailable,
    335 TenantMigrationForgotten, 336 TimeseriesBucketCleared, 338 ReshardCollectionInProgress, 339 NoSuchReshardCollection,
    340 ReshardCollectionCommitted, 341 ReshardCollectionAborted, 344 AuditingNotEnabled, 345 RuntimeAuditConfigurationNotEnabled,
    347 APIMismatchError, 349 KeyPatternShorterThanBound, 350 ReshardCollectionTruncatedError, 352 UnsupportedOpQueryCommand,
    357 InvalidBSONType, 362 FutureAlreadyRetrieved, 364 TxnRetryCounterNotSupported, 366 WouldChangeOwningShardDeletedNoDocument,
    367 FLECompactionPlaceholder, 369 FLETransactionAbort, 370 CannotDropShardKeyIndex, 373 InternalTransactionsExhaustiveFindHasMore,
    377 FLEMaxTagLimitExceeded, 388 TransactionTooLargeForCache, 13297 DatabaseDifferCase, 17280 OBSOLETE_KeyTooLong
""")
"""The operation will fail again: a document, an argument, a right or the configuration forbids it.
So does any code that is in no table.
"""
