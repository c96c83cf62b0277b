//! The `ModelProto` message of a `tokenizer.model`, as `sentencepiece_model.proto` declares it.
//!
//! Owns the part of the protocol buffers wire format that this message uses. Each length is checked against the
//! remaining bytes, so the model is never larger than the file.

use super::super::bytes::ID_MAX;

/// The type of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Text.
    Normal,
    /// For text that no other piece covers.
    Unknown,
    /// A special token.
    Control,
    /// Text that is never split.
    UserDefined,
    /// Split into smaller pieces.
    Unused,
    /// `<0x0A>`: one byte.
    Byte,
}

/// One entry of the vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    /// Finite; higher is better.
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// How a text is split into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
}

/// The fields of a model that this version uses. The defaults are those of the declaration.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// In the order of their ids.
    pub(super) pieces: Vec<Piece>,
    pub(super) algorithm: Algorithm,
    pub(super) byte_fallback: bool,
    pub(super) treat_whitespace_as_suffix: bool,
    pub(super) bos_piece: String,
    pub(super) eos_piece: String,
    pub(super) precompiled_charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
    /// Whether rules change decoded text. No known published model has any.
    pub(super) has_denormalizer: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            treat_whitespace_as_suffix: false,
            bos_piece: "<s>".into(),
            eos_piece: "</s>".into(),
            precompiled_charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
            has_denormalizer: false,
        }
    }
}

impl Model {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self::default();
        fields(bytes, |number, value| match number {
            1 => model.piece(value.bytes()?),
            2 => fields(value.bytes()?, |number, value| model.trainer(number, value)),
            3 => fields(value.bytes()?, |number, value| model.normalizer(number, value)),
            5 => fields(value.bytes()?, |number, value| {
                model.has_denormalizer |= number == 2 && !value.bytes()?.is_empty();
                Ok(())
            }),
            _ => Ok(()),
        })?;
        Ok(model)
    }

    fn piece(&mut self, message: &[u8]) -> Result<(), String> {
        let id = self.pieces.len();
        if id > ID_MAX as usize {
            return Err(format!("more than {ID_MAX} pieces"));
        }
        let mut piece = Piece {
            text: String::new(),
            score: 0.0,
            kind: PieceKind::Normal,
        };
        fields(message, |number, value| {
            match number {
                1 => piece.text = value.text()?,
                2 => piece.score = value.float()?,
                3 => piece.kind = kind(value.varint()?)?,
                _ => {}
            }
            Ok(())
        })
        .map_err(|reason| format!("piece {id}: {reason}"))?;
        if piece.text.is_empty() || !piece.score.is_finite() {
            return Err(format!("piece {id} has no text, or its score is not a number"));
        }
        self.pieces.push(piece);
        Ok(())
    }

    fn trainer(&mut self, number: u64, value: Value<'_>) -> Result<(), String> {
        match number {
            3 => {
                self.algorithm = match value.varint()? {
                    1 => Algorithm::Unigram,
                    2 => Algorithm::Bpe,
                    other => {
                        return Err(format!(
                            "model_type {other} is not supported; supported are unigram (1) and BPE (2)"
                        ));
                    }
                }
            }
            24 => self.treat_whitespace_as_suffix = value.flag()?,
            35 => self.byte_fallback = value.flag()?,
            46 => self.bos_piece = value.text()?,
            47 => self.eos_piece = value.text()?,
            _ => {}
        }
        Ok(())
    }

    fn normalizer(&mut self, number: u64, value: Value<'_>) -> Result<(), String> {
        match number {
            2 => self.precompiled_charsmap = value.bytes()?.to_vec(),
            3 => self.add_dummy_prefix = value.flag()?,
            4 => self.remove_extra_whitespaces = value.flag()?,
            5 => self.escape_whitespaces = value.flag()?,
            _ => {}
        }
        Ok(())
    }
}

fn kind(number: u64) -> Result<PieceKind, String> {
    Ok(match number {
        1 => PieceKind::Normal,
        2 => PieceKind::Unknown,
        3 => PieceKind::Control,
        4 => PieceKind::UserDefined,
        5 => PieceKind::Unused,
        6 => PieceKind::Byte,
        other => return Err(format!("type {other} is unknown")),
    })
}

/// A field's value.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn varint(self) -> Result<u64, String> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err("a number has another wire type".into()),
        }
    }

    fn flag(self) -> Result<bool, String> {
        self.varint().map(|value| value != 0)
    }

    fn float(self) -> Result<f32, String> {
        match self {
            Self::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err("a float has another wire type".into()),
        }
    }

    fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err("a message or text has another wire type".into()),
        }
    }

    fn text(self) -> Result<String, String> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8")?;
        Ok(text.to_string())
    }
}

/// Calls `each` with the number and value of every field of a message.
fn fields<'a>(
    mut message: &'a [u8],
    mut each: impl FnMut(u64, Value<'a>) -> Result<(), String>,
) -> Result<(), String> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut message)?),
            1 => {
                take(&mut message, 8)?;
                Value::Fixed64
            }
            2 => {
                let length = varint(&mut message)?;
                Value::Bytes(take(&mut message, length)?)
            }
            5 => {
                let bytes = take(&mut message, 4)?.try_into().expect("4 bytes");
                Value::Fixed32(u32::from_le_bytes(bytes))
            }
            other => return Err(format!("wire type {other} is unknown")),
        };
        each(tag >> 3, value)?;
    }
    Ok(())
}

fn take<'a>(message: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (taken, rest) = message.split_at_checked(length).ok_or("the file is truncated")?;
    *message = rest;
    Ok(taken)
}

fn varint(message: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number has more than 10 bytes".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_wire_format() {
        // pieces { piece: "ab" score: -1.5 type: CONTROL }, trainer_spec { model_type: BPE byte_fallback: true }
        let file = b"\x0a\x0b\x0a\x02ab\x15\x00\x00\xc0\xbf\x18\x03\x12\x05\x18\x02\x98\x02\x01";
        let model = Model::parse(file).unwrap();
        let piece = Piece {
            text: "ab".into(),
            score: -1.5,
            kind: PieceKind::Control,
        };
        assert_eq!(model.pieces, [piece]);
        assert_eq!((model.algorithm, model.byte_fallback), (Algorithm::Bpe, true));
        assert!(model.add_dummy_prefix);
        // A file that is cut inside a field is damaged; one that is cut between fields is a shorter model.
        let cut: Vec<bool> = (0..file.len())
            .map(|n| Model::parse(&file[..n]).is_ok())
            .collect();
        assert_eq!(cut.iter().filter(|is_valid| **is_valid).count(), 2);
    }

    #[test]
    fn an_error_names_the_piece_and_the_fault() {
        let check = |file: &[u8], expected: &str| {
            let reason = Model::parse(file).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        };
        check(b"\x0a\xff\xff\xff\xff\x0f", "truncated");
        check(b"\x0b", "wire type 3");
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "10 bytes");
        check(b"\x12\x02\x18\x03", "model_type 3");
        check(b"\x0a\x05\x0a\x01a\x18\x09", "piece 0: type 9");
        check(b"\x0a\x03\x0a\x01\xff", "UTF-8");
        check(b"\x0a\x00", "piece 0 has no text");
        check(b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x7f", "not a number");
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ends = Model::parse(&bytes);
        }
    }
}
