"""The shipped model and what its reference says it answers."""

import json
import re
from dataclasses import dataclass
from typing import Any

from kube import EXAMPLES, ROOT

TINY = EXAMPLES / "models" / "tiny-trained"
END_OF_TURN = "<|im_end|>"


@dataclass(frozen=True)
class Chat:
    """Messages of the reference and its greedy answer."""

    messages: tuple[tuple[str, str], ...]
    prompt: str
    answer: str

    def openai_messages(self) -> list[dict[str, str]]:
        """The messages as the API takes them."""
        return [{"role": role, "content": content} for role, content in self.messages]


def chats() -> list[Chat]:
    """The chat prompts of reference.json; their answers are the same in bf16 and fp32."""
    reference = json.loads((TINY / "reference.json").read_text())
    found = []
    for prompt in reference["prompts"]:
        text, answer = prompt["prompt"], prompt["greedy_text"]
        turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", text, re.DOTALL)
        if turns and answer.endswith(END_OF_TURN):
            found.append(Chat(tuple(turns), text, answer.removesuffix(END_OF_TURN)))
    assert len(found) == 8, "the reference has eight chats"
    return found


def reference(name: str) -> list[dict[str, Any]]:
    """What the oracle computed of one of its checkpoints: the prompts with their ids and embedding or score."""
    return json.loads((ROOT / f"runtime/tests/fixtures/oracle/references/{name}.json").read_text())["prompts"]
