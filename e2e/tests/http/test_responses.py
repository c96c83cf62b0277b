"""`/v1/responses` by the official `openai` client."""

import json
from typing import Any

import openai
import pytest

from conftest import Server

SUM = "What is 7 plus 5?"
TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}}, "required": ["unit"], "additionalProperties": False},
    "strict": True,
}


@pytest.fixture
def ask(client: openai.OpenAI):
    def send(**extra: Any) -> Any:
        return client.responses.create(**{"model": "tiny", "input": SUM, "temperature": 0} | extra)

    return send


def test_text_in_text_out(ask) -> None:
    answer = ask()
    assert answer.id.startswith("resp_") and answer.object == "response" and answer.status == "completed"
    [message] = answer.output
    assert message.id.startswith("msg_") and message.role == "assistant" and message.content[0].type == "output_text"
    assert answer.output_text.startswith("7 + 5 = 12")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.completed_at >= answer.created_at and answer.temperature == 0 and answer.top_p == 1


def test_items_instructions_and_turns(ask) -> None:
    as_items = [{"role": "user", "content": [{"type": "input_text", "text": SUM}]}]
    assert ask(input=as_items).output_text == ask().output_text
    assert ask(instructions="Be short.").usage.input_tokens > ask().usage.input_tokens
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": SUM}]
    assert ask(input=turns).output_text


def test_max_output_tokens_is_incomplete(ask) -> None:
    answer = ask(max_output_tokens=2)
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 2


def test_a_stream_has_the_official_order(ask) -> None:
    events = list(ask(stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1].response
    assert text == final.output_text == ask().output_text
    ids = {event.item_id for event in events if hasattr(event, "item_id")}
    assert ids == {final.output[0].id} and events[0].response.id == final.id


def test_text_format(ask) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer", "maximum": 99, "minimum": 0}}, "required": ["sum"], "additionalProperties": False}
    answer = ask(text={"format": {"type": "json_schema", "name": "sum", "schema": schema, "strict": True}})
    assert isinstance(json.loads(answer.output_text)["sum"], int)


def test_a_required_tool_is_called_and_its_result_taken(ask) -> None:
    answer = ask(tools=[TOOL], tool_choice="required")
    call = next(item for item in answer.output if item.type == "function_call")
    assert call.name == "get_weather" and json.loads(call.arguments)["unit"] in ("celsius", "fahrenheit")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "20 degrees"}
    past = {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments}
    assert ask(input=[{"role": "user", "content": SUM}, past, result], max_output_tokens=5).output


def test_only_allowed_tools_are_called(ask) -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_time"}]}
    clock = {"type": "function", "name": "get_time", "parameters": {"type": "object", "properties": {}}, "strict": False}
    answer = ask(tools=[TOOL, clock], tool_choice=allowed, parallel_tool_calls=False)
    [call] = answer.output
    assert call.name == "get_time" and json.loads(call.arguments) == {}


def test_a_streamed_tool_call(ask) -> None:
    events = list(ask(tools=[TOOL], tool_choice="required", parallel_tool_calls=False, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    done = next(event for event in events if event.type == "response.function_call_arguments.done")
    assert text == done.arguments and json.loads(text)["unit"] in ("celsius", "fahrenheit")


@pytest.mark.parametrize(
    "extra",
    [
        {"previous_response_id": "resp_1"},
        {"input": []},
        {"input": 3},
        {"text": {"format": {"type": "json_schema", "name": "x"}}},
        {"max_output_tokens": -1},
        {"temperature": 9},
        {"tools": [{"type": "no_such"}], "tool_choice": {"type": "no_such"}},
    ],
    ids=str,
)
def test_what_is_refused(ask, extra: dict) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
        ask(**extra)


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"instructions": "x", "input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0]"),
        ({"input": "word " * 3000}, "input"),
        ({"input": "word " * 100_000}, "input"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_errors_name_what_was_sent(ask, extra: dict, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(**extra)
    assert refused.value.body["param"] == param


def test_a_response_ends_as_a_chat_does(ask) -> None:
    whole = ask().output_text
    assert ask(extra_body={"stop": "12"}).output_text == whole[: whole.index("12")]
    endless = ask(extra_body={"ignore_eos": True}, max_output_tokens=40)
    assert endless.usage.output_tokens == 40 > ask().usage.output_tokens


def test_structured_outputs(ask) -> None:
    form = {"structured_outputs": {"choice": ["one apple", "two pears"]}}
    assert ask(extra_body=form).output_text in ("one apple", "two pears")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(extra_body=form, text={"format": {"type": "json_object"}})
    assert refused.value.body["param"] == "structured_outputs"


def test_log_probabilities_where_they_are_included(ask, client: openai.OpenAI) -> None:
    included = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    told = ask(**included).output[0].content[0].logprobs
    chat = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": SUM}], temperature=0, logprobs=True, top_logprobs=2
    )
    expected = chat.choices[0].logprobs.content
    assert [entry.token for entry in told] == [entry.token for entry in expected]
    assert [entry.logprob for entry in told] == pytest.approx([entry.logprob for entry in expected], abs=1e-3)
    assert all(len(entry.top_logprobs) == 2 for entry in told)
    events = list(ask(**included, stream=True))
    deltas = [event.logprobs for event in events if event.type == "response.output_text.delta"]
    assert all(deltas) and [entry.token for delta in deltas for entry in delta] == [entry.token for entry in told]
    done = next(event for event in events if event.type == "response.output_text.done")
    assert [entry.token for entry in done.logprobs] == [entry.token for entry in told]
    assert not ask(top_logprobs=2).output[0].content[0].logprobs


def test_nothing_is_kept_that_could_be_asked_for(ask, client: openai.OpenAI) -> None:
    kept = ask().id
    for asked in (client.responses.retrieve, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match=f"Response with id '{kept}' not found."):
            asked(kept)
    with pytest.raises(openai.BadRequestError, match="background can only be used when `store` is true"):
        ask(background=True)


def test_no_store_is_no_lie(server: Server) -> None:
    answer = server.post("/v1/responses", {"model": "tiny", "input": SUM, "max_output_tokens": 1}).json()
    assert answer["store"] is False
