"""`make demo`: from nothing to a streamed answer, and what to do next."""

import json
import os
import re
import subprocess
import sys
import time

import progress
import question
import stack

EXAMPLE = progress.ROOT / "examples" / "modeldeployment.yaml"
NAMESPACE = stack.DEMO_NAMESPACE
READY_SECONDS_MAX = 300
QUESTION = "Give me JSON for a person named Ruth, age 34, living in Cairo."


def kubectl(environment: dict[str, str], *args: str, check: bool = True) -> str:
    """Runs kubectl and returns its output."""
    done = subprocess.run(["kubectl", *args], env=environment, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise progress.StepFailed(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def name_of_example() -> str:
    """The name in the example's metadata."""
    found = re.search(r"^kind: ModelDeployment\nmetadata:\n(?:  .*\n)*?  name: (\S+)", EXAMPLE.read_text(), re.MULTILINE)
    if not found:
        raise progress.StepFailed(f"{EXAMPLE} holds no ModelDeployment")
    return found[1]


def until_ready(environment: dict[str, str], name: str) -> dict:
    """Follows the status until Ready, showing phase and progress as they come."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    with progress.Step(f"kubectl apply -f {EXAMPLE.relative_to(progress.ROOT)}") as step:
        kubectl(environment, "apply", "--server-side", "-n", NAMESPACE, "-f", str(EXAMPLE))
        while True:
            mdep = json.loads(kubectl(environment, "get", "mdep", name, "-n", NAMESPACE, "-o", "json"))
            status = mdep.get("status", {})
            ready = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
            step.detail = status.get("progress") or status.get("phase") or "accepted"
            current = status.get("observedGeneration") == mdep["metadata"]["generation"]
            if ready.get("status") == "True" and current:
                return status
            if time.monotonic() > deadline:
                raise progress.StepFailed(f"not ready after {READY_SECONDS_MAX} s: {json.dumps(ready)}")
            time.sleep(0.5)


def ask(environment: dict[str, str], status: dict) -> None:
    """Streams one answer through the Service URL, from inside the cluster's network."""
    print(f"\n> {QUESTION}\n", flush=True)
    body = {"model": status["modelName"], "stream": True, "temperature": 0, "messages": [{"role": "user", "content": QUESTION}]}
    command = [*stack.CLUSTER, "exec", "--", "curl", "-sSN", f"{status['url']}/chat/completions"]
    command += ["-H", "content-type: application/json", "-d", json.dumps(body)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    said = ""
    for line in process.stdout:
        if not line.startswith("data: ") or line.strip() == "data: [DONE]":
            continue
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            piece = choice["delta"].get("content") or ""
            said += piece
            print(piece, end="", flush=True)
    print("\n")
    if process.wait() != 0 or not said:
        raise progress.StepFailed(f"no answer from {status['url']}")


def next_commands(status: dict, name: str, namespace: str) -> str:
    """What a user would want to type now. A test runs every line."""
    return f"""{status['modelName']} answers at {status['url']} inside the cluster. Next:

  eval "$(python3 e2e/cluster/cluster.py env)"     # kubectl and helm for this cluster
  kubectl get mdep -n {namespace} -o wide                  # what runs, and why if it does not
  kubectl port-forward -n {namespace} svc/{name} 8080:80 &
  {question.command("localhost:8080", status["modelName"])}
  kubectl scale mdep {name} -n {namespace} --replicas=2
  kubectl port-forward -n slipway-system svc/slipway-gateway 8090:80 &
  curl -s localhost:8090/v1/models                         # one address for all models
  make console                                             # the same in a browser
  ls examples/                                             # GPUs, gated repositories, claims, API keys
  make cluster-down                                        # when you are done
"""


def main() -> int:
    """The demo; a failure prints what to read."""
    try:
        environment = {**os.environ, **stack.up()}
        name = name_of_example()
        status = until_ready(environment, name)
        ask(environment, status)
        print(next_commands(status, name, NAMESPACE))
    except progress.StepFailed as err:
        print(f"\n{err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
