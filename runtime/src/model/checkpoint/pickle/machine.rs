//! A stack machine for the opcodes of pickles that `torch.save` writes.
//!
//! Nothing is executed: a global is a row of a closed list, a call makes a tensor's description or an empty dict.
//! Values are small copies, what has parts lies in one list, so a value that contains itself is no danger. Time
//! and memory are bounded by the number of opcodes, never by a number that the pickle claims. Opcodes: Python's
//! pickletools.py, protocols 2 to 5.

use std::collections::HashMap;

use super::cursor::Cursor;
use super::globals::Global;
use super::limits::N_TENSORS_MAX;
use crate::model::checkpoint::safetensors::size_bytes;

/// Most opcodes; a tensor takes about 40.
const N_OPCODES_MAX: usize = 64 * N_TENSORS_MAX;
/// Most tuples, lists and dicts; a tensor takes 5, a parameter 7.
const N_CONTAINERS_MAX: usize = 8 * N_TENSORS_MAX;
/// Most remembered values; a tensor takes about 8.
const N_REMEMBERED_MAX: usize = 16 * N_TENSORS_MAX;
/// Highest stack; Python's pickler writes a dict in portions of 1000.
const STACK_MAX: usize = 1 << 16;
/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 16;
/// Longest part of a global's name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Most dimensions of a tensor.
const N_DIMS_MAX: usize = 8;

/// What lies on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// None.
    None,
    /// A truth value.
    Bool(bool),
    /// A number of at most 64 bits.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// What no reader needs: floats, longer numbers, bytes, devices.
    Other,
    /// A name of the closed list.
    Global(Global),
    /// A tuple.
    Tuple(usize),
    /// A list.
    List(usize),
    /// A dict; its keys and values alternate.
    Dict(usize),
    /// One of [`Pickle::storages`].
    Storage(usize),
    /// One of [`Pickle::tensors`].
    Tensor(usize),
}

/// Numbers that tensors share.
#[derive(Debug)]
pub(super) struct Storage<'a> {
    /// Its name within the file.
    pub(super) key: &'a str,
    /// Dtype of its elements.
    pub(super) dtype: &'static str,
    /// Elements.
    pub(super) n_elements: usize,
}

/// A view of a storage, everything in elements.
#[derive(Debug)]
pub(super) struct Tensor {
    /// Which of [`Pickle::storages`].
    pub(super) storage_idx: usize,
    /// Its dtype as safetensors spells it.
    pub(super) dtype: &'static str,
    /// Where in the storage it starts.
    pub(super) offset: usize,
    /// Its shape.
    pub(super) shape: Vec<usize>,
    /// From one element of a dimension to the next; as many as there are dimensions.
    pub(super) strides: Vec<usize>,
}

/// An unpickled value and its parts.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    /// The value.
    pub(super) root: Value<'a>,
    /// Every storage that it names, each once.
    pub(super) storages: Vec<Storage<'a>>,
    /// Every tensor.
    pub(super) tensors: Vec<Tensor>,
    containers: Vec<Vec<Value<'a>>>,
}

/// Reads the pickle that `bytes` begin with; returns also what follows it.
///
/// # Errors
/// What it contains that is not in the closed lists of opcodes and globals, or how it contradicts itself.
pub(super) fn load(bytes: &[u8]) -> Result<(Pickle<'_>, &[u8]), String> {
    const PROTO: u8 = 0x80;
    const STOP: u8 = b'.';
    let mut machine = Machine {
        code: Cursor::at(bytes, 0),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        storage_idx: HashMap::new(),
        pickle: Pickle {
            root: Value::None,
            storages: Vec::new(),
            tensors: Vec::new(),
            containers: Vec::new(),
        },
    };
    if machine.code.u8()? != PROTO || !(2..=5).contains(&machine.code.u8()?) {
        return Err("it is not a pickle of protocol 2 to 5".to_owned());
    }
    for _ in 0..N_OPCODES_MAX {
        let at = machine.code.position();
        let opcode = machine.code.u8()?;
        if opcode == STOP {
            machine.pickle.root = machine.pop()?;
            return Ok((machine.pickle, machine.code.rest()));
        }
        machine
            .step(opcode)
            .map_err(|reason| format!("{reason} (byte {at} of its pickle)"))?;
    }
    Err(format!("its pickle has more than {N_OPCODES_MAX} opcodes"))
}

