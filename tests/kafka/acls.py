"""Access rules on a real broker; aiokafka has no call for them."""

from collections.abc import Iterable

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String

OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
"""Kafka's numbers for the operations that our rules name."""

Rule = tuple[str, str, str]
"""User, topic, operation."""


class CreateAclsResponse(Response):
    API_KEY = 30
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32), ("results", Array(("error_code", Int16), ("error_message", String("utf-8"))))
    )


class CreateAclsRequestV1(RequestStruct):
    API_KEY = 30
    API_VERSION = 1
    RESPONSE_TYPE = CreateAclsResponse
    SCHEMA = Schema(
        (
            "creations",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                ("pattern_type", Int8),
                ("principal", String("utf-8")),
                ("host", String("utf-8")),
                ("operation", Int8),
                ("permission", Int8),
            ),
        )
    )


class CreateAcls(Request[CreateAclsRequestV1]):
    """Rules that each let one user do one thing with one topic."""

    API_KEY = 30

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = [(2, topic, 3, f"User:{user}", "*", OPERATIONS[operation], 3) for user, topic, operation in rules]

    def build(self, request_struct_class: type[CreateAclsRequestV1]) -> CreateAclsRequestV1:
        return request_struct_class(self._rules)


async def allow(bootstrap: str, rules: Iterable[Rule]) -> None:
    """Let the rules hold from now on; whoever has no rule for a topic that has one is shut out."""
    admin = AIOKafkaClient(bootstrap_servers=bootstrap)
    await admin.bootstrap()
    try:
        answer = await admin.send(admin.get_random_node(), CreateAcls(rules))
        assert {code for code, _ in answer.results} == {0}
    finally:
        await admin.close()
