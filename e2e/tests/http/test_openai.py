"""The official `openai` client against the runtime: what a user's program sees."""

import concurrent.futures
import json
import re
from pathlib import Path

import openai
import pytest

import models
import wait
from conftest import Server, start, stop

CHATS = models.chats()


def load(server: Server) -> dict:
    status, body = server.get("/internal/load")
    assert status == 200
    return json.loads(body)


def test_models_lists_every_served_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "tiny-alias"]
    assert client.models.retrieve("tiny-alias").id == "tiny-alias"


@pytest.mark.parametrize("chat", CHATS, ids=lambda chat: chat.answer[:20])
def test_greedy_chat_is_the_reference(client: openai.OpenAI, chat: models.Chat) -> None:
    answer = client.chat.completions.create(model="tiny", messages=chat.openai_messages(), temperature=0)
    assert answer.choices[0].message.content == chat.answer
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("chat", CHATS, ids=lambda chat: chat.answer[:20])
def test_streamed_chat_is_the_same_text(client: openai.OpenAI, chat: models.Chat) -> None:
    stream = client.chat.completions.create(
        model="tiny",
        messages=chat.openai_messages(),
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == chat.answer
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert len({c.id for c in chunks}) == 1


def test_completion_from_text_and_from_tokens(client: openai.OpenAI) -> None:
    reference = json.loads((models.TINY / "reference.json").read_text())["prompts"]
    for chat in reference[:4]:
        expected = chat["greedy_text"].removesuffix(models.END_OF_TURN)
        for prompt in (chat["prompt"], chat["ids"]):
            answer = client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=64)
            assert answer.choices[0].text == expected
            assert answer.usage.prompt_tokens == len(chat["ids"])


def test_several_prompts_and_choices(client: openai.OpenAI) -> None:
    prompts = [chat.prompt for chat in CHATS[:3]]
    answer = client.completions.create(model="tiny", prompt=prompts, n=2, temperature=0, max_tokens=64)
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert [choice.text for choice in answer.choices] == [c.answer for c in CHATS[:3] for _ in range(2)]


def test_sixteen_at_once_answer_as_alone(client: openai.OpenAI) -> None:
    def ask(chat: models.Chat) -> str:
        answer = client.chat.completions.create(model="tiny", messages=chat.openai_messages(), temperature=0)
        return answer.choices[0].message.content

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, CHATS * 2)) == [chat.answer for chat in CHATS * 2]


def test_a_seed_repeats_and_another_differs(client: openai.OpenAI) -> None:
    def verse(seed: int) -> str:
        answer = client.completions.create(
            model="tiny", prompt="And Moses said unto the people,", seed=seed, temperature=1, max_tokens=24
        )
        return answer.choices[0].text

    assert verse(7) == verse(7)
    assert len({verse(seed) for seed in range(4)}) > 1


def test_max_tokens_stop_and_echo(client: openai.OpenAI) -> None:
    count = CHATS[1]
    cut = client.chat.completions.create(
        model="tiny", messages=count.openai_messages(), temperature=0, max_completion_tokens=3
    )
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 3
    assert count.answer.startswith(cut.choices[0].message.content)

    stopped = client.chat.completions.create(
        model="tiny", messages=count.openai_messages(), temperature=0, stop=[", 7", "nowhere"]
    )
    assert stopped.choices[0].message.content == count.answer.split(", 7")[0]
    assert stopped.choices[0].finish_reason == "stop"

    echoed = client.completions.create(
        model="tiny", prompt="In the beginning", echo=True, temperature=0, max_tokens=1
    )
    assert echoed.choices[0].text.startswith("In the beginning")


def test_logprobs_agree_with_the_choice(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="tiny", messages=CHATS[0].openai_messages(), temperature=0, logprobs=True, top_logprobs=3
    )
    content = chat.choices[0].logprobs.content
    assert "".join(token.token for token in content).startswith(CHATS[0].answer)
    for token in content:
        assert token.top_logprobs[0].token == token.token
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
        assert [top.logprob for top in token.top_logprobs] == sorted(
            (top.logprob for top in token.top_logprobs), reverse=True
        )
    text = client.completions.create(model="tiny", prompt=CHATS[0].prompt, temperature=0, logprobs=2).choices[0]
    assert "".join(text.logprobs.tokens) == text.text
    assert len(text.logprobs.tokens) == len(text.logprobs.token_logprobs) == len(text.logprobs.top_logprobs)


