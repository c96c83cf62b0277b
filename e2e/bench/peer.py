"""The peer of the front-end benchmark: FastAPI under uvicorn, with the same answers and no engine behind it.

It reads the request with pydantic and writes each event with `json.dumps`, which is less than a server does that has
tokens to wait for, to decode and to count.
"""

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

TOKEN = "a"

app = FastAPI()


class Message(BaseModel):
    role: str
    content: str


class ChatRequest(BaseModel):
    model: str
    messages: list[Message]
    max_tokens: int = 16
    temperature: float = 1
    ignore_eos: bool = False
    stream: bool = False


@app.post("/v1/chat/completions", response_model=None)
async def chat(request: ChatRequest) -> StreamingResponse | dict[str, Any]:
    envelope = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion.chunk" if request.stream else "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "system_fingerprint": "peer",
    }
    if request.stream:
        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(events(envelope, request.max_tokens), media_type="text/event-stream", headers=headers)
    message = {"role": "assistant", "content": TOKEN * request.max_tokens, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    n_prompt = sum(len(m.content) for m in request.messages)
    usage = {"prompt_tokens": n_prompt, "completion_tokens": request.max_tokens, "total_tokens": n_prompt + request.max_tokens}
    return {**envelope, "choices": [choice], "usage": usage}


async def events(envelope: dict[str, Any], n_tokens: int) -> AsyncIterator[str]:
    yield event(envelope, {"role": "assistant", "content": ""}, None)
    for _ in range(n_tokens):
        yield event(envelope, {"content": TOKEN}, None)
    yield event(envelope, {}, "length")
    yield "data: [DONE]\n\n"


def event(envelope: dict[str, Any], delta: dict[str, str], finish_reason: str | None) -> str:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return f"data: {json.dumps({**envelope, 'choices': [choice]})}\n\n"
