"""The question that every printed command asks."""

import json
import shlex

QUESTION = "Count from 4 to 9."


def command(url: str, model: str) -> str:
    """A line for a shell that streams the answer of `model` at `url`."""
    body = {"model": model, "stream": True, "temperature": 0, "messages": [{"role": "user", "content": QUESTION}]}
    return f"curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}"
