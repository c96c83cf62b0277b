//! Sentencepiece's model file, `tokenizer.model`, with BPE or unigram.
//!
//! Owns the split of a text into pieces: normalisation, segmentation, and bytes for text that no piece covers. The ids
//! equal sentencepiece's. Must not know the added tokens of a checkpoint.

mod library;
mod normalizer;
mod proto;
mod unigram;

use std::collections::HashMap;
use std::ops::Range;

use super::bytes::{Leading, Token, fallback_byte};
use super::pairs::{Symbol, merged};
use super::prefixes::Prefixes;
pub(super) use library::Pieces;
pub(super) use normalizer::Opening;
use normalizer::{Normalizer, SPACE};
use proto::{Algorithm, Model, Piece, PieceKind};
use unigram::{Score, Unigram};

/// A loaded `tokenizer.model`.
#[derive(Debug)]
pub(super) struct SentencePiece {
    pieces: Vec<Piece>,
    /// Pieces that a text can be split into.
    words: Prefixes,
    /// Pieces that are never split.
    user_defined: Prefixes,
    normalizer: Normalizer,
    segmenter: Segmenter,
    /// The piece of each byte, if unknown characters become bytes.
    bytes: Option<Vec<u32>>,
    unknown: u32,
    bos: Option<u32>,
    eos: Option<u32>,
    /// What decoding removes at the start of a text.
    leading: Leading,
}

#[derive(Debug)]
enum Segmenter {
    /// The rank of each piece; a lower rank is merged earlier.
    Bpe(Vec<u32>),
    Unigram(Unigram),
}

impl SentencePiece {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn parse(file: &[u8]) -> Result<Self, String> {
        Self::of_model(Model::parse(file)?)
    }

    /// Reads a file whose ids are those of fairseq (XLM-RoBERTa): `<s>`, `<pad>`, `</s>` and the unknown piece are in the
    /// place of the first three pieces, and `<mask>` follows the last.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn parse_fairseq(file: &[u8]) -> Result<Self, String> {
        let mut model = Model::parse(file)?;
        let control = |text: &str| Piece {
            text: text.to_owned(),
            score: 0.0,
            kind: PieceKind::Control,
        };
        let kinds: Vec<PieceKind> = model.pieces.iter().take(3).map(|piece| piece.kind).collect();
        if kinds != [PieceKind::Unknown, PieceKind::Control, PieceKind::Control] {
            return Err("its first pieces are not the unknown piece and two control pieces".into());
        }
        let unknown = model.pieces[0].clone();
        let first = [control("<s>"), control("<pad>"), control("</s>"), unknown];
        model.pieces.splice(..3, first);
        model.pieces.push(control("<mask>"));
        Self::of_model(model)
    }

    fn of_model(model: Model) -> Result<Self, String> {
        if model.has_denormalizer {
            return Err("denormalizer_spec: rules for decoded text are not supported".into());
        }
        let of_kinds = |kinds: &[PieceKind]| {
            let chosen = numbered(&model.pieces).filter(|(_, piece)| kinds.contains(&piece.kind));
            Prefixes::new(chosen.map(|(id, piece)| (piece.text.clone().into_bytes(), id)))
                .map_err(|twice| format!("piece {:?} occurs twice", String::from_utf8_lossy(&twice)))
        };
        let words = of_kinds(&[PieceKind::Normal, PieceKind::UserDefined, PieceKind::Unused])?;
        let user_defined = of_kinds(&[PieceKind::UserDefined])?;
        let unknown = numbered(&model.pieces)
            .find_map(|(id, piece)| (piece.kind == PieceKind::Unknown).then_some(id))
            .ok_or("it has no piece of the type UNKNOWN")?;
        let control = |text: &str| {
            let is_it = |piece: &Piece| piece.kind == PieceKind::Control && piece.text == text;
            numbered(&model.pieces).find_map(|(id, piece)| is_it(piece).then_some(id))
        };
        let leading = match (model.add_dummy_prefix, model.remove_extra_whitespaces) {
            (_, true) => Leading::Spaces(usize::MAX),
            (true, false) => Leading::Spaces(1),
            (false, false) => Leading::Kept,
        };
        Ok(Self {
            words,
            user_defined,
            normalizer: Normalizer::new(&model)?,
            segmenter: Segmenter::new(&model, unknown),
            bytes: byte_pieces(&model)?,
            unknown,
            bos: control(&model.bos_piece),
            eos: control(&model.eos_piece),
            leading,
            pieces: model.pieces,
        })
    }

    /// The ids of a text.
    pub(super) fn encode(&self, text: &str, opening: Opening, ids: &mut Vec<u32>) {
        let text = self.normalizer.normalize(text, &self.user_defined, opening);
        let mut follows_unknown = false;
        for (range, id) in self.segments(&text) {
            let is_unknown = id == self.unknown;
            match &self.bytes {
                Some(bytes) if is_unknown => {
                    ids.extend(
                        text.as_bytes()[range]
                            .iter()
                            .map(|byte| bytes[usize::from(*byte)]),
                    );
                }
                // A run of unknown characters is one token.
                None if is_unknown && follows_unknown => {}
                _ => ids.push(id),
            }
            follows_unknown = is_unknown;
        }
    }

    /// The id of the piece with this text.
    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        let is_mark = |piece: &Piece| matches!(piece.kind, PieceKind::Control | PieceKind::Unknown);
        let mark = || numbered(&self.pieces).find(|(_, other)| is_mark(other) && other.text == piece);
        self.words
            .get(piece.as_bytes())
            .or_else(|| mark().map(|(id, _)| id))
    }

    /// Number of pieces.
    pub(super) fn n_ids(&self) -> u32 {
        self.pieces.len() as u32
    }

    /// The piece that begins a sequence.
    pub(super) fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The piece that ends a sequence.
    pub(super) fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// What decoding removes at the start of a text.
    pub(super) fn leading(&self) -> Leading {
        self.leading
    }

    /// The pieces as tokens of a decoded text.
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> {
        self.pieces.iter().map(|piece| Token {
            bytes: match (piece.kind, fallback_byte(&piece.text)) {
                (PieceKind::Byte, Some(byte)) => vec![byte],
                (PieceKind::Control | PieceKind::Unknown, _) => piece.text.clone().into_bytes(),
                _ => piece.text.replace(SPACE, " ").into_bytes(),
            },
            is_special: matches!(piece.kind, PieceKind::Control | PieceKind::Unknown),
        })
    }

    fn segments(&self, text: &str) -> Vec<(Range<usize>, u32)> {
        match &self.segmenter {
            Segmenter::Bpe(ranks) => self.merge(text, ranks),
            Segmenter::Unigram(unigram) => {
                let mut start = 0;
                let range = |(length, id)| {
                    let range = start..start + length;
                    start = range.end;
                    (range, id)
                };
                unigram.cut(text, &self.words).into_iter().map(range).collect()
            }
        }
    }

    fn merge(&self, text: &str, ranks: &[u32]) -> Vec<(Range<usize>, u32)> {
        let bytes = text.as_bytes();
        // Where an unused piece was merged, so that it can be split there again.
        let mut seams: HashMap<&[u8], usize> = HashMap::new();
        let ranges = merged(self.symbols(text), |left, right| {
            let word = &bytes[left.start..right.end];
            let id = self.words.get(word)?;
            if self.pieces[id as usize].kind == PieceKind::Unused {
                seams.insert(word, left.len());
            }
            Some(ranks[id as usize])
        });
        let mut segments = Vec::with_capacity(ranges.len());
        let mut rest: Vec<Range<usize>> = ranges;
        rest.reverse();
        while let Some(range) = rest.pop() {
            let word = &bytes[range.clone()];
            let id = self.words.get(word).unwrap_or(self.unknown);
            let is_unused = self.pieces[id as usize].kind == PieceKind::Unused;
            match seams.get(word) {
                Some(seam) if is_unused => {
                    let middle = range.start + seam;
                    rest.extend([middle..range.end, range.start..middle]);
                }
                _ => segments.push((range, id)),
            }
        }
        segments
    }

    /// The characters of a text, and its pieces that are never split.
    fn symbols<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Symbol> + 'a {
        let mut rest = text;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let piece = self.user_defined.longest(rest.as_bytes());
            let symbol = Symbol {
                length: piece.map_or(first.len_utf8(), |(length, _)| length),
                merges: piece.is_none(),
            };
            rest = &rest[symbol.length..];
            Some(symbol)
        })
    }
}