struct Machine<'a> {
    code: Cursor<'a>,
    stack: Vec<Value<'a>>,
    /// Heights of the stack; what lies below the last one is out of reach.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    storage_idx: HashMap<&'a str, usize>,
    pickle: Pickle<'a>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            0x95 => self.code.take(8).map(|_frame| ()),
            b'(' => self.mark(),
            b'q' => self.code.u8().and_then(|idx| self.remember(idx.into())),
            b'r' => self.code.u32().and_then(|idx| self.remember(idx)),
            0x94 => self.remember(self.memo.len() as u32),
            b'a' => self.pop().and_then(|item| self.extend_list(vec![item])),
            b'e' => self.pop_to_mark().and_then(|items| self.extend_list(items)),
            b's' => self.pop_n(2).and_then(|pair| self.extend_dict(pair)),
            b'u' => self.pop_to_mark().and_then(|pairs| self.extend_dict(pairs)),
            b'b' => self.build(),
            _ => {
                let value = self.value(opcode)?;
                self.push(value)
            }
        }
    }

    /// The value that an opcode puts on the stack.
    fn value(&mut self, opcode: u8) -> Result<Value<'a>, String> {
        Ok(match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.code.u8()?.into()),
            b'M' => Value::Int(self.code.u16()?.into()),
            b'J' => Value::Int(i32::from_le_bytes(self.code.array()?).into()),
            0x8a => self.long()?,
            b'G' => self.other(8)?,
            b'X' => self.code.u32().and_then(|len| self.text(len.into()))?,
            0x8c => self.code.u8().and_then(|len| self.text(len.into()))?,
            0x8d => self.code.u64().and_then(|len| self.text(len))?,
            b'B' => self.code.u32().and_then(|len| self.other(len as usize))?,
            b'C' => self.code.u8().and_then(|len| self.other(len.into()))?,
            b')' => self.contain(Vec::new()).map(Value::Tuple)?,
            0x85..=0x87 => self
                .pop_n(usize::from(opcode - 0x84))
                .and_then(|items| self.contain(items))
                .map(Value::Tuple)?,
            b't' => self
                .pop_to_mark()
                .and_then(|items| self.contain(items))
                .map(Value::Tuple)?,
            b']' => self.contain(Vec::new()).map(Value::List)?,
            b'}' => self.contain(Vec::new()).map(Value::Dict)?,
            b'h' => self.code.u8().and_then(|idx| self.recall(idx.into()))?,
            b'j' => self.code.u32().and_then(|idx| self.recall(idx))?,
            b'c' => Value::Global(Global::find(self.line()?, self.line()?)?),
            0x93 => match self.pop_n(2)?.as_slice() {
                [Value::Text(module), Value::Text(name)]
                    if module.len().max(name.len()) <= NAME_BYTES_MAX =>
                {
                    Value::Global(Global::find(module, name)?)
                }
                _ => return Err("the name of a global is not a short text".to_owned()),
            },
            b'R' => self.call()?,
            b'Q' => self.storage()?,
            _ => return Err(format!("opcode 0x{opcode:02x} is none that torch.save writes")),
        })
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        if self.stack.len() >= STACK_MAX {
            return Err(format!("its stack is higher than {STACK_MAX}"));
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = if self.stack.len() > floor {
            self.stack.pop()
        } else {
            None
        };
        top.ok_or_else(|| "its stack is empty".to_owned())
    }

    fn pop_n(&mut self, n_values: usize) -> Result<Vec<Value<'a>>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let start = self
            .stack
            .len()
            .checked_sub(n_values)
            .filter(|start| *start >= floor);
        let start = start.ok_or("its stack is empty")?;
        Ok(self.stack.split_off(start))
    }

    fn mark(&mut self) -> Result<(), String> {
        if self.marks.len() >= STACK_MAX {
            return Err(format!("its stack is higher than {STACK_MAX}"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let start = self.marks.pop().ok_or("its stack has no mark")?;
        Ok(self.stack.split_off(start))
    }

    fn contain(&mut self, items: Vec<Value<'a>>) -> Result<usize, String> {
        let containers = &mut self.pickle.containers;
        if containers.len() >= N_CONTAINERS_MAX {
            return Err(format!(
                "it has more than {N_CONTAINERS_MAX} tuples, lists and dicts"
            ));
        }
        containers.push(items);
        Ok(containers.len() - 1)
    }

    fn remember(&mut self, idx: u32) -> Result<(), String> {
        let value = self.pop()?;
        if self.memo.len() >= N_REMEMBERED_MAX {
            return Err(format!("it remembers more than {N_REMEMBERED_MAX} values"));
        }
        self.memo.insert(idx, value);
        self.push(value)
    }

    fn recall(&self, idx: u32) -> Result<Value<'a>, String> {
        let value = self.memo.get(&idx).copied();
        value.ok_or_else(|| format!("value {idx} was not remembered"))
    }

    /// A number of any length; of those that matter none is longer than 64 bits.
    fn long(&mut self) -> Result<Value<'a>, String> {
        let len = self.code.u8()?;
        let bytes = self.code.take(len.into())?;
        let Some(last) = bytes.last() else {
            return Ok(Value::Int(0));
        };
        if bytes.len() > 8 {
            return Ok(Value::Other);
        }
        let mut wide = [if *last >= 0x80 { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, len: u64) -> Result<Value<'a>, String> {
        if len > TEXT_BYTES_MAX as u64 {
            return Err(format!(
                "a text has {len} bytes, at most {TEXT_BYTES_MAX} are read"
            ));
        }
        let text = std::str::from_utf8(self.code.take(len as usize)?);
        text.map(Value::Text)
            .map_err(|_| "a text is not UTF-8".to_owned())
    }

    fn other(&mut self, n_bytes: usize) -> Result<Value<'a>, String> {
        self.code.take(n_bytes).map(|_| Value::Other)
    }

    /// Up to the end of the line.
    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.code.rest();
        let len = rest.iter().take(NAME_BYTES_MAX).position(|byte| *byte == b'\n');
        let len = len.ok_or("the name of a global does not end")?;
        let line = std::str::from_utf8(self.code.take(len)?);
        self.code.take(1)?;
        line.map_err(|_| "the name of a global is not UTF-8".to_owned())
    }

    fn extend_list(&mut self, items: Vec<Value<'a>>) -> Result<(), String> {
        match self.top()? {
            Value::List(idx) => self.pickle.containers[idx].extend(items),
            _ => return Err("it appends to what is not a list".to_owned()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, pairs: Vec<Value<'a>>) -> Result<(), String> {
        match self.top()? {
            Value::Dict(idx) if pairs.len().is_multiple_of(2) => self.pickle.containers[idx].extend(pairs),
            _ => return Err("it sets items of what is not a dict, or half an item".to_owned()),
        }
        Ok(())
    }

    fn top(&mut self) -> Result<Value<'a>, String> {
        let top = self.pop()?;
        self.push(top)?;
        Ok(top)
    }

    /// Attributes of an object: the versions of modules, which an OrderedDict carries.
    fn build(&mut self) -> Result<(), String> {
        let _attributes = self.pop()?;
        match self.top()? {
            Value::Dict(_) => Ok(()),
            _ => Err("it sets attributes of what is not a dict".to_owned()),
        }
    }

    fn call(&mut self) -> Result<Value<'a>, String> {
        let [Value::Global(global), Value::Tuple(idx)] = self.pop_n(2)?[..] else {
            return Err("it calls what is not a global".to_owned());
        };
        match (global, self.pickle.containers[idx].as_slice()) {
            (Global::OrderedDict, []) => self.contain(Vec::new()).map(Value::Dict),
            (Global::Size, &[size @ Value::Tuple(_)]) => Ok(size),
            (Global::Device, _) => Ok(Value::Other),
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), ..]) => Ok(tensor),
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
                self.tensor([storage, offset, shape, strides], None)
            }
            (Global::RebuildTensorV3, &[storage, offset, shape, strides, _, _, Value::Global(dtype), ..]) => {
                self.tensor([storage, offset, shape, strides], Some(dtype))
            }
            _ => Err(format!(
                "it calls {global:?} with other arguments than torch.save writes"
            )),
        }
    }

    /// A tensor of a storage, an offset, a shape and strides; without a dtype it has the storage's.
    fn tensor(&mut self, view: [Value<'a>; 4], dtype: Option<Global>) -> Result<Value<'a>, String> {
        let [Value::Storage(storage_idx), Value::Int(offset), shape, strides] = view else {
            return Err("a tensor has no storage or no offset".to_owned());
        };
        let dtype = match dtype {
            None => self.pickle.storages[storage_idx].dtype,
            Some(Global::Dtype(dtype)) => dtype,
            Some(other) => return Err(format!("{other:?} is not the dtype of a tensor")),
        };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(format!("a tensor has shape {shape:?} and strides {strides:?}"));
        }
        let tensors = &mut self.pickle.tensors;
        if tensors.len() >= N_TENSORS_MAX {
            return Err(format!("it has more than {N_TENSORS_MAX} tensors"));
        }
        tensors.push(Tensor {
            storage_idx,
            dtype,
            offset: size(offset)?,
            shape,
            strides,
        });
        Ok(Value::Tensor(tensors.len() - 1))
    }

    fn sizes(&self, value: Value<'a>) -> Result<Vec<usize>, String> {
        let Value::Tuple(idx) = value else {
            return Err("the shape of a tensor is not a tuple".to_owned());
        };
        let items = &self.pickle.containers[idx];
        if items.len() > N_DIMS_MAX {
            return Err(format!(
                "a tensor has {} dimensions, at most {N_DIMS_MAX} are read",
                items.len()
            ));
        }
        let number = |item: &Value<'_>| match *item {
            Value::Int(number) => size(number),
            _ => Err("the shape of a tensor is not of numbers".to_owned()),
        };
        items.iter().map(number).collect()
    }

    /// The storage that a persistent id names.
    fn storage(&mut self) -> Result<Value<'a>, String> {
        let Value::Tuple(id) = self.pop()? else {
            return Err("the name of a storage is not a tuple".to_owned());
        };
        // The older layout has a sixth part for views of a storage, which torch no longer writes.
        let (&[
            Value::Text("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            _,
            Value::Int(n),
        ]
        | &[
            Value::Text("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            _,
            Value::Int(n),
            Value::None,
        ]) = self.pickle.containers[id].as_slice()
        else {
            return Err("the name of a storage is not as torch.save writes it".to_owned());
        };
        let n_elements = size(n)?;
        let storages = &mut self.pickle.storages;
        let idx = *self.storage_idx.entry(key).or_insert(storages.len());
        if idx == storages.len() {
            storages.push(Storage {
                key,
                dtype,
                n_elements,
            });
        }
        let known = &storages[idx];
        if (known.dtype, known.n_elements) != (dtype, n_elements) {
            return Err(format!("storage {key} has two lengths or dtypes"));
        }
        if idx >= N_TENSORS_MAX {
            return Err(format!("it has more than {N_TENSORS_MAX} storages"));
        }
        Ok(Value::Storage(idx))
    }
}

