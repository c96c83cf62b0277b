"""`/tokenize` and `/detokenize`, and the small routes that clients ask first."""

import json

import pytest

import models
from conftest import Server

CHAT = models.chats()[0]
IDS = next(p["ids"] for p in json.loads((models.TINY / "reference.json").read_text())["prompts"] if p["prompt"] == CHAT.prompt)


def test_a_text_and_back(server: Server) -> None:
    answer = server.post("/tokenize", {"model": "tiny", "prompt": CHAT.prompt}).json()
    assert answer["tokens"] == IDS and answer["count"] == len(IDS) and answer["max_model_len"] == 2048
    assert answer["token_strs"] is None
    named = server.post("/tokenize", {"model": "tiny", "prompt": "In", "return_token_strs": True}).json()
    assert len(named["token_strs"]) == named["count"]
    assert server.post("/detokenize", {"model": "tiny", "tokens": IDS}).json() == {"prompt": CHAT.prompt, "content": CHAT.prompt}
    pieces = server.post("/tokenize", {"content": "In", "with_pieces": True}).json()["tokens"]
    assert pieces == [{"id": token, "piece": text} for token, text in zip(named["tokens"], named["token_strs"])]
    marked = server.post("/tokenize", {"content": "In", "add_special": True}).json()
    assert marked["tokens"] == named["tokens"]


def test_a_chat(server: Server) -> None:
    answer = server.post("/tokenize", {"model": "tiny", "messages": CHAT.openai_messages()})
    assert answer.json()["tokens"] == IDS
    shorter = {"model": "tiny", "messages": CHAT.openai_messages(), "add_generation_prompt": False}
    assert server.post("/tokenize", shorter).json()["count"] < len(IDS)


def test_the_template_sees_the_tools_of_a_chat(server: Server) -> None:
    template = "{% for tool in tools %}{{ tool.function.name }}{% endfor %}{{ messages[0].content }}"
    body = {"messages": [{"role": "user", "content": " now"}], "chat_template": template}
    tools = [{"type": "function", "function": {"name": "In the beginning"}}]
    assert server.post("/tokenize", {**body, "tools": tools}).status == 400  # a name has no spaces
    tools[0]["function"]["name"] = "In_the_beginning"
    shown = server.post("/tokenize", {**body, "tools": tools}).json()["tokens"]
    assert server.post("/detokenize", {"tokens": shown}).json()["prompt"] == "In_the_beginning now"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": 1}),
        ("/tokenize", {"messages": 3}),
        ("/tokenize", {"messages": [{"role": "user", "content": "x"}], "add_generation_prompt": True, "continue_final_message": True}),
        ("/detokenize", {}),
        ("/detokenize", {"tokens": "x"}),
        ("/detokenize", {"tokens": [10**9]}),
        ("/detokenize", {"tokens": [-1]}),
    ],
    ids=str,
)
def test_what_is_refused(server: Server, path: str, body: dict) -> None:
    assert server.post(path, {"model": "tiny", **body}).status == 400


@pytest.mark.parametrize("path", ["/version", "/ping", "/health", "/livez", "/readyz"])
def test_small_routes(server: Server, path: str) -> None:
    assert server.get(path)[0] == 200


def test_ping_may_be_posted(server: Server) -> None:
    assert server.post("/ping", {}).status == 200
