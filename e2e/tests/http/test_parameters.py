"""Every parameter of the documents that users come from, with what it changes; the OpenAI client sends them all.

Parameters that only shape structured output, tools or other routes are in files of their own.
"""

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

import models
from conftest import Server, start, stop

VERSE = "And Moses said unto the people,"
SUM = [{"role": "user", "content": "What is 7 plus 5?"}]


@pytest.fixture
def complete(client: openai.OpenAI):
    """A completion of VERSE: greedy, 24 tokens, unless the parameters say otherwise."""

    def send(**extra: Any) -> Any:
        standard = {"model": "tiny", "prompt": VERSE, "temperature": 0, "max_tokens": 24}
        return send_all(client.completions.create, standard | extra)

    return send


@pytest.fixture
def chat(client: openai.OpenAI):
    """A greedy chat about a sum, unless the parameters say otherwise."""

    def send(**extra: Any) -> Any:
        standard = {"model": "tiny", "messages": SUM, "temperature": 0}
        return send_all(client.chat.completions.create, standard | extra)

    return send


def send_all(create: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """What the client's method does not know goes into `extra_body`, as users of vLLM send it."""
    known = inspect.signature(create).parameters
    extra = {name: value for name, value in parameters.items() if name not in known}
    return create(**{name: value for name, value in parameters.items() if name in known}, extra_body=extra)


def text(answer: Any) -> str:
    return answer.choices[0].text


def said(answer: Any) -> str:
    return answer.choices[0].message.content


# --- How many, how long, when to stop


def test_n_gives_so_many_choices(complete, chat) -> None:
    drawn = complete(n=3, temperature=1, seed=5)
    assert [choice.index for choice in drawn.choices] == [0, 1, 2]
    assert len({choice.text for choice in drawn.choices}) > 1
    assert drawn.usage.completion_tokens > 24
    assert len(chat(n=2).choices) == 2


def test_best_of_returns_the_likeliest_of_more(complete) -> None:
    def means(answer: Any) -> list[float]:
        return [sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs) for c in answer.choices]

    many = complete(n=4, temperature=1, seed=3, logprobs=0)
    best = complete(n=2, best_of=4, temperature=1, seed=3, logprobs=0)
    assert means(best) == pytest.approx(sorted(means(many), reverse=True)[:2], abs=1e-4)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_max_tokens(chat, name: str) -> None:
    answer = chat(**{name: 2})
    assert answer.usage.completion_tokens == 2 and answer.choices[0].finish_reason == "length"


def test_max_tokens_default_is_16_for_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=VERSE, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16


def test_min_tokens_and_ignore_eos(chat) -> None:
    plain = chat()
    assert plain.choices[0].finish_reason == "stop"
    n = plain.usage.completion_tokens
    assert chat(min_tokens=n + 5, max_tokens=n + 9).usage.completion_tokens >= n + 5
    endless = chat(ignore_eos=True, max_tokens=n + 9)
    assert endless.usage.completion_tokens == n + 9 and endless.choices[0].finish_reason == "length"


def test_stop_and_include_stop_str_in_output(complete) -> None:
    whole = text(complete())
    word = whole.split()[3]
    cut = complete(stop=word)
    assert text(cut) == whole[: whole.index(word)] and cut.choices[0].finish_reason == "stop"
    assert text(complete(stop=["nowhere to be found", word])) == text(cut)
    kept = complete(stop=[word], include_stop_str_in_output=True)
    assert text(kept) == whole[: whole.index(word) + len(word)]
    assert cut.choices[0].stop_reason == word


def test_stop_token_ids(complete, server: Server) -> None:
    ids = complete(return_token_ids=True).choices[0].token_ids
    stopped = complete(stop_token_ids=[ids[5]], return_token_ids=True).choices[0]
    at = ids.index(ids[5])
    assert stopped.finish_reason == "stop" and stopped.stop_reason == ids[5]
    assert stopped.token_ids[:at] == ids[:at] and len(stopped.token_ids) <= at + 1


# --- Which token


