//! What the CUDA sides of the ops share: a card, its memory, its stream, launches and graphs.
//!
//! A thin layer over the driver's own functions, loaded when the program runs: the same binary starts where there is no
//! driver. Everything is enqueued on one stream, so that work on the device happens in the order of the calls. Must not
//! know any op.

mod buffer;
mod copy;
mod driver;
mod element;
mod elements;
mod error;
mod event;
mod gpu;
mod graph;
mod launch;
mod lt;
mod module;
mod pinned;
mod tensor_map;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod view;

pub use buffer::DeviceBuffer;
pub use copy::Copy2d;
pub use driver::load_driver;
pub use element::Element;
pub use error::CudaError;
pub use event::Event;
pub use gpu::Gpu;
pub use graph::Graph;
pub use launch::{Arg, Launch, Overlap};
pub use lt::{Algorithm, Lt, LtElement, LtProduct, LtShape, LtStrides};
pub use pinned::PinnedBuffer;
pub use tensor_map::{Boxes, TensorMap, TensorType};
pub use view::View;
