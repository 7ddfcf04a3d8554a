"""Put every record of a topic into it once more, as a producer does that repeats itself."""

from __future__ import annotations

from confluent_kafka import KafkaException, Producer

from tests.kafka_reader import read_topic


def send_again(servers: str, topic: str) -> int:
    """So many records were sent again; none when there is no such topic yet."""
    try:
        found = read_topic(servers, topic)
    except (KeyError, KafkaException):
        return 0
    once = {(read.key, read.value, read.headers): read for read in found}
    producer = Producer({"bootstrap.servers": servers})
    for read in once.values():
        producer.produce(topic, read.value, key=read.key, headers=list(read.headers))
    assert producer.flush(30) == 0
    return len(once)
