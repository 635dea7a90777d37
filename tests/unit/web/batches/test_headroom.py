"""Lines of batches use what interactive requests leave."""

import pytest

from web.batches.headroom import count_lines


@pytest.mark.parametrize(
    ("accounts", "current", "peak", "lines"),
    [
        (100, 0, 0, 200),
        (100, 20, 20, 80),
        # Between two requests the account stays free.
        (100, 0, 20, 80),
        # A burst keeps half of them free, while it lasts all that it uses.
        (100, 0, 90, 50),
        (100, 90, 90, 10),
        (100, 95, 95, 10),
        (100, 300, 300, 10),
        (24, 27, 27, 2),
        (2, 0, 1, 1),
        (1, 1, 1, 1),
        (1, 0, 1, 1),
        (0, 0, 0, 0),
        (0, 1, 1, 1),
    ],
)
def test_lines_in_flight_leave_accounts_to_interactive_requests(accounts: int, current: int, peak: int, lines: int):
    assert count_lines(accounts, current, peak) == lines