@pytest.mark.parametrize("parameter", [{"temperature": 1}, {"temperature": 1.5, "top_p": 0.9}], ids=str)
def test_a_seed_repeats_and_another_differs(complete, parameter: dict) -> None:
    assert text(complete(seed=7, **parameter)) == text(complete(seed=7, **parameter))
    assert len({text(complete(seed=seed, **parameter)) for seed in range(4)}) > 1


@pytest.mark.parametrize("parameter", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}], ids=str)
def test_a_filter_that_leaves_one_token_is_greedy(complete, parameter: dict) -> None:
    assert text(complete(temperature=1.5, seed=1, **parameter)) == text(complete())


@pytest.mark.parametrize("parameter", [{"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.3}], ids=str)
def test_a_filter_keeps_to_the_likeliest(complete, parameter: dict) -> None:
    """Each token drawn is among those the filter leaves of the raw distribution."""
    answer = complete(temperature=1, seed=2, logprobs=20, **parameter).choices[0].logprobs
    for token, logprob, top in zip(answer.tokens, answer.token_logprobs, answer.top_logprobs):
        likelier = sorted((p for p in top.values() if p > logprob + 1e-6), reverse=True)
        if "top_k" in parameter:
            assert len(likelier) < 2
        if "top_p" in parameter:
            assert sum(math.exp(p) for p in likelier) < 0.5 + 1e-4
        if "min_p" in parameter:
            assert math.exp(logprob) >= 0.3 * math.exp(max(top.values())) - 1e-4


@pytest.mark.parametrize("value", [-1, 0])
def test_top_k_of_all_changes_nothing(complete, value: int) -> None:
    assert text(complete(temperature=1, seed=4, top_k=value)) == text(complete(temperature=1, seed=4))


@pytest.mark.parametrize(
    "parameter", [{"presence_penalty": 2}, {"frequency_penalty": 2}, {"repetition_penalty": 1.8}], ids=str
)
def test_penalties_lessen_repetition(complete, parameter: dict) -> None:
    def repeated(answer: Any) -> int:
        ids = answer.choices[0].token_ids
        return len(ids) - len(set(ids))

    plain = complete(max_tokens=64, ignore_eos=True, return_token_ids=True)
    assert repeated(plain) > 0
    assert repeated(complete(max_tokens=64, ignore_eos=True, return_token_ids=True, **parameter)) < repeated(plain)


def test_repetition_penalty_sees_the_prompt(complete) -> None:
    """The others see only what was generated."""
    first = complete(max_tokens=1, return_token_ids=True).choices[0].token_ids[0]
    prompt = complete(max_tokens=1, return_token_ids=True).choices[0].prompt_token_ids + [first]
    plain = complete(prompt=prompt, max_tokens=1, logprobs=0)
    assert text(complete(prompt=prompt, max_tokens=1, presence_penalty=2)) == text(plain)


def test_logit_bias_forces_and_forbids(complete) -> None:
    ids = complete(return_token_ids=True).choices[0].token_ids
    forced = complete(logit_bias={"67": 100}, max_tokens=4, return_token_ids=True)
    assert forced.choices[0].token_ids == [67] * 4
    forbidden = complete(logit_bias={str(ids[0]): -100}, return_token_ids=True)
    assert ids[0] not in forbidden.choices[0].token_ids


def test_logit_bias_beyond_the_vocabulary_is_refused(complete) -> None:
    with pytest.raises(openai.BadRequestError, match="4096") as refused:
        complete(logit_bias={"99999": 1})
    assert "99999" in str(refused.value)


def test_allowed_token_ids(complete) -> None:
    allowed = [67, 68, 69]
    drawn = complete(allowed_token_ids=allowed, temperature=1, seed=1, return_token_ids=True)
    assert set(drawn.choices[0].token_ids) <= set(allowed)
    for wrong in ([], [10**6]):
        with pytest.raises(openai.BadRequestError):
            complete(allowed_token_ids=wrong)


def test_bad_words(complete) -> None:
    word = text(complete()).split()[2].strip(",.;:")
    assert f" {word} " not in text(complete(bad_words=[word])) + " "


# --- Beam search


def test_beam_search_finds_likelier_texts_than_greed(complete) -> None:
    beams = complete(use_beam_search=True, n=2, best_of=4, max_tokens=12)
    assert len(beams.choices) == 2 and beams.choices[0].text != beams.choices[1].text
    assert text(complete(use_beam_search=True, n=1, max_tokens=12)) == text(complete(max_tokens=12))


def test_beam_search_of_two_prompts_is_that_of_each(complete) -> None:
    twice = complete(prompt=[VERSE, VERSE], use_beam_search=True, n=2, max_tokens=8)
    texts = [choice.text for choice in twice.choices]
    assert len(texts) == 4 and texts[:2] == texts[2:]


def test_length_penalty_and_early_stopping(chat) -> None:
    def n_tokens(**extra: Any) -> int:
        return chat(use_beam_search=True, best_of=4, max_tokens=40, **extra).usage.completion_tokens

    assert n_tokens(length_penalty=-20.0) <= n_tokens(length_penalty=20.0)
    for value in (True, False, "never"):
        assert n_tokens(early_stopping=value) > 0
    with pytest.raises(openai.BadRequestError):
        n_tokens(early_stopping="sometimes")


# --- What the answer shows


def test_echo_and_logprobs_of_the_prompt(complete) -> None:
    plain = complete(max_tokens=3, logprobs=1)
    echoed = complete(max_tokens=3, logprobs=1, echo=True)
    assert text(echoed) == VERSE + text(plain)
    shown = echoed.choices[0].logprobs
    n_prompt = echoed.usage.prompt_tokens
    assert len(shown.tokens) == len(shown.token_logprobs) == len(shown.top_logprobs) == n_prompt + 3
    assert shown.token_logprobs[0] is None and shown.top_logprobs[0] is None
    assert "".join(shown.tokens) == text(echoed)
    assert shown.token_logprobs[n_prompt:] == pytest.approx(plain.choices[0].logprobs.token_logprobs, abs=1e-3)
    assert [text(echoed)[at:].startswith(token) for at, token in zip(shown.text_offset, shown.tokens)] == [True] * (n_prompt + 3)


def test_echo_without_an_answer_scores_the_prompt(complete) -> None:
    scored = complete(max_tokens=0, echo=True, logprobs=0)
    assert text(scored) == VERSE
    assert len(scored.choices[0].logprobs.tokens) == scored.usage.prompt_tokens


def test_chat_echo_repeats_the_last_message(chat) -> None:
    messages = SUM + [{"role": "assistant", "content": "7 + 5"}]
    answer = chat(messages=messages, echo=True, add_generation_prompt=False, continue_final_message=True)
    assert said(answer).startswith("7 + 5 = 12")


def test_a_token_comes_first_among_its_alternatives(complete) -> None:
    shown = complete(logprobs=2, temperature=2, seed=6).choices[0].logprobs
    for token, top in zip(shown.tokens, shown.top_logprobs):
        names = list(top)
        others = [top[name] for name in names[1:]]
        assert names[0] == token and 2 <= len(names) <= 3 and others == sorted(others, reverse=True)


def test_prompt_logprobs(complete, chat) -> None:
    shown = complete(prompt_logprobs=2, max_tokens=1).choices[0].prompt_logprobs
    echoed = complete(echo=True, logprobs=2, max_tokens=1).choices[0].logprobs
    assert shown[0] is None
    for entry, logprob, token in zip(shown[1:], echoed.token_logprobs[1:], echoed.tokens[1:]):
        assert 2 <= len(entry) <= 3
        of_prompt = [e for e in entry.values() if e["decoded_token"] == token]
        assert of_prompt and of_prompt[0]["logprob"] == pytest.approx(logprob, abs=1e-4)
        assert sorted(e["rank"] for e in entry.values())[:2] == [1, 2]
    assert len(chat(prompt_logprobs=0, max_tokens=1).prompt_logprobs) == chat(max_tokens=1).usage.prompt_tokens
    with pytest.raises(openai.BadRequestError):
        complete(prompt_logprobs=1, stream=True)


def test_suffix_is_refused_where_the_tokenizer_cannot_fill_in(complete) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        complete(suffix=" and so on")
    assert refused.value.body["param"] == "suffix"


def test_skip_special_tokens(complete) -> None:
    prompt = models.chats()[0].prompt
    shown = complete(prompt=prompt, max_tokens=64, skip_special_tokens=False, ignore_eos=True)
    hidden = complete(prompt=prompt, max_tokens=64, skip_special_tokens=True, ignore_eos=True)
    assert models.END_OF_TURN in text(shown) and models.END_OF_TURN not in text(hidden)


def test_spaces_between_special_tokens(complete) -> None:
    """The tokenizer here writes none of its own; both values are taken and give the same text."""
    assert text(complete(spaces_between_special_tokens=False)) == text(complete(spaces_between_special_tokens=True))


def test_return_token_ids_and_tokens_as_ids(complete, chat, server: Server) -> None:
    answer = complete(return_token_ids=True, logprobs=0, return_tokens_as_token_ids=True).choices[0]
    assert answer.logprobs.tokens == [f"token_id:{id}" for id in answer.token_ids]
    back = server.post("/detokenize", {"model": "tiny", "tokens": answer.token_ids}).json()
    assert back["prompt"] == answer.text
    in_chat = chat(return_token_ids=True, max_tokens=3)
    assert len(in_chat.prompt_token_ids) == in_chat.usage.prompt_tokens
    assert len(in_chat.choices[0].token_ids) == in_chat.usage.completion_tokens
    assert getattr(complete().choices[0], "token_ids", None) is None


def test_what_ended_an_answer_has_a_log_probability(complete, chat) -> None:
    """Where its token is told; else neither is."""
    ids = complete(return_token_ids=True).choices[0].token_ids
    stop = {"stop_token_ids": [ids[5]], "logprobs": 1, "return_tokens_as_token_ids": True}
    told = complete(**stop, return_token_ids=True).choices[0]
    assert told.token_ids[-1] == ids[5] and told.logprobs.tokens == [f"token_id:{id}" for id in told.token_ids]
    assert complete(**stop).choices[0].logprobs.tokens == told.logprobs.tokens[:-1]
    answer = chat(return_token_ids=True, logprobs=True).choices[0]
    assert answer.finish_reason == "stop" and len(answer.logprobs.content) == len(answer.token_ids)
    assert -5 < answer.logprobs.content[-1].logprob <= 0


def test_the_first_chunk_of_a_chat_has_the_tokens_of_the_prompt(chat) -> None:
    whole = chat(return_token_ids=True)
    first, *others = [chunk.model_dump() for chunk in chat(return_token_ids=True, stream=True)]
    assert first["prompt_token_ids"] == whole.prompt_token_ids
    assert not any("prompt_token_ids" in chunk for chunk in others)


def test_a_stream_of_a_completion_has_a_chunk_for_each_token(complete) -> None:
    """Also where a stop text holds the text back."""
    whole = complete(max_tokens=24)
    held = text(whole)[4:12]
    options = {"stop": held + "#", "stream": True, "return_token_ids": True}
    chunks = [chunk.choices[0] for chunk in complete(max_tokens=24, **options)]
    assert [len(chunk.token_ids) for chunk in chunks[:-1]] == [1] * (len(chunks) - 1)
    assert len(chunks) >= whole.usage.completion_tokens - 1
    assert "" in [chunk.text for chunk in chunks] and "".join(chunk.text for chunk in chunks) == text(whole)


# --- The prompt


@pytest.mark.parametrize("kind", ["text", "texts", "tokens", "token lists", "mixed"])
def test_every_form_of_prompt(complete, kind: str) -> None:
    plain = complete(return_token_ids=True).choices[0]
    ids = plain.prompt_token_ids
    given = {"text": VERSE, "texts": [VERSE] * 2, "tokens": ids, "token lists": [ids] * 3, "mixed": [VERSE, ids]}[kind]
    answer = complete(prompt=given)
    assert [choice.text for choice in answer.choices] == [plain.text] * len(answer.choices)
    assert len(answer.choices) == {"text": 1, "texts": 2, "tokens": 1, "token lists": 3, "mixed": 2}[kind]


def test_truncate_prompt_tokens(complete) -> None:
    ids = complete(return_token_ids=True).choices[0].prompt_token_ids

    def kept(**extra: Any) -> list[int]:
        return complete(max_tokens=1, return_token_ids=True, **extra).choices[0].prompt_token_ids

    assert kept(truncate_prompt_tokens=3) == ids[-3:]
    assert kept(truncate_prompt_tokens=3, truncation_side="right") == ids[:3]
    assert kept(truncate_prompt_tokens=-1) == ids
    with pytest.raises(openai.BadRequestError):
        kept(truncate_prompt_tokens=10**6)


def test_add_special_tokens(complete) -> None:
    """The tokenizer here adds none, so both values give the same prompt."""
    for value in (True, False):
        assert complete(add_special_tokens=value).usage.prompt_tokens == complete().usage.prompt_tokens


def test_add_generation_prompt_and_continue_final_message(chat) -> None:
    with_it, without = chat(max_tokens=1), chat(max_tokens=1, add_generation_prompt=False)
    assert with_it.usage.prompt_tokens > without.usage.prompt_tokens
    messages = SUM + [{"role": "assistant", "content": "7 + 5 = "}]
    continued = chat(messages=messages, add_generation_prompt=False, continue_final_message=True)
    assert said(continued).startswith("12")
    with pytest.raises(openai.BadRequestError):
        chat(messages=messages, add_generation_prompt=True, continue_final_message=True)


def test_chat_template_and_its_kwargs(chat) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tail }}"
    bare = chat(chat_template=template, chat_template_kwargs={"tail": ""}, max_tokens=1)
    tailed = chat(chat_template=template, chat_template_kwargs={"tail": " one two three"}, max_tokens=1)
    assert bare.usage.prompt_tokens < tailed.usage.prompt_tokens < chat(max_tokens=1).usage.prompt_tokens + 8
    for broken in ("{% for %}", "{{ raise_exception('no') }}", "{% for i in range(10**9) %}{{ i }}{% endfor %}"):
        with pytest.raises(openai.BadRequestError):
            chat(chat_template=broken)


def test_documents_reach_the_template(chat) -> None:
    template = "{% for d in documents %}{{ d.title }}: {{ d.text }}\n{% endfor %}"
    documents = [{"title": "one", "text": "In the beginning"}, {"title": "two", "text": "God created"}]
    one = chat(chat_template=template, documents=documents[:1], max_tokens=1).usage.prompt_tokens
    assert chat(chat_template=template, documents=documents, max_tokens=1).usage.prompt_tokens > one


def test_content_as_parts_is_the_same_prompt(chat) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": SUM[0]["content"]}]}]
    assert said(chat(messages=parts)) == said(chat())


# --- The rest


def test_a_number_out_of_range_is_told_the_bound(complete) -> None:
    for seed, words in ((2**63, "less than or equal to 9223372036854775807"), (-(2**63) - 1, "greater than or equal to")):
        with pytest.raises(openai.BadRequestError, match=words):
            complete(seed=seed)


def test_what_is_of_vllms_plugins_changes_nothing(complete, chat) -> None:
    assert text(complete(vllm_xargs={"a": 1})) == text(complete())
    assert said(chat(thinking_token_budget=-1)) == said(chat())


def test_the_whole_vocabulary_where_it_is_allowed(complete, tmp_path: Path) -> None:
    with pytest.raises(openai.BadRequestError, match="from 0 to 20"):
        complete(logprobs=-1)
    unbounded = start(tmp_path / "log", "--served-model-name", "tiny", "--max-logprobs=-1")
    try:
        body = {"prompt": VERSE, "max_tokens": 1, "logprobs": -1}
        shown = unbounded.post("/v1/completions", body).json()["choices"][0]["logprobs"]
        assert len(shown["top_logprobs"][0]) > 3000
    finally:
        assert stop(unbounded) == 0


def test_user_and_what_only_openai_knows_is_taken(chat) -> None:
    plain = said(chat())
    assert said(chat(user="somebody", store=False, metadata={"a": "b"}, service_tier="auto")) == plain


def test_priority_needs_the_policy(complete) -> None:
    assert text(complete(priority=0)) == text(complete())
    with pytest.raises(openai.BadRequestError) as refused:
        complete(priority=1)
    assert refused.value.body["param"] == "priority"


def test_a_request_id_comes_back(complete, chat, client: openai.OpenAI) -> None:
    assert complete(request_id="mine-1").id == "cmpl-mine-1"
    headers = {"X-Request-Id": "mine-2"}
    answer = client.chat.completions.create(model="tiny", messages=SUM, extra_headers=headers)
    assert answer._request_id == "mine-2" and answer.id == "chatcmpl-mine-2"


def test_a_missing_model_is_the_served_one(server: Server) -> None:
    answer = server.post("/v1/chat/completions", {"messages": SUM, "temperature": 0}).json()
    assert answer["model"] == "tiny" and answer["choices"][0]["message"]["content"].startswith("7 + 5")
    assert server.post("/v1/completions", {"model": "", "prompt": "x", "max_tokens": 1}).json()["model"] == "tiny"


def test_a_cache_salt_is_not_empty(server: Server, embedder: Server) -> None:
    for where, path, body in [
        (server, "/v1/chat/completions", {"messages": SUM}),
        (server, "/v1/completions", {"prompt": VERSE}),
        (embedder, "/v1/embeddings", {"input": VERSE}),
    ]:
        assert where.post(path, {**body, "cache_salt": "mine"}).status == 200
        refused = where.post(path, {**body, "cache_salt": ""})
        assert refused.status == 400 and refused.json()["error"]["param"] == "cache_salt"


def test_unknown_parameters_are_told(server: Server) -> None:
    answer = server.post("/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 1, "no_such": 1})
    assert answer.status == 200 and "no_such" in answer.headers["x-slipway-ignored-parameters"]


def test_stream_options(client: openai.OpenAI) -> None:
    def chunks(**extra: Any) -> list[Any]:
        return list(client.chat.completions.create(model="tiny", messages=SUM, temperature=0, stream=True, **extra))

    assert all(chunk.usage is None for chunk in chunks())
    last = chunks(stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in last[:-1]) and last[-1].usage.completion_tokens > 0
    each = chunks(stream_options={"include_usage": True, "continuous_usage_stats": True})
    counts = [chunk.usage.completion_tokens for chunk in each]
    assert counts == sorted(counts) and counts[-1] == last[-1].usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks(stream_options={"continuous_usage_stats": True}))
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=SUM, stream_options={"include_usage": True})


