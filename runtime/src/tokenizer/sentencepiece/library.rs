//! A unigram model as a `tokenizer.json` has it, for classes that normalise texts in their own way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::proto::{Algorithm, Model, PieceKind};

/// What such a class takes from a file.
pub(in crate::tokenizer) struct Pieces {
    /// Text and score of each piece, in the order of their ids.
    pub(in crate::tokenizer) scores: Vec<(String, f32)>,
    /// The id of the piece for text that no other covers.
    pub(in crate::tokenizer) unknown: usize,
    /// Texts that are never split, and whether they are special tokens.
    pub(in crate::tokenizer) marks: Vec<(String, bool)>,
    /// The step of a normaliser that applies the file's rules; `None` without rules.
    pub(in crate::tokenizer) rules: Option<Value>,
}

impl Pieces {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(in crate::tokenizer) fn parse(file: &[u8]) -> Result<Self, String> {
        let model = Model::parse(file)?;
        if model.algorithm != Algorithm::Unigram {
            return Err(
                "model_type BPE is not supported for this tokenizer_class; supported is unigram".into(),
            );
        }
        let unknown = model
            .pieces
            .iter()
            .position(|piece| piece.kind == PieceKind::Unknown)
            .ok_or("it has no piece of the type UNKNOWN")?;
        let marks = model.pieces.iter().filter_map(|piece| match piece.kind {
            PieceKind::Control => Some((piece.text.clone(), true)),
            PieceKind::UserDefined => Some((piece.text.clone(), false)),
            PieceKind::Normal | PieceKind::Unknown | PieceKind::Unused | PieceKind::Byte => None,
        });
        let charsmap = &model.precompiled_charsmap;
        let rules = (!charsmap.is_empty())
            .then(|| json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(charsmap)}));
        Ok(Self {
            marks: marks.collect(),
            unknown,
            rules,
            scores: model
                .pieces
                .into_iter()
                .map(|piece| (piece.text, piece.score))
                .collect(),
        })
    }
}