impl Segmenter {
    fn new(model: &Model, unknown: u32) -> Self {
        match model.algorithm {
            Algorithm::Bpe => {
                let mut scores: Vec<f32> = model.pieces.iter().map(|piece| piece.score).collect();
                scores.sort_unstable_by(|a, b| b.total_cmp(a));
                scores.dedup();
                let rank = |piece: &Piece| scores.partition_point(|score| *score > piece.score) as u32;
                Self::Bpe(model.pieces.iter().map(rank).collect())
            }
            Algorithm::Unigram => {
                let score = |piece: &Piece| match piece.kind {
                    PieceKind::Normal => Some(Score::Of(piece.score)),
                    PieceKind::UserDefined => Some(Score::Always),
                    PieceKind::Unknown | PieceKind::Control | PieceKind::Unused | PieceKind::Byte => None,
                };
                Self::Unigram(Unigram::new(model.pieces.iter().map(score).collect(), unknown))
            }
        }
    }
}

fn numbered(pieces: &[Piece]) -> impl Iterator<Item = (u32, &Piece)> {
    (0..).zip(pieces)
}

/// The piece of each byte; `None` without `byte_fallback`.
fn byte_pieces(model: &Model) -> Result<Option<Vec<u32>>, String> {
    if !model.byte_fallback {
        return Ok(None);
    }
    let mut ids: Vec<Option<u32>> = vec![None; 256];
    for (id, piece) in numbered(&model.pieces).filter(|(_, piece)| piece.kind == PieceKind::Byte) {
        let byte = fallback_byte(&piece.text)
            .ok_or_else(|| format!("piece {:?} has the type BYTE and is not a byte", piece.text))?;
        ids[usize::from(byte)] = Some(id);
    }
    let all: Option<Vec<u32>> = ids.into_iter().collect();
    all.map(Some)
        .ok_or_else(|| "byte_fallback: a byte has no piece".into())
}
