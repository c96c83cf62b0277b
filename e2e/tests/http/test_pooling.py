"""Embeddings, scores and rankings, of models whose answers the oracle knows."""

import base64
import math
import struct

import openai
import pytest

import models
from conftest import Server

EMBEDDINGS = models.reference("bge-m3-xlmr-cls")
PAIRS = models.reference("bge-reranker-xlmr")
TEXTS = [prompt["text"] for prompt in EMBEDDINGS]
QUERY = PAIRS[0]["query"]
DOCUMENTS = [pair["document"] for pair in PAIRS if pair["query"] == QUERY]


def close(expected: list[float]) -> object:
    return pytest.approx(expected, abs=2e-4)


def test_embeddings_are_the_reference(embedder: Server) -> None:
    answer = embedder.client().embeddings.create(model="embedder", input=TEXTS, encoding_format="float")
    assert [entry.index for entry in answer.data] == list(range(len(TEXTS)))
    for entry, prompt in zip(answer.data, EMBEDDINGS):
        assert entry.embedding == close(prompt["embedding"])
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(len(p["ids"]) for p in EMBEDDINGS)


@pytest.mark.parametrize("kind", ["text", "texts", "tokens", "token lists"])
def test_every_form_of_input_is_the_same_vector(embedder: Server, kind: str) -> None:
    text, ids = EMBEDDINGS[0]["text"], EMBEDDINGS[0]["ids"]
    given = {"text": text, "texts": [text], "tokens": ids, "token lists": [ids]}[kind]
    answer = embedder.client().embeddings.create(model="embedder", input=given, encoding_format="float")
    assert len(answer.data) == 1 and answer.data[0].embedding == close(EMBEDDINGS[0]["embedding"])


def test_base64_is_the_same_to_the_bit(embedder: Server) -> None:
    request = {"model": "embedder", "input": TEXTS}
    numbers = embedder.post("/v1/embeddings", request).json()["data"]
    encoded = embedder.post("/v1/embeddings", {**request, "encoding_format": "base64"}).json()["data"]
    decoded = embedder.client().embeddings.create(**request).data  # the client asks for base64 by itself
    for as_numbers, as_text, by_client in zip(numbers, encoded, decoded):
        data = base64.b64decode(as_text["embedding"])
        assert data == struct.pack(f"<{len(as_numbers['embedding'])}f", *as_numbers["embedding"])
        assert by_client.embedding == pytest.approx(as_numbers["embedding"], rel=1e-6)


