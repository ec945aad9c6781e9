"""Error codes of MongoDB's servers that are handled in their own way.

A test reads the name of every code from a real server and compares: all codes are classified.
"""


def codes(text: str) -> frozenset[int]:
    """Return the numbers in a list of ``NUMBER NAME, …``."""
    return frozenset(int(item.split()[0]) for item in text.split(","))


PASSING_BY_SUBJECT = {
    "network and connections": codes("""
        6 HostUnreachable, 7 HostNotFound, 89 NetworkTimeout, 145 PooledConnectionsDropped,
        172 TransportSessionClosed, 173 TransportSessionNotFound, 174 TransportSessionUnknown,
        202 NetworkInterfaceExceededTimeLimit, 230 DNSHostNotFound, 279 ClientDisconnect,
        317 ConnectionPoolExpired, 384 ConnectionError, 9001 SocketException,
        46841 ClientMarkedKilled
    """),
    "start and shutdown": codes("""
        91 ShutdownInProgress, 94 NotYetInitialized, 310 PeriodicJobIsStopped,
        333 ServiceExecutorInShutdown, 11600 InterruptedAtShutdown
    """),
    "interruption of the operation": codes("""
        24 LockTimeout, 50 MaxTimeMSExpired, 90 CallbackCanceled, 175 QueryPlanKilled,
        237 CursorKilled, 248 ProducerConsumerQueueEndClosed, 262 ExceededTimeLimit,
        281 TransactionCoordinatorSteppingDown, 282 TransactionCoordinatorReachedAbortDecision,
        287 TransactionCoordinatorDeadlineTaskCanceled, 290 TransactionExceededLifetimeLimitSeconds,
        306 ReadThroughCacheLookupCanceled, 311 TransactionCoordinatorCanceled,
        312 OperationIsKilledAndDelisted, 337 AuthenticationAbandoned,
        355 InterruptedDueToStorageChange, 11601 Interrupted, 11602 InterruptedDueToReplStateChange
    """),
    "replica set: elections and the primary": codes("""
        64 WriteConcernFailed, 109 ConfigurationInProgress, 133 FailedToSatisfyReadPreference,
        134 ReadConcernMajorityNotAvailableYet, 135 StaleTerm, 187 LinearizableReadConcernError,
        189 PrimarySteppedDown, 190 MasterSlaveConnectionFailure, 199 ReplicaSetMonitorRemoved,
        209 StaleClusterTime, 211 KeyNotFound, 216 ElectionInProgress,
        289 WaitForMajorityServiceEarlierOpTimeAvailable, 308 CurrentConfigNotCommittedYet,
        10058 LegacyNotPrimary, 10107 NotWritablePrimary, 13435 NotPrimaryNoSecondaryOk,
        13436 NotPrimaryOrSecondary
    """),
    "locks, conflicts and load": codes("""
        46 LockBusy, 107 LockFailed, 112 WriteConflict, 117 ConflictingOperationInProgress,
        143 CursorInUse, 208 TooManyLocks, 215 DatabaseDropPending, 239 SnapshotTooOld,
        246 SnapshotUnavailable, 259 KeyedExecutorRetry, 261 TooManyLogicalSessions,
        264 TooManyFilesOpen, 276 IndexBuildAborted, 285 IndexBuildAlreadyInProgress,
        314 ObjectIsBusy, 365 TemporarilyUnavailable, 371 UserWritesBlocked,
        391 ReauthenticationRequired, 14031 OutOfDiskSpace
    """),
    "cursors and streams": codes("""
        43 CursorNotFound, 136 CappedPositionLost, 234 RetryChangeStream, 309 ExhaustCommandFinished
    """),
    "sharding and migration": codes("""
        83 RemoteResultsUnavailable, 149 NoConfigPrimary, 150 StaleEpoch, 194 BalancerInterrupted,
        200 ChunkRangeCleanupPending, 203 ShardingStateNotInitialized, 250 StaleChunkHistory,
        272 MigrationConflict, 319 MovePrimaryInProgress, 325 TenantMigrationAborted,
        328 TenantMigrationAccessBlockerShuttingDown, 329 TenantMigrationInProgress,
        342 ReshardingCriticalSectionTimeout, 360 ShardVersionRefreshCanceled,
        379 DatabaseMetadataRefreshCanceled, 13388 StaleConfig
    """),
    "sessions and transactions": codes("""
        206 NoSuchSession, 267 PreparedTransactionInProgress, 358 InternalTransactionNotSupported,
        363 RetryableTransactionInProgress, 374 TransactionAPIMustRetryTransaction,
        375 TransactionAPIMustRetryCommit
    """),
}

PASSING = frozenset[int]().union(*PASSING_BY_SUBJECT.values())
"""Codes of faults that pass: the operation may succeed when it is repeated."""

TOO_LARGE = codes("""
    116 DocTooLargeForCapped, 10003 CannotGrowDocumentInCappedNamespace, 10334 BSONObjectTooLarge,
    17419 AnUpdateMadeItTooLarge, 17420 AnInsertMadeItTooLarge
""")
"""Codes of a document that is above a limit, or that an update would make so."""

DUPLICATE_KEY = 11000
