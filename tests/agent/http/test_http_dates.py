"""Dates of answers are what the standard library's mail module writes."""

from __future__ import annotations

import random
import time
from email.utils import formatdate, parsedate_to_datetime

from edge_agent.doors.http.dates import http_date

SEED = 9110


def test_a_date_is_as_the_standard_library_writes_it() -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    moments = [0, 951782400, 4102444799, *(draw.randrange(2**33) for _ in range(2000))]
    for at_s in moments:
        assert http_date(at_s) == formatdate(at_s, usegmt=True)


def test_an_answer_is_dated_by_the_wall_clock(client) -> None:
    before = int(time.time())
    answer = client.ask("GET", "/v2/health/live")
    after = int(time.time())
    dated = parsedate_to_datetime(answer.headers["date"]).timestamp()
    assert before - 2 <= dated <= after  # a head is made once a second
