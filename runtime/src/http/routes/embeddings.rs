//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};

use crate::api::error::ApiError;
use crate::api::openapi::{Access, BodyOperation, Operation, RouteDoc, schema};
use crate::api::request::parameters::EMBEDDINGS;
use crate::api::request::{self, Encoding, Endianness, Number};
use crate::api::response::ErrorBody;
use crate::api::response::pooled::List;
use crate::api::response::pooled::{Embedding, Vector};
use crate::api::vectors::normalised;
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::generation::prepare;
use crate::http::ignored::json;
use crate::http::request_id::RequestName;
use crate::http::route::{Dialect, Route};
use crate::http::vectors::{list, vectors};
use crate::model::Task;

/// The route.
pub(super) const CREATE: Route = Route {
    doc: RouteDoc {
        path: "/v1/embeddings",
        methods: &["post"],
        summary: "Make vectors of texts",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &EMBEDDINGS,
            answer: schema::<List<Embedding>>,
            event: None,
            error: schema::<ErrorBody>,
        })),
    },
    handler: || post(create),
    dialect: Dialect::Openai,
};

/// Makes a vector of every input.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    name: RequestName,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::embeddings).await?;
    let serving = app.ready()?;
    app.metrics.arrived();
    let vectors = vectors(&serving.engine, &prepared.requests, "input").await?;
    let by_itself = matches!(serving.info.task, Task::Embed { normalises: true, .. });
    let normalises = prepared.normalises.unwrap_or(by_itself);
    let embedding = |(index, mut vector): (usize, Vec<f32>)| {
        vector.truncate(prepared.dimensions.unwrap_or(usize::MAX));
        let vector = if normalises { normalised(vector) } else { vector };
        Embedding {
            index,
            object: "embedding",
            embedding: written(vector, prepared.encoding),
        }
    };
    let data = vectors.into_iter().enumerate().map(embedding).collect();
    let id = name.id("embd-", prepared.request_id.as_deref());
    Ok(json(
        &list(id, &prepared.model, data, &prepared.requests),
        &prepared.ignored,
    ))
}

fn written(vector: Vec<f32>, encoding: Encoding) -> Vector {
    match encoding {
        Encoding::Float => Vector::Float(vector),
        Encoding::Base64(number, endianness) => {
            let bytes: Vec<u8> = match number {
                Number::Float32 => ordered(&vector, endianness, f32::to_le_bytes),
                Number::Float16 => ordered(&vector, endianness, |x| f16::from_f32(x).to_le_bytes()),
                Number::Bfloat16 => ordered(&vector, endianness, |x| bf16::from_f32(x).to_le_bytes()),
            };
            Vector::Base64(STANDARD.encode(bytes))
        }
    }
}

/// The bytes of all numbers; `little` returns those of one number, the lowest first.
fn ordered<const N: usize>(
    vector: &[f32],
    endianness: Endianness,
    little: impl Fn(f32) -> [u8; N],
) -> Vec<u8> {
    let is_big = match endianness {
        Endianness::Native => cfg!(target_endian = "big"),
        Endianness::Little => false,
        Endianness::Big => true,
    };
    let bytes = |x: &f32| {
        let mut bytes = little(*x);
        if is_big {
            bytes.reverse();
        }
        bytes
    };
    vector.iter().flat_map(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_their_type_and_order() {
        let bytes = |number, endianness| match written(vec![1.0, -2.5], Encoding::Base64(number, endianness))
        {
            Vector::Base64(text) => STANDARD.decode(text).unwrap(),
            Vector::Float(numbers) => panic!("{numbers:?}"),
        };
        assert_eq!(
            bytes(Number::Float16, Endianness::Little),
            [0x00, 0x3c, 0x00, 0xc1]
        );
        assert_eq!(bytes(Number::Float16, Endianness::Big), [0x3c, 0x00, 0xc1, 0x00]);
        assert_eq!(bytes(Number::Bfloat16, Endianness::Big), [0x3f, 0x80, 0xc0, 0x20]);
        let big = bytes(Number::Float32, Endianness::Big);
        assert_eq!(big, [1.0_f32.to_be_bytes(), (-2.5_f32).to_be_bytes()].concat());
        let native = bytes(Number::Float32, Endianness::Native);
        assert_eq!(native, [1.0_f32.to_ne_bytes(), (-2.5_f32).to_ne_bytes()].concat());
    }
}
