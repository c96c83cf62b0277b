//! The names that a pickle of weights may ask for: one row each, everything else is refused.

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// An empty dict.
    OrderedDict,
    /// `(storage, offset, size, stride, ..)` becomes a tensor of the storage's dtype.
    RebuildTensor,
    /// The same with a dtype of its own after the hooks.
    RebuildTensorV3,
    /// `(tensor, ..)` is the tensor.
    RebuildParameter,
    /// `(tuple,)` is the tuple.
    Size,
    /// A place in memory, which does not matter.
    Device,
    /// A kind of storage, by the dtype of its elements as safetensors spells it.
    Storage(&'static str),
    /// A dtype as safetensors spells it.
    Dtype(&'static str),
}

const GLOBALS: &[(&str, &str, Global)] = &[
    ("collections", "OrderedDict", Global::OrderedDict),
    ("torch._utils", "_rebuild_tensor", Global::RebuildTensor),
    ("torch._utils", "_rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils", "_rebuild_tensor_v3", Global::RebuildTensorV3),
    ("torch._utils", "_rebuild_parameter", Global::RebuildParameter),
    ("torch", "Size", Global::Size),
    ("torch", "device", Global::Device),
    ("torch", "DoubleStorage", Global::Storage("F64")),
    ("torch", "FloatStorage", Global::Storage("F32")),
    ("torch", "HalfStorage", Global::Storage("F16")),
    ("torch", "BFloat16Storage", Global::Storage("BF16")),
    ("torch", "LongStorage", Global::Storage("I64")),
    ("torch", "IntStorage", Global::Storage("I32")),
    ("torch", "ShortStorage", Global::Storage("I16")),
    ("torch", "CharStorage", Global::Storage("I8")),
    ("torch", "ByteStorage", Global::Storage("U8")),
    ("torch", "BoolStorage", Global::Storage("BOOL")),
    ("torch.storage", "UntypedStorage", Global::Storage("U8")),
    ("torch", "float64", Global::Dtype("F64")),
    ("torch", "float32", Global::Dtype("F32")),
    ("torch", "float16", Global::Dtype("F16")),
    ("torch", "bfloat16", Global::Dtype("BF16")),
    ("torch", "float8_e4m3fn", Global::Dtype("F8_E4M3")),
    ("torch", "float8_e5m2", Global::Dtype("F8_E5M2")),
    ("torch", "float8_e8m0fnu", Global::Dtype("F8_E8M0")),
    ("torch", "int64", Global::Dtype("I64")),
    ("torch", "int32", Global::Dtype("I32")),
    ("torch", "int16", Global::Dtype("I16")),
    ("torch", "int8", Global::Dtype("I8")),
    ("torch", "uint64", Global::Dtype("U64")),
    ("torch", "uint32", Global::Dtype("U32")),
    ("torch", "uint16", Global::Dtype("U16")),
    ("torch", "uint8", Global::Dtype("U8")),
    ("torch", "bool", Global::Dtype("BOOL")),
];

impl Global {
    /// What `module.name` means.
    pub(super) fn find(module: &str, name: &str) -> Result<Global, String> {
        let row = GLOBALS.iter().find(|row| (row.0, row.1) == (module, name));
        row.map(|row| row.2)
            .ok_or_else(|| format!("it asks for {module}.{name}, which no weights need"))
    }
}
