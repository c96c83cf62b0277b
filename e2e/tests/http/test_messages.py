"""`/v1/messages` by the official `anthropic` client."""

from typing import Any

import anthropic
import pytest

from conftest import API_KEYS, Server

SUM = [{"role": "user", "content": "What is 7 plus 5?"}]
TOOL = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}}, "required": ["unit"], "additionalProperties": False},
}


@pytest.fixture
def claude(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=API_KEYS[0], max_retries=0, timeout=60)


@pytest.fixture
def ask(claude: anthropic.Anthropic):
    def send(**extra: Any) -> Any:
        # This client no longer knows `temperature`; the API does.
        known = {"model": "tiny", "max_tokens": 64, "messages": SUM, "extra_body": {"temperature": 0}}
        return claude.messages.create(**known | extra)

    return send


def tokens(answer: Any) -> int:
    """Of the prompt, cached or not."""
    return answer.usage.input_tokens + answer.usage.cache_read_input_tokens


def test_a_message_answers(ask) -> None:
    answer = ask()
    assert answer.type == "message" and answer.role == "assistant" and answer.id.startswith("msg_")
    [block] = answer.content
    assert block.type == "text" and block.text.startswith("7 + 5 = 12")
    assert answer.stop_reason == "end_turn" and answer.stop_sequence is None
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0
    assert isinstance(answer.usage.cache_read_input_tokens, int)


def test_system_and_blocks(ask) -> None:
    blocks = [{"role": "user", "content": [{"type": "text", "text": "What is 7 plus 5?"}]}]
    assert ask(messages=blocks).content[0].text == ask().content[0].text
    for system in ("Be short.", [{"type": "text", "text": "Be short."}]):
        assert tokens(ask(system=system)) > tokens(ask())


def test_the_system_may_speak_in_between(ask) -> None:
    hoisted = ask(messages=[*SUM, {"role": "system", "content": "Be short."}])
    assert tokens(hoisted) == tokens(ask(system="Be short."))
    assert hoisted.content[0].text == ask(system="Be short.").content[0].text


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "", "name": "get_weather", "input": {}},
        {"type": "tool_use", "id": "toolu_1", "name": "", "input": {}},
        {"type": "tool_result", "tool_use_id": "", "content": "20 degrees"},
    ],
    ids=str,
)
def test_a_block_without_its_names_is_refused(ask, block: dict) -> None:
    with pytest.raises(anthropic.BadRequestError):
        ask(messages=[*SUM, {"role": "assistant", "content": [block]}, *SUM])


def test_why_it_stopped(ask) -> None:
    assert ask(max_tokens=1).stop_reason == "max_tokens"
    stopped = ask(stop_sequences=[" 5"])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == " 5"
    assert stopped.content[0].text == "7 +"


def test_a_stream_is_the_same_message(claude: anthropic.Anthropic, ask) -> None:
    with claude.messages.stream(model="tiny", max_tokens=64, messages=SUM, extra_body={"temperature": 0}) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    for kind in ("content_block_start", "content_block_delta", "content_block_stop", "message_delta"):
        assert kind in kinds
    assert final.content[0].text == ask().content[0].text
    assert final.stop_reason == "end_turn" and final.usage.output_tokens == ask().usage.output_tokens


def test_a_tool_is_called_and_its_result_taken(ask) -> None:
    answer = ask(tools=[TOOL], max_tokens=400, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    call = next(block for block in answer.content if block.type == "tool_use")
    assert call.id.startswith("toolu_")
    assert answer.stop_reason == "tool_use" and call.input["unit"] in ("celsius", "fahrenheit")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "20 degrees"}
    past = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}
    messages = [*SUM, {"role": "assistant", "content": [past]}, {"role": "user", "content": [result]}]
    assert ask(messages=messages, max_tokens=5).content


def test_tokens_are_counted(claude: anthropic.Anthropic, ask) -> None:
    assert claude.messages.count_tokens(model="tiny", messages=SUM).input_tokens == tokens(ask())


def test_errors_have_anthropics_shape(claude: anthropic.Anthropic, server: Server, ask) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        ask(extra_body={"temperature": 9})
    assert refused.value.body["type"] == "error" and refused.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError):
        ask(model="no-such")
    stranger = anthropic.Anthropic(base_url=server.url, api_key="wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError) as refused:
        stranger.messages.create(model="tiny", max_tokens=1, messages=SUM)
    assert refused.value.body["error"]["type"] == "authentication_error"
    assert refused.value.request_id and refused.value.body["request_id"] == refused.value.request_id
    missing = server.post("/v1/messages", {"model": "tiny", "messages": SUM})
    assert missing.status == 400 and "max_tokens" in missing.json()["error"]["message"]


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.1}, "temperature"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
        ({"system": "x", "messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"system": "x", "messages": []}, "messages"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_errors_name_what_was_sent(server: Server, extra: dict, param: str) -> None:
    refused = server.post("/v1/messages", {"model": "tiny", "max_tokens": 1, "messages": SUM} | extra)
    assert refused.status == 400 and refused.json()["error"]["message"].startswith(f"{param} "), refused.body


def test_what_changes_nothing_is_taken(ask) -> None:
    assert ask(metadata={"user_id": "x"}, thinking={"type": "disabled"}).content[0].text == ask().content[0].text
