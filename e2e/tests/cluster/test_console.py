"""The console in a real browser: what a person sees and may do, at the console's Service, with tokens of the cluster."""

import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

import kube
import models
import wait
from kube import ROOT, kubectl

playwright = pytest.importorskip("playwright.sync_api", reason="the Playwright client is not installed")
from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

CONSOLE = "http://slipway-console.slipway-system.svc/"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHAT = models.chats()[0]
PICTURES = ROOT / ".cache" / "screenshots"
PATIENCE_MS = 30_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    PICTURES.mkdir(parents=True, exist_ok=True)
    # As root, Chromium runs only without its own sandbox.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as of:
        browser = of.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def token(namespace: str, role: str) -> str:
    """A token of a service account that has this role in this namespace."""
    kubectl("create", "serviceaccount", role, "-n", namespace)
    kubectl("create", "rolebinding", role, "-n", namespace, f"--clusterrole={role}", f"--serviceaccount={namespace}:{role}")
    return kubectl("create", "token", role, "-n", namespace).strip()


def opened(browser: Browser, namespace: str, role: str, **options: object) -> Page:
    """A page of a person who has signed in and looks at one namespace."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(CONSOLE)
    page.evaluate(f"sessionStorage.setItem('namespace', '{namespace}')")
    page.get_by_label("Token of your cluster").fill(token(namespace, role))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    return page


def looked_at(page: Page, name: str) -> None:
    """Keeps a picture, and finds nothing that keeps people out."""
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.errors == []


def test_a_person_makes_a_model_and_talks_to_it(browser: Browser, namespace: str, hub) -> None:
    page = opened(browser, namespace, "edit", viewport={"width": 1280, "height": 900})
    looked_at(page, "list-empty")
    page.get_by_role("link", name="New model").first.click()
    page.get_by_label("Name", exact=True).fill("chat")
    repository = page.get_by_label("Repository")
    repository.fill("no repository!")
    expect(page.get_by_text("a repository is 'owner/name'")).to_be_visible()
    expect(repository).to_have_attribute("aria-invalid", "true")
    looked_at(page, "new-refused")

    repository.fill("slipway/tiny-trained")
    page.get_by_label("Endpoint").fill(hub.endpoint)
    expect(page.get_by_text("The API server accepts it.")).to_be_visible()
    yaml = page.get_by_label("YAML of the ModelDeployment")
    expect(yaml).to_have_value(wait_for("repo: slipway/tiny-trained"))
    # The form follows the YAML, too.
    yaml.fill(yaml.input_value().replace("spec:\n", "spec:\n  startupTimeoutSeconds: 77\n"))
    expect(page.get_by_label("Startup timeout in seconds")).to_have_value("77")
    expect(page.get_by_text("The API server accepts it.")).to_be_visible()
    looked_at(page, "new")
    page.get_by_role("button", name="Create").click()

    expect(page.locator("h1 .state")).to_have_text("Ready", timeout=120_000)
    assert kube.get("mdep", "chat", namespace)["spec"]["startupTimeoutSeconds"] == 77
    expect(page.get_by_text("every replica has the model's files")).to_be_visible()
    expect(page.get_by_text("LlamaForCausalLM")).to_be_visible()
    looked_at(page, "detail")

    page.get_by_role("link", name="Playground").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Shade tokens by probability").check()
    for role, content in CHAT.messages:
        if role == "system":
            page.get_by_label("System message").fill(content)
    question = next(content for role, content in CHAT.messages if role == "user")
    page.get_by_label("Message", exact=True).fill(question)
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".message.model .content")).to_have_text(CHAT.answer)
    expect(page.locator(".token").first).to_be_visible()
    expect(page.get_by_text("curl -N")).to_be_visible()
    looked_at(page, "playground")

    page.goto(f"{CONSOLE}#/{namespace}/chat/edit")
    page.get_by_text("Engine", exact=True).click()
    page.get_by_label("Sequences in a step").fill("7")
    expect(page.get_by_text("The API server accepts it.")).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Conditions")).to_be_visible()
    assert kube.get("mdep", "chat", namespace)["spec"]["engine"]["maxNumSeqs"] == 7

    page.get_by_role("button", name="One replica fewer").click()
    wait.until("no replica is requested", lambda: kube.get("mdep", "chat", namespace)["spec"]["replicas"] == 0)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    wait.until("it is gone", lambda: not kube.items("mdep", namespace), 60)


def wait_for(text: str) -> re.Pattern[str]:
    """Matches a value that contains the text."""
    return re.compile(re.escape(text))


def test_a_person_without_rights_is_told_so(browser: Browser, namespace: str, hub) -> None:
    kube.apply(kube.model_deployment("seen", "slipway/gated", hub.endpoint), namespace)
    kube.until_reason("seen", namespace, "DownloadUnauthorized", 60)
    dark = {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}}
    page = opened(browser, namespace, "view", **dark)
    expect(page.get_by_text("DownloadUnauthorized")).to_be_visible()
    looked_at(page, "list-phone-dark")
    page.get_by_role("link", name="seen").click()
    expect(page.get_by_text("Remedy:", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="Edit")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)
    looked_at(page, "detail-phone-dark")
    page.goto(f"{CONSOLE}#/new")
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_label("Repository").fill("a/b")
    expect(page.get_by_text("cannot create resource")).to_be_visible()
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_text("cannot create resource")).to_be_visible()
    looked_at(page, "new-phone-dark")
    assert [mdep["metadata"]["name"] for mdep in kube.items("mdep", namespace)] == ["seen"]

    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Token of your cluster").fill("no token")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("The cluster does not accept the token.")).to_be_visible()
    looked_at(page, "sign-in-phone-dark")


def test_a_new_field_of_the_schema_appears_without_a_new_console(browser: Browser, namespace: str) -> None:
    page = opened(browser, namespace, "edit")
    field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/tested"
    add = f'[{{"op":"add","path":"{field}","value":{{"type":"boolean","title":"Tested field"}}}}]'
    kubectl("patch", "crd", "modeldeployments.slipway.dev", "--type=json", "-p", add)
    try:
        # The API server publishes a changed schema some seconds later.
        wait.until("the schema is published", lambda: "Tested field" in published_schema())
        page.goto(f"{CONSOLE}#/new")
        page.get_by_label("Tested field").select_option("On")
        expect(page.get_by_label("YAML of the ModelDeployment")).to_have_value(wait_for("tested: true"))
    finally:
        remove = f'[{{"op":"remove","path":"{field}"}}]'
        kubectl("patch", "crd", "modeldeployments.slipway.dev", "--type=json", "-p", remove)


def published_schema() -> str:
    return kubectl("get", "--raw", "/openapi/v3/apis/slipway.dev/v1alpha1")


def test_another_page_cannot_use_the_console(browser: Browser, namespace: str) -> None:
    page = browser.new_page()
    page.goto(CONSOLE)
    status = "async (path) => (await fetch(path, {headers: {authorization: 'Bearer x'}})).status"
    assert page.evaluate(status, "/k8s/api/v1/namespaces") == 403, "without the header of our own pages"
    ours = "async (path) => (await fetch(path, {headers: {'x-slipway-console': '1', authorization: 'Bearer x'}})).status"
    assert page.evaluate(ours, "/k8s/api/v1/namespaces") == 401
    assert page.evaluate(ours, f"/k8s/api/v1/namespaces/{namespace}/secrets") == 403
    policy = page.evaluate("async () => (await fetch('/')).headers.get('content-security-policy')")
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_with_a_kubeconfig_it_asks_for_no_token_and_knows_its_own_names_only(browser: Browser) -> None:
    binary = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "slipway-operator"
    elsewhere = [str(binary), "console", "--use-kubeconfig", "--listen", "0.0.0.0:8191"]
    refused = subprocess.run(elsewhere, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0 and "loopback address only" in refused.stderr, refused
    server = subprocess.Popen([str(binary), "console", "--use-kubeconfig", "--listen", "127.0.0.1:8191"])
    try:
        page = browser.new_page()

        def open_page() -> bool:
            try:
                page.goto("http://localhost:8191/")
                return True
            except playwright.Error as err:
                raise AssertionError("not yet") from err

        wait.until("the console listens", open_page)
        expect(page.get_by_role("heading", name="Models")).to_be_visible()
        rebound = {"Host": "evil.example", "x-slipway-console": "1"}
        request = urllib.request.Request("http://127.0.0.1:8191/k8s/api/v1/namespaces", headers=rebound)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=30)
        assert error.value.code == 403
    finally:
        server.terminate()
        server.wait()
