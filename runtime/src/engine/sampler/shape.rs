//! What happens to a row of logits before temperature: masks, biases and penalties.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::draw::Draw;
use crate::batch::SamplingParams;

/// The logits with what may not be drawn removed, and biases and penalties applied.
pub(super) fn shape<'a>(logits: &'a [f32], draw: &Draw<'_>) -> Cow<'a, [f32]> {
    let mut shaped = Cow::Borrowed(logits);
    if let Some(mask) = draw.mask {
        keep_masked(shaped.to_mut(), mask);
    }
    if let Some(allowed) = &draw.params.allowed_token_ids {
        shaped = Cow::Owned(keep_allowed(&shaped, allowed));
    }
    let ends = ends_of_bad_words(draw.params, draw.generated);
    for token in ends.chain(draw.forbidden.iter().copied()) {
        if let Some(logit) = shaped.to_mut().get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    for &(token, bias) in &draw.params.logit_bias {
        if let Some(logit) = shaped.to_mut().get_mut(token as usize) {
            *logit += bias;
        }
    }
    penalise(&mut shaped, draw);
    shaped
}

/// Removes the tokens whose bit is not set.
fn keep_masked(logits: &mut [f32], mask: &[u32]) {
    let n_masked = logits.len().min(mask.len() * 32);
    let (masked, beyond) = logits.split_at_mut(n_masked);
    beyond.fill(f32::NEG_INFINITY);
    for (logits, &word) in masked.chunks_mut(32).zip(mask) {
        if word == 0 {
            logits.fill(f32::NEG_INFINITY);
        } else if word != u32::MAX {
            let denied = logits
                .iter_mut()
                .enumerate()
                .filter(|(bit, _)| word >> bit & 1 == 0);
            denied.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
    }
}

/// The logits of the allowed tokens alone.
fn keep_allowed(logits: &[f32], allowed: &[u32]) -> Vec<f32> {
    let mut kept = vec![f32::NEG_INFINITY; logits.len()];
    for &token in allowed {
        if let Some(&logit) = logits.get(token as usize) {
            kept[token as usize] = logit;
        }
    }
    kept
}

/// The tokens that would complete a bad word.
pub(in crate::engine) fn ends_of_bad_words(
    params: &SamplingParams,
    generated: &[u32],
) -> impl Iterator<Item = u32> {
    let words = params.bad_words.iter();
    words.filter_map(move |word| last_of_bad_word(word, generated))
}

fn last_of_bad_word(word: &[u32], generated: &[u32]) -> Option<u32> {
    let (&last, begun) = word.split_last()?;
    generated.ends_with(begun).then_some(last)
}

/// Applies repetition, frequency and presence penalties.
fn penalise(shaped: &mut Cow<'_, [f32]>, draw: &Draw<'_>) {
    let params = draw.params;
    if params.repetition_penalty != 1.0 {
        let seen: HashSet<u32> = draw.prompt.iter().chain(draw.generated).copied().collect();
        let shaped = shaped.to_mut();
        for token in seen {
            let logit = &mut shaped[token as usize];
            let is_positive = *logit > 0.0;
            *logit = if is_positive {
                *logit / params.repetition_penalty
            } else {
                *logit * params.repetition_penalty
            };
        }
    }
    if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for &token in draw.generated {
            *counts.entry(token).or_default() += 1;
        }
        let shaped = shaped.to_mut();
        for (token, count) in counts {
            shaped[token as usize] -= params.frequency_penalty * count as f32 + params.presence_penalty;
        }
    }
}
