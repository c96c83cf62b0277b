//! What makes queries and keys ready for attention on the device, in one pass over a row: limits, norms, rotary
//! positions, and the write to the cache. The CPU composes the same of [`clamp`](crate::clamp), [`norm`](crate::norm()),
//! [`rope`](crate::rope()) and [`kv_write`](crate::kv_write).

pub(crate) mod cuda;
