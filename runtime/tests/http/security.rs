//! Who may ask, from where, and what a stranger can cost.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;

use crate::fixture::{Reply, Server, tiny};

async fn asked(server: &Server, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_key_may_come_as_any_client_sends_it() {
    let server = tiny(&[("api-key", "first,second")]).await;
    for (header, value, status) in [
        ("authorization", "Bearer first", 200),
        ("authorization", "bearer second", 200),
        ("authorization", "first", 200),
        ("x-api-key", "second", 200),
        ("authorization", "Bearer third", 401),
        ("x-api-key", "third", 401),
        ("x-other", "first", 401),
    ] {
        let reply = asked(&server, Method::GET, "/v1/models", &[(header, value)]).await;
        assert_eq!(reply.status, status, "{header}: {value}");
    }
    for open in [
        "/livez",
        "/readyz",
        "/health",
        "/metrics",
        "/version",
        "/internal/load",
    ] {
        assert_eq!(server.get(open).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn pages_of_any_origin_may_ask_and_need_the_key() {
    let server = tiny(&[("api-key", "secret")]).await;
    let preflight = [
        ("origin", "https://page"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let reply = asked(&server, Method::OPTIONS, "/v1/chat/completions", &preflight).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["access-control-allow-origin"], "*");
    assert_eq!(reply.headers["access-control-allow-methods"], "POST");
    assert_eq!(
        reply.headers["access-control-allow-headers"],
        "authorization,content-type"
    );
    let without = asked(&server, Method::GET, "/v1/models", &preflight[..1]).await;
    assert_eq!(
        (without.status, &without.headers["access-control-allow-origin"]),
        (401, &"*".parse().unwrap())
    );
    for path in ["/internal/load", "/livez"] {
        let reply = asked(&server, Method::OPTIONS, path, &preflight).await;
        assert_eq!(reply.status, 405, "{path}");
        assert!(
            !reply.headers.contains_key("access-control-allow-origin"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_page_cannot_send_a_body_without_asking_first() {
    let server = tiny(&[("allowed-origins", "[]")]).await;
    let body = json!({"prompt": "Hello", "max_tokens": 1}).to_string();
    let send = async |headers: &[(&str, &str)]| {
        let mut request = Request::post("/v1/completions");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        server
            .send(request.body(Body::from(body.clone())).unwrap())
            .await
            .status
    };
    assert_eq!(send(&[]).await, 200);
    assert_eq!(send(&[("origin", "https://page")]).await, 415);
    assert_eq!(
        send(&[("origin", "https://page"), ("content-type", "text/plain")]).await,
        415
    );
    let json = [("origin", "https://page"), ("content-type", "application/json")];
    assert_eq!(
        send(&json).await,
        200,
        "a browser sends this only after a permission"
    );
}

#[tokio::test]
async fn which_pages_may_ask_is_a_setting() {
    let origin = |origin| [("origin", origin)];
    let allowed = async |server: &Server, page: &'static str| {
        let reply = asked(server, Method::GET, "/v1/models", &origin(page)).await;
        assert_eq!(reply.status, 200);
        let header = reply.headers.get("access-control-allow-origin");
        header.map(|value| value.to_str().unwrap().to_string())
    };
    let some = tiny(&[
        ("allowed-origins", r#"["https://a", "https://b"]"#),
        ("allow-credentials", "true"),
    ])
    .await;
    assert_eq!(allowed(&some, "https://b").await.as_deref(), Some("https://b"));
    assert_eq!(allowed(&some, "https://c").await, None);
    let reply = asked(&some, Method::GET, "/v1/models", &origin("https://a")).await;
    assert_eq!(reply.headers["access-control-allow-credentials"], "true");
    let any = tiny(&[("allow-credentials", "true")]).await;
    assert_eq!(allowed(&any, "https://c").await.as_deref(), Some("https://c"));
    let none = tiny(&[("allowed-origins", "[]")]).await;
    assert_eq!(allowed(&none, "https://a").await, None);
}

#[tokio::test]
async fn the_routes_have_prefixes() {
    let server = tiny(&[("root-path", "/models/tiny/")]).await;
    for path in [
        "/v1/models",
        "/models/tiny/v1/models",
        "/v2/abc123/openai/v1/models",
        "/models/tiny/v2/abc123/openai/v1/models",
        "/v2/abc123/health",
    ] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    let job = json!({"input": {"prompt": "Hi"}});
    let reply = server.post("/v2/abc123/runsync?wait=60000", job).await;
    assert_eq!(
        (reply.status, &reply.json()["status"]),
        (200, &json!("COMPLETED"))
    );
    assert_eq!(server.get("/v2/abc123/livez").await.status, 404);
}

#[tokio::test]
async fn no_request_shuts_the_server_down() {
    let server = tiny(&[("api-key", "secret")]).await;
    for path in ["/drain", "/v1/drain", "/shutdown", "/abort"] {
        for method in [Method::GET, Method::POST] {
            let reply = asked(&server, method, path, &[("authorization", "Bearer secret")]).await;
            assert_eq!(reply.status, 404, "{path}");
        }
    }
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_template_of_a_request_can_harm_nobody() {
    let server = tiny(&[]).await;
    let fine = json!({"chat_template": "{{ messages[0].content }} is", "max_tokens": 2});
    let reply = server.chat(fine).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let doubled = "{% set x = x ~ x %}".repeat(40);
    let listed = "{% set x = [x, x] %}".repeat(40);
    for (template, reason) in [
        (
            format!("{{% set x = 'aaaaaaaa' %}}{doubled}{{{{ x }}}}"),
            "bytes of memory",
        ),
        (
            "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}"
                .into(),
            "nests values",
        ),
        (
            format!("{{% set x = [] %}}{listed}{{% set y = x %}}{{% set x = [] %}}{listed}{{{{ x == y }}}}"),
            "steps",
        ),
        ("{{ raise_exception('no') }}".into(), "no"),
        ("{{ 1 ".into(), "end of template"),
    ] {
        let reply = server
            .chat(json!({"chat_template": template, "max_tokens": 2}))
            .await;
        let message = reply.json()["error"]["message"].to_string();
        assert!(
            reply.status == 400 && message.contains(reason),
            "{} {message} for {template:.90}",
            reply.status
        );
    }
    let chain = |unit: &str| format!("{{{{ 1{} }}}}", unit.repeat(120_000 / unit.len()));
    for template in [
        format!("{{{{ {}1 }}}}", "-".repeat(2_400)),
        format!("{{{{ {}1 }}}}", "-".repeat(120_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(30_000)),
        chain("+1"),
        chain("~a"),
        chain(".a"),
        chain("()"),
        chain("|e"),
        chain("**2"),
        chain(" if 1 else 1"),
        format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(10_000)),
    ] {
        let body = json!({"chat_template": template, "max_tokens": 2});
        let reply = server.chat(body).await;
        assert!(
            [200, 400].contains(&reply.status),
            "{} for {template:.40}",
            reply.status
        );
    }
    let long = json!({"chat_template": "x".repeat(200_000)});
    assert_eq!(server.chat(long).await.json()["error"]["param"], "chat_template");
    assert_eq!(server.complete(json!({})).await.status, 200);
}