def test_a_stream_that_counts_ends_with_a_text(client: openai.OpenAI) -> None:
    """Even where the last token has no text of its own."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = client.chat.completions.create(
        model="tiny", messages=SUM, temperature=0, stream=True, stream_options=options, stop="7"
    )
    deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]
    assert [delta.content for delta in deltas] == ["", ""]


def test_a_stream_with_everything_is_the_whole_answer(client: openai.OpenAI) -> None:
    """n, logprobs and a stop text together, streamed and not."""
    request: dict[str, Any] = {
        "model": "tiny", "prompt": [VERSE, "In the beginning"], "n": 2, "temperature": 1, "seed": 9, "max_tokens": 32,
        "stop": ["and", "the"], "logprobs": 1,
    }  # fmt: skip
    whole = client.completions.create(**request).choices
    texts, tokens, reasons = [""] * 4, [[] for _ in range(4)], [None] * 4
    for chunk in client.completions.create(**request, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.tokens if choice.logprobs else []
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole]
    assert reasons == [choice.finish_reason for choice in whole]
    assert tokens == [choice.logprobs.tokens for choice in whole]


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1"])
def test_both_prefixes(server: Server, prefix: str) -> None:
    client = openai.OpenAI(base_url=server.url + prefix, api_key="second-key", max_retries=0)
    assert client.models.list().data
    assert client.chat.completions.create(model="tiny", messages=SUM, max_tokens=1).choices
