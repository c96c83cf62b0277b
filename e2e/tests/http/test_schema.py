"""`/openapi.json`: what the server says of itself, and whether it keeps to it under requests made from it."""

import json
import re

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)

from conftest import API_KEYS, Server

EXAMPLES_MAX = 25
# What a request costs is not what is tested here: none may ask for more than a few tokens.
TOKENS_MAX = 4
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

BOUNDED = settings(
    max_examples=EXAMPLES_MAX,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def operations(server: Server) -> list[schemathesis.schemas.APIOperation]:
    """Every operation of the schema as served; loading it fails where it is no OpenAPI."""
    generation = GenerationConfig(modes=[GenerationMode.POSITIVE], allow_x00=False)
    # A schema cannot say what the context holds, or what a template makes of a message.
    checks = ChecksConfig(positive_data_acceptance=PositiveDataAcceptanceConfig(enabled=False))
    project = ProjectConfig(generation=generation, checks=checks)
    config = SchemathesisConfig(projects=ProjectsConfig(default=project))
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=config)
    return [found.ok() for found in schema.get_all_operations()]


def faults(operation: schemathesis.schemas.APIOperation) -> str | None:
    """The first request that the server answers with a 5xx, or otherwise than its schema says."""

    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def send(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict):
            for name in LIMITS:
                if name in case.body or name == "max_tokens":
                    case.body[name] = TOKENS_MAX
        response = case.call(headers={"Authorization": f"Bearer {API_KEYS[0]}"}, timeout=60)
        assert response.status_code < 500, f"{response.status_code} {response.text}\n{case.as_curl_command()}"
        case.validate_response(response)

    try:
        send()
    except (AssertionError, ExceptionGroup) as fault:
        return f"{operation.label}: {fault}"
    return None


def test_no_request_of_the_schema_is_a_server_error(server: Server, operations: list) -> None:
    assert len(operations) >= 10
    found = [faults(operation) for operation in operations]
    text = "\n\n".join(filter(None, found))
    assert not text, text
    server.wait_until_idle()


def test_the_page_shows_the_schema_and_needs_no_other_host(server: Server) -> None:
    status, page = server.get("/docs")
    assert status == 200 and b"openapi.json" in page
    assert not re.search(rb"(src|href)=[\"']?(https?:)?//", page)


def test_every_documented_route_is_served(server: Server) -> None:
    for path, methods in json.loads(server.get("/openapi.json")[1])["paths"].items():
        for method in set(methods) & {"get", "post"}:
            answer = server.send(method.upper(), re.sub(r"{.*?}", "x", path), {} if method == "post" else None)
            assert answer.status != 405 and b"unknown_url" not in answer.body, path
