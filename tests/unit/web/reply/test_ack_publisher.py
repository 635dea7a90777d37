"""A front acknowledges the replies that it has received."""

from types import SimpleNamespace

import gevent
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.protocol.reply_acks import AckBatch
from tests.waiting import eventually
from web.reply.ack_publisher import AckPublisher


def test_acknowledgement_of_a_finished_reply_is_retried():
    published: list[bytes] = []

    def publish(channel: str, message: bytes) -> None:
        published.append(message)
        if len(published) == 1:
            raise RedisConnectionError("away")

    ack_publisher = AckPublisher(SimpleNamespace(publish=publish), "p")  # type: ignore[arg-type]
    greenlet = gevent.spawn(ack_publisher.run)
    ack_publisher.finish("req_1")
    eventually(lambda: len(published) == 2)
    assert [AckBatch.decode(message).finished for message in published] == [["req_1"], ["req_1"]]
    greenlet.kill()
