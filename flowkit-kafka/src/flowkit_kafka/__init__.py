"""FlowKit's message bus on Apache Kafka."""

from flowkit_kafka.bus import KafkaBus
from flowkit_kafka.config import KafkaConfig

__all__ = ["KafkaBus", "KafkaConfig"]
