"""Structured output: what the answer must look like, under each name that clients know."""

import json
import re
from typing import Any

import openai
import pytest

CHATS = [{"role": "user", "content": "What is 7 plus 5?"}]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def is_person(value: Any) -> bool:
    return (
        set(value) == {"name", "age", "tags"}
        and isinstance(value["name"], str)
        and len(value["name"]) <= 8
        and isinstance(value["age"], int)
        and 0 <= value["age"] <= 150
        and 1 <= len(value["tags"]) <= 3
        and set(value["tags"]) <= {"a", "b"}
    )


@pytest.fixture
def ask(client: openai.OpenAI):
    def send(**extra: Any) -> Any:
        known = {k: extra.pop(k) for k in ("response_format", "stream", "n", "logprobs", "top_logprobs", "seed") if k in extra}
        return client.chat.completions.create(
            model="tiny", messages=CHATS, temperature=1, max_tokens=200, **known, extra_body=extra
        )

    return send


def said(answer: Any) -> str:
    return answer.choices[0].message.content


SCHEMA_FORMS = {
    "response_format": {"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}},
    "guided_json": {"guided_json": PERSON},
    "guided_json as text": {"guided_json": json.dumps(PERSON)},
    "structured_outputs": {"structured_outputs": {"json": PERSON}},
}


@pytest.mark.parametrize("form", SCHEMA_FORMS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_json_schema_is_kept_to(ask, form: str, seed: int) -> None:
    answer = ask(seed=seed, **SCHEMA_FORMS[form])
    assert answer.choices[0].finish_reason == "stop"
    assert is_person(json.loads(said(answer)))


def test_objects_have_no_members_but_those_of_their_schema(ask) -> None:
    point = {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"]}
    schema = {"type": "object", "properties": {"p": {"$ref": "#/$defs/P"}}, "required": ["p"], "$defs": {"P": point}}
    for seed in (1, 2, 3):
        answer = ask(seed=seed, guided_json=schema)
        assert answer.choices[0].finish_reason == "stop"
        assert json.loads(said(answer)) in ({"p": {"x": 1}}, {"p": {"x": 2}})


def test_every_choice_keeps_to_it_and_so_does_a_stream(ask) -> None:
    answers = ask(n=3, seed=5, guided_json=PERSON)
    assert all(is_person(json.loads(choice.message.content)) for choice in answers.choices)
    streamed = "".join(c.choices[0].delta.content or "" for c in ask(stream=True, seed=5, guided_json=PERSON) if c.choices)
    assert is_person(json.loads(streamed))


def test_json_object(ask) -> None:
    answer = ask(response_format={"type": "json_object"}, seed=1)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(said(answer)), dict)
    else:
        assert said(answer).lstrip().startswith("{")


@pytest.mark.parametrize("form", ["guided_choice", "structured_outputs"])
def test_a_choice(ask, form: str) -> None:
    choices = ["positive", "negative", "neither, nor"]
    given = {"guided_choice": choices} if form == "guided_choice" else {"structured_outputs": {"choice": choices}}
    assert {said(ask(seed=seed, **given)) for seed in range(6)} <= set(choices)


@pytest.mark.parametrize("form", ["guided_regex", "structured_outputs"])
def test_a_regular_expression(ask, form: str) -> None:
    pattern = r"((25[0-5]|(2[0-4]|1\d|[1-9]|)\d)\.){3}(25[0-5]|(2[0-4]|1\d|[1-9]|)\d)"
    given = {"guided_regex": pattern} if form == "guided_regex" else {"structured_outputs": {"regex": pattern}}
    assert re.fullmatch(pattern, said(ask(seed=3, **given)))


GBNF = 'root ::= "SELECT " column " FROM " table\ncolumn ::= "a" | "b"\ntable ::= "t" [0-9]{1,3}\n'
LARK = 'start: "SELECT " column " FROM " table\ncolumn: "a" | "b"\ntable: /t[0-9]{1,3}/\n'


@pytest.mark.parametrize("grammar", [GBNF, LARK], ids=["gbnf", "lark"])
@pytest.mark.parametrize("form", ["guided_grammar", "structured_outputs"])
def test_a_grammar(ask, form: str, grammar: str) -> None:
    given = {"guided_grammar": grammar} if form == "guided_grammar" else {"structured_outputs": {"grammar": grammar}}
    assert re.fullmatch(r"SELECT [ab] FROM t[0-9]{1,3}", said(ask(seed=2, **given)))


@pytest.mark.parametrize("backend", ["outlines", "lm-format-enforcer", "xgrammar", "guidance", "auto"])
def test_every_backends_name_is_taken(ask, backend: str) -> None:
    assert said(ask(guided_choice=["x", "y"], guided_decoding_backend=backend)) in ("x", "y")


def test_log_probabilities_of_a_masked_token_are_finite(ask) -> None:
    answer = ask(guided_choice=["x", "y"], logprobs=True, top_logprobs=5)
    for token in answer.choices[0].logprobs.content:
        assert all(top.logprob >= -9999 for top in token.top_logprobs)


@pytest.mark.parametrize(
    "given",
    [
        {"response_format": {"type": "sound"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 3}}},
        {"guided_json": {"type": "hiccup"}},
        {"guided_json": {"type": "object", "properties": {"foo": "bar"}}},
        {"guided_json": {"$ref": "#/nowhere"}},
        {"guided_json": "{"},
        {"guided_regex": "[.*"},
        {"guided_regex": {"1": "x"}},
        {"guided_grammar": "root ::= missing"},
        {"guided_grammar": ""},
        {"guided_choice": []},
        {"guided_choice": [1]},
        {"guided_choice": ["x"], "guided_regex": "x"},
        {"guided_decoding_backend": "no-such", "guided_choice": ["x"]},
        {"structured_outputs": {"choice": ["x"], "regex": "x"}},
        {"structured_outputs": {"no_such": 1}},
        {"guided_json": {"type": "string", "description": "x" * (1 << 20)}},
        {"guided_choice": ["x" * 1000] * 5000},
    ],
    ids=lambda given: str(given)[:48],
)
def test_what_cannot_be_kept_to_is_a_400(ask, given: dict) -> None:
    with pytest.raises(openai.BadRequestError):
        ask(**given)
    assert said(ask(guided_choice=["still here"])) == "still here"