impl<'a> Pickle<'a> {
    /// The items of a list.
    pub(super) fn list(&self, value: Value<'_>) -> Option<&[Value<'a>]> {
        match value {
            Value::List(idx) => Some(&self.containers[idx]),
            _ => None,
        }
    }

    /// The keys and values of a dict.
    pub(super) fn pairs(&self, value: Value<'_>) -> Option<impl Iterator<Item = (Value<'a>, Value<'a>)>> {
        match value {
            Value::Dict(idx) => Some(
                self.containers[idx]
                    .chunks_exact(2)
                    .map(|pair| (pair[0], pair[1])),
            ),
            _ => None,
        }
    }

    /// A value of a dict.
    pub(super) fn get(&self, dict: Value<'_>, key: &str) -> Option<Value<'a>> {
        let mut pairs = self.pairs(dict)?;
        pairs.find_map(|(found, value)| (found == Value::Text(key)).then_some(value))
    }
}

impl Storage<'_> {
    /// Its bytes in the file.
    pub(super) fn size_bytes(&self) -> Result<usize, String> {
        size_bytes(self.dtype)
            .and_then(|size| size.checked_mul(self.n_elements))
            .ok_or_else(|| format!("storage {} has {} elements", self.key, self.n_elements))
    }
}

fn size(number: i64) -> Result<usize, String> {
    usize::try_from(number).map_err(|_| format!("a size is {number}"))
}
