"""As many batches may await a reply as the way to Redis takes long, however busy either side is."""

from shared.redis_connection.in_flight_limit import WINDOW_SECONDS, InFlightLimit


def learn(limit: InFlightLimit, round_trips: list[float], since: float = 0.0) -> int:
    for number, seconds in enumerate(round_trips):
        limit.record(seconds, since + number * 0.01)
    return limit.value


def test_redis_nearby_gets_one_at_a_time_even_if_it_is_slow_now_and_then():
    assert learn(InFlightLimit(), [0.0002, 0.3, 0.0002, 0.05]) == 1


def test_distant_redis_gets_many():
    assert learn(InFlightLimit(), [0.005, 0.0051, 0.2]) == 10
    assert learn(InFlightLimit(), [0.02, 0.3]) == 40
    assert learn(InFlightLimit(), [0.3]) == 600


def test_another_distance_is_learnt_within_two_windows():
    limit = InFlightLimit()
    learn(limit, [0.0002])
    assert learn(limit, [0.005], since=WINDOW_SECONDS + 1) == 1
    assert learn(limit, [0.005], since=2 * WINDOW_SECONDS + 2) == 10
    assert learn(limit, [0.0002], since=2 * WINDOW_SECONDS + 3) == 1


def test_new_connection_forgets_the_distance_of_the_last():
    limit = InFlightLimit()
    learn(limit, [0.0002])
    limit.forget()
    assert learn(limit, [0.02], since=0.1) == 40


def test_batches_wait_for_each_other_only_nearby():
    limit = InFlightLimit()
    assert not limit.is_distant
    learn(limit, [0.0008])
    assert not limit.is_distant
    limit.forget()
    learn(limit, [0.002])
    assert limit.is_distant