def test_penalties_change_the_text(client: openai.OpenAI) -> None:
    def verse(**parameters: float) -> str:
        answer = client.completions.create(
            model="tiny",
            prompt="And Moses said unto the people,",
            temperature=0,
            max_tokens=32,
            **parameters,
        )
        return answer.choices[0].text

    plain = verse()
    assert verse(frequency_penalty=1.5) != plain
    assert verse(presence_penalty=1.5) != plain
    assert verse(extra_body={"repetition_penalty": 1.5}) != plain
    assert verse(extra_body={"top_k": 1}) == plain


def test_a_key_may_come_under_vllms_name(tmp_path: Path) -> None:
    closed = start(tmp_path / "log", env={"VLLM_API_KEY": "only-key"})
    try:
        assert closed.client("only-key").models.list().data
        with pytest.raises(openai.AuthenticationError):
            closed.client("other-key").models.list()
    finally:
        assert stop(closed) == 0


def test_every_key_opens_and_no_other(server: Server) -> None:
    for key in ("first-key", "second-key"):
        assert server.client(key).models.list().data
    for key in ("first-ke", "first-key,second-key", "x"):
        with pytest.raises(openai.AuthenticationError) as refused:
            server.client(key).models.list()
        assert refused.value.body["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"logprobs": 1000}, "logprobs"),
        ({"prompt": "word " * 5000}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", str(value))[:24],
)
def test_a_bad_request_names_its_parameter(
    client: openai.OpenAI, parameters: dict[str, object], param: str
) -> None:
    body = {"model": "tiny", "prompt": "Hello", "max_tokens": 4, **parameters}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/completions", body=body, cast_to=object)
    assert refused.value.body["param"] == param
    assert refused.value.body["type"] == "invalid_request_error"
    assert client.completions.create(model="tiny", prompt="Hello", max_tokens=1).choices


def test_unknown_model_is_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="gpt-5", prompt="Hello")
    assert refused.value.body["code"] == "model_not_found"


def test_a_client_that_leaves_frees_its_blocks(server: Server, client: openai.OpenAI) -> None:
    for _ in range(8):
        stream = client.completions.create(
            model="tiny",
            prompt="And Moses said",
            stream=True,
            max_tokens=1500,
            extra_body={"ignore_eos": True},
        )
        next(iter(stream))
        stream.close()
    wait.until("nothing runs", lambda: load(server)["running"] == 0 and load(server)["kvUsage"] == 0)


def test_metrics_count_what_happened(server: Server, client: openai.OpenAI) -> None:
    before = server.metric("vllm:generation_tokens_total")
    answer = client.completions.create(model="tiny", prompt="Hello", max_tokens=5, temperature=0)
    assert server.metric("vllm:generation_tokens_total") - before == answer.usage.completion_tokens
    assert server.metric("vllm:request_success_total") > 0
    assert server.metric("vllm:time_to_first_token_seconds_count") > 0


def test_small_steps_give_the_same_tokens(tmp_path) -> None:
    server = start(tmp_path / "log", "--max-num-batched-tokens", "16", "--served-model-name", "tiny")
    try:
        client = server.client()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(
                    lambda chat: client.chat.completions.create(
                        model="tiny", messages=chat.openai_messages(), temperature=0
                    ),
                    CHATS,
                )
            )
        assert [a.choices[0].message.content for a in answers] == [chat.answer for chat in CHATS]
    finally:
        assert stop(server) == 0


def test_sigterm_finishes_what_runs(tmp_path) -> None:
    server = start(tmp_path / "log", "--served-model-name", "tiny")
    stream = server.client().completions.create(
        model="tiny",
        prompt="And Moses said",
        stream=True,
        max_tokens=400,
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    chunks = iter(stream)
    next(chunks)
    server.process.terminate()
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == "length"
    assert server.process.wait(timeout=60) == 0