def test_a_text_that_is_only_read_may_fill_the_context(embedder: Server) -> None:
    n_max = embedder.post("/tokenize", {"prompt": "x"}).json()["max_model_len"]
    answer = embedder.post("/v1/embeddings", {"input": "word " * 5000, "truncate_prompt_tokens": -1})
    assert answer.json()["usage"]["prompt_tokens"] == n_max


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": [1, "two"]}, "input"),
        ({"input": "word " * 5000}, "input"),
        ({"input": [10**9]}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"encoding_format": "bytes"}, "encoding_format"),
        ({"encoding_format": "base64", "embed_dtype": "fp8_e4m3"}, "embed_dtype"),
        ({"endianness": "middle"}, "endianness"),
        ({"normalize": True, "use_activation": False}, "use_activation"),
        ({"dimensions": 7}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
    ],
    ids=str,
)
def test_a_bad_embedding_request_names_its_parameter(embedder: Server, parameters: dict, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        embedder.client().post(
            "/embeddings", body={"model": "embedder", "input": "x", **parameters}, cast_to=object
        )
    assert refused.value.body["param"].startswith(param)


@pytest.mark.parametrize("order", ["native", "little", "big"])
def test_numbers_in_base64_have_the_type_that_is_asked_for(embedder: Server, order: str) -> None:
    mark = {"native": "=", "little": "<", "big": ">"}[order]

    def vector(**extra: str) -> bytes:
        body = {"input": TEXTS[0], "encoding_format": "base64", "endianness": order, **extra}
        return base64.b64decode(embedder.post("/v1/embeddings", body).json()["data"][0]["embedding"])

    singles = struct.unpack(f"{mark}64f", vector())
    assert list(singles) == close(EMBEDDINGS[0]["embedding"])
    assert struct.unpack(f"{mark}64e", vector(embed_dtype="float16")) == pytest.approx(singles, abs=1e-3)
    halves = struct.unpack(f"{mark}64H", vector(embed_dtype="bfloat16"))
    widened = struct.unpack("<64f", b"".join(struct.pack("<I", half << 16) for half in halves))
    assert widened == pytest.approx(singles, abs=4e-3)


def test_a_vector_has_length_1_unless_it_is_not_to_have(embedder: Server) -> None:
    def length(**extra: bool) -> float:
        answer = embedder.post("/v1/embeddings", {"input": TEXTS[0], **extra}).json()
        return math.hypot(*answer["data"][0]["embedding"])

    assert length() == length(use_activation=True) == pytest.approx(1)
    assert length(use_activation=False) == length(normalize=False) != pytest.approx(1)


def test_invocations_embed_what_is_said_to_an_embedder(embedder: Server) -> None:
    body = {"messages": [{"role": "user", "content": TEXTS[0]}], "chat_template": "{{ messages[0].content }}"}
    embedded, invoked = (embedder.post(path, body).json()["data"] for path in ("/v1/embeddings", "/invocations"))
    assert embedded == invoked


def test_a_conversation_is_embedded_as_its_flags_say(embedder: Server) -> None:
    template = "{{ messages[0].content }}{{ tail }}{% if add_generation_prompt %} next:{% endif %}"
    base = {"messages": [{"role": "user", "content": TEXTS[0]}], "chat_template": template}

    def vector(**extra: object) -> list[float]:
        answer = embedder.post("/v1/embeddings", {**base, "add_special_tokens": True, **extra})
        assert answer.status == 200, answer.body
        return answer.json()["data"][0]["embedding"]

    assert vector() == vector(continue_final_message=True) == close(EMBEDDINGS[0]["embedding"])
    assert vector(add_generation_prompt=True) != vector() != vector(chat_template_kwargs={"tail": " and more"})
    both = {**base, "add_generation_prompt": True, "continue_final_message": True}
    refused = embedder.post("/v1/embeddings", both)
    assert refused.status == 400 and refused.json()["error"]["param"] == "continue_final_message"


def test_only_a_cross_encoder_has_an_activation(embedder: Server, reranker: Server) -> None:
    pair = {"text_1": PAIRS[0]["query"], "text_2": PAIRS[0]["document"]}
    for path in ("/score", "/invocations"):
        activated, raw = (
            reranker.post(path, {**pair, "use_activation": value}).json()["data"][0]["score"] for value in (True, False)
        )
        assert activated == close(PAIRS[0]["sigmoid"][0]) and 1 / (1 + math.exp(-raw)) == close(activated)
        refused = embedder.post(path, {**pair, "use_activation": True})
        assert refused.status == 400 and refused.json()["error"]["param"] == "use_activation"


def test_a_model_of_another_task_says_so(embedder: Server, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="tiny", input="x")
    with pytest.raises(openai.BadRequestError):
        embedder.client().completions.create(model="embedder", prompt="x")


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_scores_of_a_cross_encoder(reranker: Server, path: str) -> None:
    def scores(text_1: object, text_2: object) -> list[float]:
        answer = reranker.post(path, {"model": "reranker", "text_1": text_1, "text_2": text_2})
        assert answer.status == 200, answer.body
        data = answer.json()["data"]
        assert [entry["index"] for entry in data] == list(range(len(data)))
        return [entry["score"] for entry in data]

    queries, documents = [p["query"] for p in PAIRS], [p["document"] for p in PAIRS]
    each = scores(queries, documents)
    assert each == close([p["sigmoid"][0] for p in PAIRS])
    assert scores(queries[0], documents[0]) == close(each[:1])
    other = reranker.post(path, {"queries": QUERY, "items": DOCUMENTS}).json()["data"]
    assert [entry["score"] for entry in other] == scores(QUERY, DOCUMENTS)
    assert scores(QUERY, DOCUMENTS) == close([s for s, p in zip(each, PAIRS) if p["query"] == QUERY])


def test_scores_of_an_embedding_model_are_cosines(embedder: Server) -> None:
    answer = embedder.post("/v1/score", {"model": "embedder", "text_1": TEXTS[0], "text_2": TEXTS}).json()
    first = EMBEDDINGS[0]["embedding"]
    cosines = [sum(a * b for a, b in zip(first, p["embedding"])) for p in EMBEDDINGS]
    assert [entry["score"] for entry in answer["data"]] == close(cosines)


@pytest.mark.parametrize(
    "texts",
    [
        {"text_1": "a"},
        {"text_2": "a"},
        {"text_1": "a", "text_2": []},
        {"text_1": ["a", "b", "c"], "text_2": ["a", "b"]},
        {"text_1": 1, "text_2": "a"},
        {"text_1": "word " * 500, "text_2": "a"},
    ],
    ids=lambda texts: str(texts)[:32],
)
def test_a_bad_score_request_is_refused(reranker: Server, texts: dict) -> None:
    answer = reranker.post("/v1/score", {"model": "reranker", **texts})
    assert answer.status == 400 and answer.json()["error"]["param"].startswith("text_")


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_are_ranked(reranker: Server, path: str) -> None:
    body = {"model": "reranker", "query": QUERY, "documents": DOCUMENTS}
    answer = reranker.post(path, body).json()
    expected = {i: p["sigmoid"][0] for i, p in enumerate(p for p in PAIRS if p["query"] == QUERY)}
    order = sorted(expected, key=lambda i: -expected[i])
    assert [result["index"] for result in answer["results"]] == order
    assert [result["relevance_score"] for result in answer["results"]] == close([expected[i] for i in order])
    assert answer["id"] and answer["usage"]["total_tokens"] > 0
    for n, count in ((1, 1), (99, len(DOCUMENTS))):
        assert [r["index"] for r in reranker.post(path, {**body, "top_n": n}).json()["results"]] == order[:count]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_texts_are_ranked_in_a_bare_list(reranker: Server, path: str) -> None:
    scores = [p["sigmoid"][0] for p in PAIRS if p["query"] == QUERY]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    body = {"query": QUERY, "texts": DOCUMENTS}
    answer = reranker.post(path, body).json()
    assert [result["index"] for result in answer] == order
    assert [result["score"] for result in answer] == close([scores[i] for i in order])
    assert all(set(result) == {"index", "score"} for result in answer)
    assert [result["index"] for result in reranker.post(path, {**body, "top_n": 1}).json()] == order[:1]
    assert reranker.post(path, {"query": QUERY, "texts": []}).json()["error"]["param"] == "texts"


def test_an_embedding_model_ranks_by_cosine(embedder: Server) -> None:
    answer = embedder.post("/rerank", {"model": "embedder", "query": TEXTS[0], "documents": TEXTS[::-1]}).json()
    assert answer["results"][0]["index"] == len(TEXTS) - 1
    assert answer["results"][0]["relevance_score"] == close(1.0)


@pytest.mark.parametrize("documents", [[], None, 123, [1, 2, 3], "text"], ids=str)
def test_bad_documents_are_refused(reranker: Server, documents: object) -> None:
    answer = reranker.post("/rerank", {"model": "reranker", "query": QUERY, "documents": documents})
    assert answer.status == 400 and answer.json()["error"]["message"]
