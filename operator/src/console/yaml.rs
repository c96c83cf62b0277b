//! YAML for the pages, by the reader and writer that the rest of Slipway uses.

use axum::{Json, http::header, response::IntoResponse};
use serde_json::Value;

use super::error::Error;

/// The YAML of a value.
pub(super) async fn write(Json(value): Json<Value>) -> Result<impl IntoResponse, Error> {
    let yaml = serde_saphyr::to_string(&value).map_err(|error| Error::Yaml {
        reason: error.to_string(),
    })?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], yaml))
}

/// The value of a YAML document.
pub(super) async fn read(text: String) -> Result<Json<Value>, Error> {
    let value = serde_saphyr::from_str(&text).map_err(|error| Error::Yaml {
        reason: error.to_string(),
    })?;
    Ok(Json(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::Response;
    use serde_json::json;

    async fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_is_written_is_read_as_it_was() {
        let value = json!({
            "spec": {"model": {"servedModelName": ["a: b", "yes", "1.0", "", "# c"]}, "replicas": 0, "x": null,
                     "env": [{"name": "A", "value": "line\nline\n"}, {"name": "B", "value": "1e3"}], "f": 0.5}
        });
        let yaml = text(write(Json(value.clone())).await.unwrap().into_response()).await;
        assert_eq!(read(yaml).await.unwrap().0, value);
    }

    #[tokio::test]
    async fn an_error_has_a_place() {
        let error = read("a: 1\nb: [".into()).await.unwrap_err();
        assert!(error.to_string().contains("line"), "{error}");
        let twice = read("a: 1\na: 2\n".into()).await.unwrap_err();
        assert!(twice.to_string().contains("duplicate"), "{twice}");
    }
}
