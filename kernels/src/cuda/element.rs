//! The types that memory of the device holds.

use half::{bf16, f16};

/// A number that the host and the device store alike. Any bytes are a valid value.
pub trait Element: bytemuck::Pod + Send + Sync {
    /// Its name in error messages.
    const NAME: &'static str;
}

macro_rules! elements {
    ($($name:ident),*) => {
        $(impl Element for $name {
            const NAME: &'static str = stringify!($name);
        })*
    };
}
elements!(f32, f16, bf16, i32, u32, u64, u8, u16);
