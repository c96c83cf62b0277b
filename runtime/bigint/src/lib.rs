//! Arbitrary integers for `rustpython-parser`, which comes with `tool-parser` and asks for malachite, an LGPL library;
//! it also works with num-bigint, but its choice cannot be made from outside.
pub use num_bigint::*;
