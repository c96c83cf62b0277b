//! The tree of a template.

use std::sync::Arc;

/// A name, as its index in the template's list of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Symbol(pub(super) u32);

/// A constant of the template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Constant {
    None,
    Bool(bool),
    Int(i64),
    /// An integer that is no `i64`, in decimal digits.
    Big(String),
    Float(f64),
    Text(String),
}

/// A template.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) body: Vec<Node>,
    pub(super) names: Vec<String>,
    pub(super) constants: Vec<Constant>,
}

/// A statement, and its line.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) statement: Statement,
}

#[derive(Debug)]
pub(super) enum Statement {
    Data(String),
    Output(Expr),
    For(Arc<ForLoop>),
    /// Conditions with their bodies, and the body without a condition.
    If(Vec<(Expr, Vec<Node>)>, Vec<Node>),
    Set(Target, Expr),
    /// The value is the rendered body, which the expression sees as [`Expr::Body`].
    SetBlock(Target, Expr, Vec<Node>),
    FilterBlock(Expr, Vec<Node>),
    With(Vec<(Target, Expr)>, Vec<Node>),
    Macro(Arc<Macro>),
    CallBlock(Arc<Macro>, Call),
    /// A body with variables of its own.
    Scope(Vec<Node>),
    Block(Block),
    Break,
    Continue,
    /// A statement that needs other templates.
    NeedsLoader(&'static str),
}

#[derive(Debug)]
pub(super) struct ForLoop {
    pub(super) target: Target,
    pub(super) iterable: Expr,
    pub(super) condition: Option<Expr>,
    pub(super) is_recursive: bool,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Symbol,
    pub(super) parameters: Vec<(Symbol, Option<Expr>)>,
    pub(super) body: Vec<Node>,
    /// The special names that the body reads.
    pub(super) uses: SpecialNames,
}

/// Which special names the body of a macro reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SpecialNames {
    pub(super) varargs: bool,
    pub(super) kwargs: bool,
    pub(super) caller: bool,
}

#[derive(Debug)]
pub(super) struct Block {
    /// The block sees the variables around it.
    pub(super) is_scoped: bool,
    pub(super) body: Vec<Node>,
}

/// What a value is assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(Symbol),
    /// An attribute of a namespace.
    Attribute(Symbol, String),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(super) enum Expr {
    Constant(usize),
    Name(Symbol),
    /// The rendered body of a filter block or a set block.
    Body,
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, String),
    Item(Box<Expr>, Box<Expr>),
    /// An item between bounds: start, stop and step.
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Call>),
    Filter(Box<Named>),
    Test(Box<Named>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Condition(Box<Condition>),
}

/// A call of a value.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) callee: Expr,
    pub(super) arguments: ArgumentList,
}

/// A filter or a test of a value.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) value: Expr,
    pub(super) arguments: ArgumentList,
}

#[derive(Debug)]
pub(super) struct Condition {
    pub(super) test: Expr,
    pub(super) then: Expr,
    pub(super) otherwise: Option<Expr>,
}

#[derive(Debug, Default)]
pub(super) struct ArgumentList {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(String, Expr)>,
    /// `*args`.
    pub(super) rest: Option<Expr>,
    /// `**kwargs`.
    pub(super) named_rest: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

impl Operator {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::FloorDiv => "//",
            Self::Mod => "%",
            Self::Pow => "** or pow()",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}
