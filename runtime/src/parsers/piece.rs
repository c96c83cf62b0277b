//! The parts of a parsed answer.

use smallvec::SmallVec;

/// A part of an answer. Consecutive pieces continue each other's text and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Reasoning.
    Reasoning(String),
    /// Text for the user.
    Content(String),
    /// A call begins.
    Call {
        /// Which call of the answer.
        index: usize,
        /// Unique to the call.
        id: String,
        /// The name of the tool.
        name: String,
    },
    /// More of a call's arguments: a part of a JSON text.
    Arguments {
        /// Which call of the answer.
        index: usize,
        /// The part.
        text: String,
    },
}

/// The pieces of one token. This is mostly one piece, which takes no heap.
pub type Pieces = SmallVec<[Piece; 1]>;

/// The joined pieces of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Reasoning.
    pub reasoning: String,
    /// Text for the user.
    pub content: String,
    /// Calls in order.
    pub calls: Vec<Call>,
}

/// A call and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Unique to the call.
    pub id: String,
    /// The name of the tool.
    pub name: String,
    /// A JSON text, which is incomplete if the answer ended inside the call.
    pub arguments: String,
}

impl Extend<Piece> for Parts {
    fn extend<T: IntoIterator<Item = Piece>>(&mut self, pieces: T) {
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => self.reasoning.push_str(&text),
                Piece::Content(text) => self.content.push_str(&text),
                Piece::Call { id, name, .. } => self.calls.push(Call {
                    id,
                    name,
                    arguments: String::new(),
                }),
                Piece::Arguments { index, text } => {
                    if let Some(call) = self.calls.get_mut(index) {
                        call.arguments.push_str(&text);
                    }
                }
            }
        }
    }
}
