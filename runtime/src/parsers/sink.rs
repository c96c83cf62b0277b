//! Collects pieces: removes the space between them, joins adjacent pieces of one kind, and numbers calls.

use super::formats::CallIds;
use super::json_text::JsonText;
use super::piece::{Piece, Pieces};
use super::plan::ParserPlan;

/// Letters and digits of a call's random id, unless the template requires another number.
const ID_LENGTH: usize = 24;

/// The kind of the last piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PieceKind {
    Reasoning,
    Content,
    Call,
}

#[derive(Debug)]
pub(super) struct Sink {
    pieces: Pieces,
    kind: Option<PieceKind>,
    /// Space that is written if text of the same kind follows.
    space: String,
    /// Whether space is left out, because no text of this kind has come yet.
    trims: bool,
    n_calls: usize,
    single_call: bool,
    hides_reasoning: bool,
    ids: CallIds,
    n_calls_before: usize,
    /// The arguments of the current call.
    json: JsonText,
}

impl Sink {
    pub(super) fn new(plan: &ParserPlan) -> Self {
        Self {
            pieces: Pieces::new(),
            kind: None,
            space: String::new(),
            trims: false,
            n_calls: 0,
            single_call: plan.single_call,
            hides_reasoning: plan.hides_reasoning,
            ids: plan.ids,
            n_calls_before: plan.n_calls_before,
            json: JsonText::default(),
        }
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        self.text(PieceKind::Reasoning, text);
    }

    pub(super) fn content(&mut self, text: &str) {
        self.text(PieceKind::Content, text);
    }

    /// Writes text. Templates put line ends between reasoning, content and calls, which are part of none of them.
    fn text(&mut self, kind: PieceKind, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.kind != Some(kind) {
            self.trims = kind == PieceKind::Reasoning || self.kind.is_some();
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

    fn append(&mut self, kind: PieceKind, text: &str) {
        match (kind, self.pieces.last_mut()) {
            _ if text.is_empty() || (kind == PieceKind::Reasoning && self.hides_reasoning) => {}
            (PieceKind::Reasoning, Some(Piece::Reasoning(last)))
            | (PieceKind::Content, Some(Piece::Content(last))) => {
                last.push_str(text);
            }
            (PieceKind::Reasoning, _) => self.pieces.push(Piece::Reasoning(text.to_string())),
            (PieceKind::Content | PieceKind::Call, _) => self.pieces.push(Piece::Content(text.to_string())),
        }
    }

    /// Begins a call. The model's own `id` is kept if the template accepts it.
    pub(super) fn call(&mut self, name: &str, id: Option<&str>) {
        self.json = JsonText::default();
        self.kind = Some(PieceKind::Call);
        self.space.clear();
        self.n_calls += 1;
        if self.is_shown() {
            let index = self.n_calls - 1;
            let id = id.filter(|id| self.ids.accept(id)).map(str::to_owned);
            let id = id.unwrap_or_else(|| self.new_id(name, index));
            let name = name.to_string();
            self.pieces.push(Piece::Call { index, id, name });
        }
    }

    fn new_id(&self, name: &str, index: usize) -> String {
        let random = uuid::Uuid::new_v4().simple().to_string();
        match self.ids {
            CallIds::Any => format!("call_{}", &random[..ID_LENGTH]),
            CallIds::Length(length) => random[..length].to_owned(),
            CallIds::Numbered => format!("functions.{name}:{}", self.n_calls_before + index),
        }
    }

    /// Adds text to the arguments of the current call.
    pub(super) fn arguments(&mut self, text: &str) {
        if !self.is_shown() || text.is_empty() {
            return;
        }
        let mut more = String::with_capacity(text.len());
        text.chars().for_each(|char| self.json.push(char, &mut more));
        if let Some(Piece::Arguments { text, .. }) = self.pieces.last_mut() {
            text.push_str(&more);
            return;
        }
        self.pieces.push(Piece::Arguments {
            index: self.n_calls - 1,
            text: more,
        });
    }

    fn is_shown(&self) -> bool {
        self.n_calls == 1 || !self.single_call
    }

    /// Ends the text. Space at the end of content is content.
    pub(super) fn finish(&mut self) {
        let space = std::mem::take(&mut self.space);
        if self.kind == Some(PieceKind::Content) && !self.trims {
            self.append(PieceKind::Content, &space);
        }
    }

    pub(super) fn take(&mut self) -> Pieces {
        std::mem::take(&mut self.pieces)
    }
}
