//! Where pieces are collected: spaces between them go, neighbours of one kind are joined, calls get their numbers.

use super::{ParserPlan, Piece, Pieces};

/// Letters and digits of a call's id where the format asks for no other number.
const ID_LENGTH: usize = 24;

/// What was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Content,
    Call,
}

#[derive(Debug)]
pub(super) struct Sink {
    pieces: Pieces,
    kind: Option<Kind>,
    /// Space that is written when text of the same kind follows it.
    space: String,
    /// Space is left out until there is text.
    trims: bool,
    n_calls: usize,
    single_call: bool,
    hides_reasoning: bool,
    id_length: Option<usize>,
}

impl Sink {
    pub(super) fn new(plan: &ParserPlan, id_length: Option<usize>) -> Self {
        Self {
            pieces: Pieces::new(),
            kind: None,
            space: String::new(),
            trims: false,
            n_calls: 0,
            single_call: plan.single_call,
            hides_reasoning: plan.hides_reasoning,
            id_length,
        }
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        self.text(Kind::Reasoning, text);
    }

    pub(super) fn content(&mut self, text: &str) {
        self.text(Kind::Content, text);
    }

    /// Templates put line ends between thoughts, content and calls; they belong to none of them.
    fn text(&mut self, kind: Kind, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.kind != Some(kind) {
            self.trims = kind == Kind::Reasoning || self.kind.is_some();
            self.kind = Some(kind);
            self.space.clear();
        }
        let text = if self.trims { text.trim_start() } else { text };
        let solid = text.trim_end().len();
        if solid > 0 {
            self.trims = false;
            let space = std::mem::take(&mut self.space);
            self.append(kind, &space);
            self.append(kind, &text[..solid]);
        }
        self.space.push_str(&text[solid..]);
    }

    fn append(&mut self, kind: Kind, text: &str) {
        match (kind, self.pieces.last_mut()) {
            _ if text.is_empty() || (kind == Kind::Reasoning && self.hides_reasoning) => {}
            (Kind::Reasoning, Some(Piece::Reasoning(last))) | (Kind::Content, Some(Piece::Content(last))) => {
                last.push_str(text);
            }
            (Kind::Reasoning, _) => self.pieces.push(Piece::Reasoning(text.to_string())),
            (Kind::Content | Kind::Call, _) => self.pieces.push(Piece::Content(text.to_string())),
        }
    }

    pub(super) fn call(&mut self, name: &str) {
        self.kind = Some(Kind::Call);
        self.space.clear();
        self.n_calls += 1;
        if self.is_shown() {
            let index = self.n_calls - 1;
            let random = uuid::Uuid::new_v4().simple().to_string();
            let id = match self.id_length {
                Some(length) => random[..length].to_string(),
                None => format!("call_{}", &random[..ID_LENGTH]),
            };
            let name = name.to_string();
            self.pieces.push(Piece::Call { index, id, name });
        }
    }

    pub(super) fn arguments(&mut self, more: &str) {
        if !self.is_shown() || more.is_empty() {
            return;
        }
        if let Some(Piece::Arguments { text, .. }) = self.pieces.last_mut() {
            text.push_str(more);
            return;
        }
        self.pieces.push(Piece::Arguments {
            index: self.n_calls - 1,
            text: more.to_string(),
        });
    }

    fn is_shown(&self) -> bool {
        self.n_calls == 1 || !self.single_call
    }

    /// Space at the end of content is content.
    pub(super) fn finish(&mut self) {
        let space = std::mem::take(&mut self.space);
        if self.kind == Some(Kind::Content) && !self.trims {
            self.append(Kind::Content, &space);
        }
    }

    pub(super) fn take(&mut self) -> Pieces {
        std::mem::take(&mut self.pieces)
    }
}
