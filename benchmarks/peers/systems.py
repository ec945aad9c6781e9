"""The systems that are compared, and what a result of each survives as it is configured here."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class System:
    """A system on the servers that it uses."""

    name: str
    title: str
    module: str
    """Module of this package that opens it."""
    packages: tuple[str, ...]
    """Distributions whose versions the page shows; the first is the system's own."""
    services: tuple[str, ...]
    worker_killed: str
    """Fate of a step whose worker is killed."""
    power_cut: str
    next_step: str
    """The place where it is written which step is due next."""
    lacks: frozenset[str] = frozenset()
    """Workloads that it cannot run."""

    @property
    def ours(self) -> bool:
        return self.packages[0] == "flowkit-core"


FILE_SYNCED = "nothing: Redis syncs each write before it answers"
CONFIRMED = "nothing: RabbitMQ confirms what is on the disk, and Redis syncs each write"
COMMITS_SYNCED = "nothing: each commit is synced"
IN_MESSAGES = "the message of the step before; a counter in Redis for a fan"
IN_CODE = "stored results of steps; the function of the workflow runs again over them"

SYSTEMS = {
    system.name: system
    for system in (
        System(
            name="flowkit-servers",
            title="FlowKit, Kafka and MongoDB",
            module="flowkit_graphs",
            packages=("flowkit-core", "aiokafka", "pymongo"),
            services=("kafka", "mongo"),
            worker_killed="it runs again after 20 s without a heartbeat",
            power_cut="nothing: each commit is journalled, and messages are only hints",
            next_step="the store",
        ),
        System(
            name="flowkit-sqlite",
            title="FlowKit, SQLite",
            module="flowkit_graphs",
            packages=("flowkit-core",),
            services=(),
            worker_killed="it runs again after 20 s without a heartbeat",
            power_cut=COMMITS_SYNCED,
            next_step="the store",
        ),
        System(
            name="flowkit-memory",
            title="FlowKit, in memory",
            module="flowkit_graphs",
            packages=("flowkit-core",),
            services=(),
            worker_killed="it is lost with the process",
            power_cut="everything",
            next_step="memory",
        ),
        System(
            name="celery-redis",
            title="Celery, Redis",
            module="celery_tasks",
            packages=("celery", "redis"),
            services=("redis",),
            worker_killed="it runs again at once; after an hour if the main process dies, too",
            power_cut=FILE_SYNCED,
            next_step=IN_MESSAGES,
        ),
        System(
            name="celery-rabbitmq",
            title="Celery, RabbitMQ and Redis",
            module="celery_tasks",
            packages=("celery", "amqp", "redis"),
            services=("rabbitmq", "redis"),
            worker_killed="it runs again at once",
            power_cut=CONFIRMED,
            next_step=IN_MESSAGES,
        ),
        System(
            name="dramatiq-redis",
            title="Dramatiq, Redis",
            module="dramatiq_actors",
            packages=("dramatiq", "redis"),
            services=("redis",),
            worker_killed="it runs again after a minute or more",
            power_cut=FILE_SYNCED,
            next_step=IN_MESSAGES,
        ),
        System(
            name="dramatiq-rabbitmq",
            title="Dramatiq, RabbitMQ and Redis",
            module="dramatiq_actors",
            packages=("dramatiq", "pika", "redis"),
            services=("rabbitmq", "redis"),
            worker_killed="it runs again at once",
            power_cut=CONFIRMED,
            next_step=IN_MESSAGES,
        ),
        System(
            name="taskiq-redis",
            title="Taskiq, Redis",
            module="taskiq_tasks",
            packages=("taskiq", "taskiq-redis", "taskiq-pipelines"),
            services=("redis",),
            worker_killed="it runs again after ten minutes",
            power_cut=FILE_SYNCED,
            next_step="the message of the step before; the client's memory for a fan",
        ),
        System(
            name="arq",
            title="arq, Redis",
            module="arq_jobs",
            packages=("arq", "redis"),
            services=("redis",),
            worker_killed="it runs again after five minutes",
            power_cut=FILE_SYNCED,
            next_step="the client's memory",
        ),
        System(
            name="dbos-sqlite",
            title="DBOS, SQLite",
            module="dbos_workflows",
            packages=("dbos", "sqlalchemy"),
            services=(),
            worker_killed="it runs again when the process starts again",
            power_cut=COMMITS_SYNCED,
            next_step=IN_CODE,
        ),
        System(
            name="dbos-postgres",
            title="DBOS, Postgres",
            module="dbos_workflows",
            packages=("dbos", "sqlalchemy", "psycopg"),
            services=("postgres",),
            worker_killed="it runs again when the process starts again",
            power_cut=COMMITS_SYNCED,
            next_step=IN_CODE,
        ),
        System(
            name="temporal",
            title="Temporal, Postgres",
            module="temporal_session",
            packages=("temporalio",),
            services=("temporal",),
            worker_killed="it runs again after its timeout (here a minute)",
            power_cut=COMMITS_SYNCED,
            next_step="the history of the workflow; its function runs again over it",
            # A workflow may have 2,000 activities at once.
            lacks=frozenset({"fan-10000"}),
        ),
        System(
            name="bare-loop",
            title="bare loop, Kafka and MongoDB",
            module="flowkit_graphs",
            packages=("aiokafka", "pymongo"),
            services=("kafka", "mongo"),
            worker_killed="the flow stops",
            power_cut="the flow stops",
            next_step="memory",
            lacks=frozenset({"stream"}),
        ),
    )
}
"""In the order of the tables."""
