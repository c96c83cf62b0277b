"""The language of chat templates against Python's jinja2, in the environment that transformers makes for it."""

import json
import os
import subprocess
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from kube import ROOT
from template_generator import Generator

PROGRAM = ROOT / "target" / "debug" / "examples" / "render_templates"
SEED = 2026
N_TEMPLATES = int(os.environ.get("TEMPLATES", "1500"))
# Renderings of each template.
N_VARIABLES = 3

# What this runtime does otherwise, and why. A difference whose right text or error contains the mark is not counted.
KNOWN = {
    " at 0x": "the address of an object, which is another in each process",
    "<generator object": "a generator prints its address",
    "<function ": "a function prints its address",
    "bound method": "a method prints its address",
    "LoopContext": "jinja2 prints an open loop while it runs; nobody needs it",
    "surrogates not allowed": "texts here are Unicode, without half characters",
    "name 'inf' is not defined": "jinja2 folds a constant to a name that Python does not have",
    "name 'nan' is not defined": "the same",
    "int too large to convert": "Python refuses later where both refuse",
}


class Generation(jinja2.ext.Extension):
    """The tag that marks what a model is trained to say."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: Any) -> str:
        return caller()


def environment() -> jinja2.Environment:
    """transformers' environment (`_compile_jinja_template`)."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    return made


def right(template: jinja2.Template, variables: dict[str, Any]) -> dict[str, str]:
    """What jinja2 makes of a template."""
    try:
        text = template.render(**json.loads(json.dumps(variables)))
        text.encode()
        return {"text": text}
    except Exception as error:  # noqa: BLE001: a template may raise anything.
        return {"error": f"{type(error).__name__}: {error}"}


def expected(made: jinja2.Environment, source: str, all_variables: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What jinja2 makes of a text with each of these variables."""
    try:
        template = made.from_string(source)
    except Exception as error:  # noqa: BLE001
        return [{"error": f"{type(error).__name__}: {error}"}] * len(all_variables)
    return [right(template, variables) for variables in all_variables]


def rendered(jobs: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What the runtime makes of jobs, in one process."""
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    done = subprocess.run([PROGRAM], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_templates_render_what_jinja2_renders() -> None:
    made = environment()
    generator = Generator(SEED)
    cases = [(generator.template(), [generator.variables() for _ in range(N_VARIABLES)]) for _ in range(N_TEMPLATES)]
    jobs = [{"template": source, "variables": variables} for source, all_variables in cases for variables in all_variables]
    right = [answer for source, all_variables in cases for answer in expected(made, source, all_variables)]
    differences = []
    for job, theirs, ours in zip(jobs, right, rendered(jobs), strict=True):
        same = theirs == ours if "text" in theirs else "error" in ours
        known = any(mark.lower() in text.lower() for mark in KNOWN for text in (*theirs.values(), *ours.values()))
        if not same and not known:
            differences.append(f"{job['template']!r}\n  with {job['variables']}\n  jinja2: {theirs}\n  here:   {ours}")
    differences.sort(key=len)
    assert not differences, f"{len(differences)} of {len(jobs)} differ:\n" + "\n".join(differences[:10])
    # A generator whose templates all fail would prove nothing.
    assert sum("text" in answer for answer in right) > len(jobs) // 3
