//! Every architecture against its reference on a CUDA device, which is the stand-in for the driver where the build has
//! made one.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "oracle/fixture.rs"]
mod fixture;
#[path = "oracle/serving.rs"]
mod serving;

use kernels::cuda::testing;
use runtime::model::{Device, DtypeChoice, LoadOptions};
use serde::Deserialize;
use serving::{ALONE, Serving};

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    ids: Vec<u32>,
    #[serde(default)]
    rope_depends_on_length: bool,
    #[serde(default)]
    last_logits_top20: Vec<(usize, f32)>,
    #[serde(default)]
    greedy: Vec<u32>,
}

#[test]
fn first() {
    let name = std::env::var("FIXTURE").unwrap_or("llama2".into());
    let Some(gpu) = testing::gpu(0) else { return };
    let dir = fixture::materialise(&name);
    let json = std::fs::read(dir.path().join("reference.json")).unwrap();
    let reference: Reference = serde_json::from_slice(&json).unwrap();
    let options = LoadOptions {
        device: Device::Cuda(gpu),
        dtype: DtypeChoice::Float32,
        ..LoadOptions::default()
    };
    let serving = Serving::with(dir.path(), ALONE, options);
    for prompt in &reference.prompts {
        let at = std::time::Instant::now();
        let answer = serving.generate(&[&prompt.ids], prompt.greedy.len()).remove(0);
        let worst = prompt
            .last_logits_top20
            .iter()
            .map(|&(token, want)| (answer.logits[token] - want).abs())
            .fold(0.0, f32::max);
        println!(
            "{} tokens + {}: worst logit {worst:e}, {} ms",
            prompt.ids.len(),
            prompt.greedy.len(),
            at.elapsed().as_millis()
        );
        if !prompt.rope_depends_on_length {
            assert_eq!(answer.tokens, prompt.greedy);
        }
    }
}
