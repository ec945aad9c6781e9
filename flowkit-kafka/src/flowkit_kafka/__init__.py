"""FlowKit's message bus on Apache Kafka."""

from flowkit_kafka._bus import KafkaBus
from flowkit_kafka._config import KafkaConfig

__all__ = ["KafkaBus", "KafkaConfig"]
