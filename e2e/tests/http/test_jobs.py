"""RunPod's job routes by plain HTTP: what its SDK and its users' scripts send."""

from typing import Any

import pytest

import wait
from conftest import Server

SUM = [{"role": "user", "content": "What is 7 plus 5?"}]
GREEDY = {"temperature": 0, "max_tokens": 40}
ENDS = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}


def run(server: Server, given: dict[str, Any], route: str = "/run") -> dict[str, Any]:
    answer = server.post(route, {"input": given})
    assert answer.status == 200, answer.body
    return answer.json()


def finished(server: Server, id: str) -> dict[str, Any]:
    def status() -> dict[str, Any] | None:
        job = server.send("GET", f"/status/{id}").json()
        return job if job["status"] in ENDS else None

    return wait.until("the job ends", status)


def text(output: list[dict[str, Any]]) -> str:
    return "".join(token for batch in output for choice in batch["choices"] for token in choice["tokens"])


def test_runsync_answers_at_once(server: Server) -> None:
    job = run(server, {"messages": SUM, "sampling_params": GREEDY}, "/runsync")
    assert job["status"] == "COMPLETED" and job["id"]
    assert text(job["output"]).startswith("7 + 5 = 12")
    assert job["output"][0]["usage"]["input"] > 0 and job["output"][0]["usage"]["output"] > 0


def test_run_is_queued_and_status_tells_its_end(server: Server) -> None:
    job = run(server, {"messages": SUM, "sampling_params": GREEDY})
    assert job["status"] == "IN_QUEUE"
    done = finished(server, job["id"])
    assert done["status"] == "COMPLETED" and text(done["output"]).startswith("7 + 5 = 12")
    assert done["delayTime"] >= 0 and done["executionTime"] >= 0


def test_messages_override_the_prompt_and_a_prompt_may_take_the_template(server: Server) -> None:
    question = SUM[0]["content"]
    of_messages = run(server, {"prompt": "x", "messages": SUM, "sampling_params": GREEDY}, "/runsync")
    templated = run(server, {"prompt": question, "apply_chat_template": True, "sampling_params": GREEDY}, "/runsync")
    plain = run(server, {"prompt": question, "sampling_params": GREEDY}, "/runsync")
    assert text(of_messages["output"]) == text(templated["output"]) != text(plain["output"])


def test_sixteen_tokens_are_the_default(server: Server) -> None:
    job = run(server, {"prompt": "And Moses said", "sampling_params": {"ignore_eos": True}}, "/runsync")
    assert job["output"][0]["usage"]["output"] == 16


def test_streams_come_in_growing_batches(server: Server) -> None:
    given = {
        "prompt": "And Moses said",
        "stream": True,
        "sampling_params": {"temperature": 0, "max_tokens": 100, "ignore_eos": True},
    }
    batches = streamed(server, run(server, given)["id"])
    assert [len(batch["choices"][0]["tokens"]) for batch in batches] == [1, 3, 9, 27, 50, 10]
    small = {**given, "min_batch_size": 2, "max_batch_size": 8, "batch_size_growth_factor": 2}
    sizes = [len(batch["choices"][0]["tokens"]) for batch in streamed(server, run(server, small)["id"])]
    assert sizes[:4] == [2, 4, 8, 8] and sum(sizes) == 100


def streamed(server: Server, id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def ended() -> bool:
        answer = server.send("GET", f"/stream/{id}").json()
        found.extend(item["output"] for item in answer["stream"])
        return answer["status"] in ENDS and not answer["stream"]

    wait.until("the stream ends", ended)
    return found


def test_openai_route(server: Server) -> None:
    given = {"openai_route": "/v1/chat/completions", "openai_input": {"model": "tiny", "messages": SUM, "temperature": 0}}
    job = run(server, given, "/runsync")
    output = job["output"][0] if isinstance(job["output"], list) else job["output"]
    assert output["choices"][0]["message"]["content"].startswith("7 + 5 = 12")


def test_a_cancelled_job_ends_the_engines_work(server: Server) -> None:
    given = {"prompt": "And Moses said", "sampling_params": {"max_tokens": 1500, "ignore_eos": True}}
    id = run(server, given)["id"]
    assert server.post(f"/cancel/{id}", {}).json()["status"] == "CANCELLED"
    assert finished(server, id)["status"] == "CANCELLED"
    server.wait_until_idle()


def test_the_queue_is_purged(server: Server) -> None:
    answer = server.post("/purge-queue", {}).json()
    assert answer["status"] == "completed" and answer["removed"] >= 0


def test_health_counts_jobs(server: Server) -> None:
    before = server.send("GET", "/health").json()["jobs"]["completed"]
    run(server, {"messages": SUM, "sampling_params": GREEDY}, "/runsync")
    assert server.send("GET", "/health").json()["jobs"]["completed"] == before + 1


@pytest.mark.parametrize(
    "given",
    [None, {}, {"prompt": 1}, {"messages": []}, {"prompt": "x", "sampling_params": {"temperature": 9}}, {"prompt": "x", "sampling_params": {"no_such": 1}}],
    ids=str,
)
def test_bad_input_fails_and_says_why(server: Server, given: Any) -> None:
    answer = server.post("/runsync", {"input": given})
    body = answer.json()
    assert answer.status == 400 or body["status"] == "FAILED"
    assert body["error"]


def test_jobs_need_the_key_and_unknown_ones_are_404(server: Server) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    assert server.send("POST", "/run", {"input": {"prompt": "x"}}, wrong).status == 401
    assert server.send("GET", "/status/no-such", None, wrong).status == 401
    for method, path in (("GET", "/status/no-such"), ("GET", "/stream/no-such"), ("POST", "/cancel/no-such")):
        assert server.send(method, path, {} if method == "POST" else None).status == 404
