"""As many batches may await a reply as the process can serve in one round trip, however busy either side is."""

from shared.redis_connection.in_flight_limit import MIN_BATCHES, WINDOW_SECONDS, InFlightLimit


class Process:
    """A process whose batches cost CPU time, and its limit."""

    def __init__(self) -> None:
        self.cpu_seconds = self.now = 0.0
        self.limit = InFlightLimit(cpu_clock=lambda: self.cpu_seconds)

    def learn(self, *round_trips: float, cost: float = 0.0, is_piggyback: bool = False) -> int:
        for seconds in round_trips:
            self.now += 0.01
            self.cpu_seconds += cost
            self.limit.record(seconds, self.now, is_piggyback=is_piggyback)
        return self.limit.value

    def learn_cost(self, cost: float, round_trip: float) -> int:
        """Batches of this cost fill the rest of a window and the next one; the round trip is known in both."""
        return self.learn(*[round_trip] * int(3 * WINDOW_SECONDS / 0.01), cost=cost)


def test_redis_nearby_gets_one_at_a_time_even_if_it_is_slow_now_and_then():
    assert Process().learn(0.0002, 0.3, 0.0002, 0.05) == 1


def test_distant_redis_gets_many():
    assert Process().learn(0.005, 0.0051, 0.2) == 10
    assert Process().learn(0.02, 0.3) == 40
    assert Process().learn(0.3) == 600


def test_process_that_begins_jobs_faster_has_more_on_their_way():
    assert Process().learn_cost(0.0005, round_trip=0.02) == 160
    assert Process().learn_cost(0.004, round_trip=0.02) == 20


def test_redis_is_nearby_if_its_reply_comes_sooner_than_a_job_is_begun():
    process = Process()
    assert process.learn_cost(0.0005, round_trip=0.002) == 16
    assert process.limit.is_distant
    assert process.learn_cost(0.004, round_trip=0.001) == 1
    assert not process.limit.is_distant


def test_what_a_quiet_process_does_beside_does_not_count_as_the_cost_of_a_batch():
    process = Process()
    process.learn_cost(0.002, round_trip=0.02)
    for _ in range(3):
        process.now += WINDOW_SECONDS
        process.learn(*[0.02] * (MIN_BATCHES // 2))
        process.cpu_seconds += 5
    process.now += 60
    process.cpu_seconds += 10
    assert process.learn(*[0.02] * (MIN_BATCHES + 1), cost=0.002) == 40


def test_piggyback_batches_cost_what_those_before_them_were_for():
    process = Process()
    for _ in range(int(3 * WINDOW_SECONDS / 0.02)):
        process.learn(0.02, cost=0.002)
        process.learn(0.02, cost=0.002, is_piggyback=True)
    assert process.limit.value == 20


def test_another_distance_is_learnt_within_two_windows():
    process = Process()
    process.learn(0.0002)
    process.now = WINDOW_SECONDS + 1
    assert process.learn(0.005) == 1
    process.now = 2 * WINDOW_SECONDS + 2
    assert process.learn(0.005) == 10
    assert process.learn(0.0002) == 1


def test_new_connection_forgets_the_distance_of_the_last():
    process = Process()
    process.learn(0.0002)
    process.limit.forget()
    assert process.learn(0.02) == 40


def test_batches_wait_for_each_other_only_nearby():
    process = Process()
    assert not process.limit.is_distant
    process.learn(0.0008)
    assert not process.limit.is_distant
    process.limit.forget()
    process.learn(0.002)
    assert process.limit.is_distant
