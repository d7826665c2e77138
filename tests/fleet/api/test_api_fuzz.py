"""Requests drawn from the service's own description: each answer is as described, none a fault.

CI draws a few of each path from a new seed; ``EDGE_FUZZ_EXAMPLES=500`` before pytest draws more.
"""

import contextlib
import os

import pytest
import schemathesis
from api_kit import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

EXAMPLES = int(os.environ.get("EDGE_FUZZ_EXAMPLES", "8"))
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_whatever_is_asked_the_answer_is_as_described(
    client: Client, seed: int, mode: GenerationMode
) -> None:
    asking = client("admin")
    schema = schemathesis.openapi.from_dict(asking.get("/openapi.json").json())
    operations = [found.ok() for found in schema.get_all_operations()]
    operations = [each for each in operations if not each.path.endswith("/stream")]
    assert len(operations) > 15
    statuses: set[int] = set()
    asked = 0

    for operation in operations:

        @seeded(seed)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def one(case: schemathesis.Case) -> None:
            case.headers["Authorization"] = asking.headers["authorization"]
            response = case.call(base_url=str(asking.base_url), timeout=60)
            statuses.add(response.status_code)
            case.validate_response(response, checks=CHECKS)

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong with no parameters
            one()
            asked += 1
    assert asked > 10
    print(sorted(statuses))
    assert mode is GenerationMode.NEGATIVE or 401 not in statuses
    assert (200 if mode is GenerationMode.POSITIVE else 422) in statuses
    assert statuses & {400, 404, 422}
