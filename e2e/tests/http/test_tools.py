"""Tools: what is called, what a client may ask for, and that streams say the same."""

import json
from typing import Any

import openai
import pytest

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}, "days": {"type": "integer", "maximum": 9, "minimum": 1}},
            "required": ["unit", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
QUESTION = [{"role": "user", "content": "What is the weather like?"}]


@pytest.fixture
def ask(client: openai.OpenAI):
    def send(**extra: Any) -> Any:
        standard = {"model": "tiny", "messages": QUESTION, "temperature": 1, "seed": 1, "max_tokens": 200, "tools": [WEATHER, CLOCK]}
        return client.chat.completions.create(**standard | extra)

    return send


def check(call: Any) -> None:
    arguments = json.loads(call.function.arguments)
    assert call.type == "function" and call.id
    if call.function.name == "get_weather":
        assert set(arguments) == {"unit", "days"} and 1 <= arguments["days"] <= 9
    else:
        assert call.function.name == "get_time" and arguments == {}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_required_calls_a_tool(ask, seed: int) -> None:
    # A model this small would go on calling to the end of its tokens.
    answer = ask(tool_choice="required", seed=seed, parallel_tool_calls=False).choices[0]
    assert answer.message.tool_calls and answer.message.content is None
    assert answer.finish_reason == "tool_calls"
    for call in answer.message.tool_calls:
        check(call)


def test_named_calls_that_tool_once(ask) -> None:
    answer = ask(tool_choice=NAMED).choices[0]
    [call] = answer.message.tool_calls
    assert call.function.name == "get_weather"
    check(call)
    assert answer.message.content is None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_only_allowed_tools_are_called(ask, seed: int) -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]}
    answer = ask(tool_choice={"type": "allowed_tools", "allowed_tools": allowed}, parallel_tool_calls=False, seed=seed)
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "get_time" and json.loads(call.function.arguments) == {}


def test_parallel_tool_calls_may_be_turned_off(ask) -> None:
    for seed in range(3):
        assert len(ask(tool_choice="required", parallel_tool_calls=False, seed=seed).choices[0].message.tool_calls) == 1


@pytest.mark.parametrize("tool_choice", ["required", NAMED], ids=["required", "named"])
def test_a_stream_calls_the_same(ask, tool_choice: Any) -> None:
    whole = ask(tool_choice=tool_choice).choices[0]
    calls: dict[int, list[str]] = {}
    ids, reasons = [], []
    for chunk in ask(tool_choice=tool_choice, stream=True):
        for choice in chunk.choices:
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for delta in choice.delta.tool_calls or []:
                ids += [delta.id] if delta.id else []
                name, arguments = calls.setdefault(delta.index, ["", ""])
                calls[delta.index] = [name + (delta.function.name or ""), arguments + (delta.function.arguments or "")]
    assert reasons == [whole.finish_reason] and len(ids) == len(set(ids)) == len(calls)
    expected = [[call.function.name, call.function.arguments] for call in whole.message.tool_calls]
    plain = lambda calls: [[name, json.loads(arguments)] for name, arguments in calls]  # noqa: E731
    assert plain(calls[index] for index in sorted(calls)) == plain(expected)


def test_none_and_no_tools_call_nothing(ask) -> None:
    for extra in ({"tool_choice": "none"}, {"tools": openai.omit}):
        message = ask(**extra).choices[0].message
        assert not message.tool_calls and message.content is not None


@pytest.mark.parametrize("choice", ["required", NAMED], ids=str)
def test_a_call_that_must_be_made_has_the_only_form(ask, choice: object) -> None:
    for form in ({"structured_outputs": {"regex": "a"}}, {"guided_choice": ["a", "b"]}):
        with pytest.raises(openai.BadRequestError, match="structured outputs or tools, not both"):
            ask(tool_choice=choice, extra_body=form)


def test_a_call_cut_off_is_no_error(ask) -> None:
    answer = ask(tool_choice="required", max_tokens=1).choices[0]
    assert answer.finish_reason == "length"
    for call in answer.message.tool_calls or []:
        assert call.function.name in ("get_weather", "get_time")
    answer = ask(tool_choice=NAMED, max_tokens=5).choices[0]
    [call] = answer.message.tool_calls
    assert answer.finish_reason == "length" and call.function.name == "get_weather"
    assert call.function.arguments.startswith("{") and not call.function.arguments.endswith("}")


def test_a_conversation_with_calls_and_results_goes_on(ask) -> None:
    for arguments in ('{"unit": "celsius", "days": 1}', "{}", ""):
        call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
        messages = [
            *QUESTION,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "It is 20 degrees."},
        ]
        assert ask(messages=messages, max_tokens=5).choices


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": openai.omit, "tool_choice": "auto"},
        {"tools": openai.omit, "tool_choice": "required"},
        {"tools": openai.omit, "tool_choice": NAMED},
        {"tool_choice": {"type": "function", "function": {"name": "no_such"}}},
        {"tool_choice": {}},
        {"tool_choice": "sometimes"},
        {"tools": "get_weather"},
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "function", "function": {"name": 1}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "hiccup"}}}], "tool_choice": "required"},
        {"messages": [{"role": "tool", "content": 1}]},
        {"messages": [*QUESTION, {"role": "assistant", "tool_calls": [{"id": "x"}]}]},
    ],
    ids=lambda extra: str(extra)[:60],
)
def test_what_makes_no_sense_is_a_400(ask, extra: dict) -> None:
    with pytest.raises(openai.BadRequestError):
        ask(**extra)
