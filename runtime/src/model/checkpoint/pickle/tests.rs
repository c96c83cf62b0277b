//! Files that torch wrote, files that lie, and files that want to be executed.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::model::checkpoint::safetensors::read_header;

fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickle");
    std::fs::read(folder.join(name)).unwrap()
}

/// The object `code`, without storages, in the older layout.
fn legacy(code: &[u8]) -> Vec<u8> {
    let system = b"\x80\x02}X\x0d\0\0\0little_endian\x88s.";
    let keys = b"\x80\x02].";
    [LEGACY_MAGIC, b"\x80\x02M\xe9\x03.", system, code, keys].concat()
}

/// Whether sizes and places are in the fields of 32 bits, or in those that were added later.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits32,
    Bits64,
}

/// An archive of stored entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    archive_of(Width::Bits32, entries)
}

fn archive_of(width: Width, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let narrow = |number: usize| match width {
        Width::Bits32 => (number as u32).to_le_bytes(),
        Width::Bits64 => [0xff; 4],
    };
    let wide = |number: usize| (number as u64).to_le_bytes();
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let name_len = (name.len() as u16).to_le_bytes();
        let extra = match width {
            Width::Bits32 => vec![],
            Width::Bits64 => [
                &b"FB\x01\0Z\x01\0\x18\0"[..],
                &[content.len(), content.len(), file.len()].map(wide).concat(),
            ]
            .concat(),
        };
        let (size, extra_len) = (narrow(content.len()), (extra.len() as u16).to_le_bytes());
        let offset = narrow(file.len());
        let header = [&b"PK\x03\x04"[..], &[0; 14], &size, &size, &name_len, &[0; 2]];
        file.extend([&header.concat(), name.as_bytes(), content].concat());
        let row = [&b"PK\x01\x02"[..], &[0; 16], &size, &size, &name_len, &extra_len];
        directory.extend([&row.concat()[..], &[0; 10], &offset, name.as_bytes(), &extra].concat());
    }
    let (start, size) = (file.len(), directory.len());
    file.extend(directory);
    let n_entries = (entries.len() as u16).to_le_bytes();
    if width == Width::Bits64 {
        let end = file.len();
        let numbers = [entries.len(), entries.len(), size, start].map(wide).concat();
        file.extend([&b"PK\x06\x06"[..], &[0; 20], &numbers].concat());
        file.extend([&b"PK\x06\x07"[..], &[0; 4], &wide(end), &[0; 4]].concat());
    }
    let end = [
        &b"PK\x05\x06"[..],
        &[0; 4],
        &n_entries,
        &n_entries,
        &narrow(size),
        &narrow(start),
        &[0; 2],
    ];
    file.extend(end.concat());
    file
}

fn int(number: i64) -> Vec<u8> {
    [b"\x8a\x08", &number.to_le_bytes()[..]].concat()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", items.concat().as_slice(), b"t"].concat()
}

/// Opcodes of a tensor of f32.
fn tensor(key: &str, n_elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let id = tuple(&[
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text(key),
        text("cpu"),
        int(n_elements),
    ]);
    let ints = |numbers: &[i64]| tuple(&numbers.iter().copied().map(int).collect::<Vec<_>>());
    let storage = [id.as_slice(), b"Q"].concat();
    let arguments = tuple(&[
        storage,
        int(offset),
        ints(shape),
        ints(strides),
        b"\x89N".to_vec(),
    ]);
    [b"ctorch._utils\n_rebuild_tensor_v2\n", arguments.as_slice(), b"R"].concat()
}

/// A pickle of a dict.
fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = items
        .iter()
        .flat_map(|(key, value)| [text(key), value.clone()].concat())
        .collect();
    [b"\x80\x02}(", items.as_slice(), b"u."].concat()
}

#[track_caller]
fn check_refused(file: &[u8], reason: &str) {
    let refused = read_checkpoint(file).unwrap_err();
    assert!(refused.contains(reason), "{refused}");
}

/// The pickle `code` is refused in both layouts.
#[track_caller]
fn check_code_refused(code: &[u8], reason: &str) {
    check_refused(&legacy(code), reason);
    check_refused(&archive(&[("a/data.pkl", code)]), reason);
}

/// Name, dtype, shape and bytes of every tensor, by name.
fn contents(file: &[u8], entries: Vec<Entry>) -> Vec<(String, String, Vec<usize>, Vec<u8>)> {
    let content = |entry: Entry| (entry.name, entry.dtype, entry.shape, file[entry.bytes].to_vec());
    let mut contents: Vec<_> = entries.into_iter().map(content).collect();
    contents.sort();
    contents
}

#[test]
fn what_torch_wrote_has_the_tensors_that_were_saved() {
    for (name, saved) in [
        ("zip.bin", "state_dict.safetensors"),
        ("legacy.bin", "state_dict.safetensors"),
        ("protocol4.bin", "state_dict.safetensors"),
        ("wrapped.bin", "state_dict.safetensors"),
        ("newer.bin", "newer.safetensors"),
    ] {
        let (file, saved) = (fixture(name), fixture(saved));
        let read = contents(&file, read_checkpoint(&file).unwrap());
        assert_eq!(
            read,
            contents(&saved, read_header(&saved, saved.len()).unwrap()),
            "{name}"
        );
    }
}

#[test]
fn tied_weights_share_their_bytes() {
    let entries = read_checkpoint(&fixture("zip.bin")).unwrap();
    let bytes = |name: &str| {
        entries
            .iter()
            .find(|entry| entry.name == name)
            .unwrap()
            .bytes
            .clone()
    };
    assert_eq!(bytes("embed.weight"), bytes("lm_head.weight"));
    assert_eq!(bytes("rows.first").end + 2 * 12, bytes("rows.last").start);
}

#[test]
fn what_is_more_than_weights_is_named() {
    check_refused(
        &fixture("transposed.bin"),
        "turned of shape [3, 2] has strides [1, 3]; save it with .contiguous()",
    );
    check_refused(&fixture("module.bin"), "torch.nn.modules.linear.Linear");
    for (code, name) in [
        (&b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."[..], "os.system"),
        (b"\x80\x02cposix\nsystem\n(X\x02\0\0\0idtR.", "posix.system"),
        (b"\x80\x02c__builtin__\neval\n.", "__builtin__.eval"),
        (
            b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
            "builtins.getattr",
        ),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
            "_rebuild_tensor_v2.__globals__",
        ),
        (b"\x80\x02(X\x02\0\0\0idios\nsystem\n.", "opcode 0x69"),
        (b"\x80\x02\x82\x01.", "opcode 0x82"),
        (b"\x80\x02P1\n.", "opcode 0x50"),
        (b"\x80\x00cos\nsystem\n.", "protocol"),
        (b"cos\nsystem\n.", "protocol"),
    ] {
        check_code_refused(code, name);
    }
}

#[test]
fn claims_cost_nothing() {
    for (code, reason) in [
        (&b"\x80\x02\x8b\xff\xff\xff\x7f"[..], "opcode 0x8b"),
        (
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
            "18446744073709551615 bytes",
        ),
        (b"\x80\x02X\xff\xff\xff\xff", "4294967295 bytes"),
        (b"\x80\x02X\xff\xff\0\0", "65535 more were to come"),
        (b"\x80\x03B\xff\xff\xff\xff", "4294967295 more were to come"),
        (
            b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff}.",
            "holds no tensors",
        ),
    ] {
        check_code_refused(code, reason);
    }
    let proto = b"\x80\x02".to_vec();
    let repeated = |start: &[u8], piece: &[u8], n: usize| [&proto, start, &piece.repeat(n)].concat();
    check_code_refused(&repeated(b"", b"N", 1 << 17), "stack is higher");
    check_code_refused(&repeated(b"", b"(", 1 << 17), "stack is higher");
    check_code_refused(&repeated(b"]", b"]a", 1 << 20), "tuples, lists and dicts");
    check_code_refused(&repeated(b"]", b"Na", 1 << 22), "opcodes");
    let remembered = (0..1 << 21).flat_map(|idx: u32| [b"r", &idx.to_le_bytes()[..]].concat());
    check_code_refused(
        &[&proto, &b"N"[..], &remembered.collect::<Vec<_>>()].concat(),
        "remembers more",
    );
    let one = tensor("0", 1, 0, &[1], &[1]);
    check_code_refused(
        &[
            &proto[..],
            b"]q\0",
            &[&one[..], b"a"].concat().repeat((1 << 16) + 1),
        ]
        .concat(),
        "more than 65536 tensors",
    );
}

#[test]
fn values_that_contain_themselves_end() {
    check_code_refused(b"\x80\x02}q\0X\x05\0\0\0modelh\0s.", "holds no tensors");
    check_code_refused(b"\x80\x02]q\0h\0a.", "not a dict");
    let nested = [&b"\x80\x02"[..], &b"]".repeat(60_000), &b"a".repeat(59_999), b"."].concat();
    check_code_refused(&nested, "not a dict");
}

#[test]
fn contradictions_are_named() {
    for (code, reason) in [
        (&b"\x80\x02R."[..], "stack is empty"),
        (b"\x80\x02N(0", "opcode 0x30"),
        (b"\x80\x02N(q\0", "stack is empty"),
        (b"\x80\x02Nt.", "no mark"),
        (b"\x80\x02h\x07.", "value 7 was not remembered"),
        (b"\x80\x02NNs.", "stack is empty"),
        (b"\x80\x02}(Nu.", "half an item"),
        (b"\x80\x02NNb.", "attributes of what is not a dict"),
        (b"\x80\x02N)R.", "calls what is not a global"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls Storage"),
        (b"\x80\x02ctorch\nSize\n)R.", "calls Size"),
        (b"\x80\x02)Q.", "name of a storage"),
        (b"\x80\x02N.", "not a dict"),
        (b"\x80\x02}.", "no tensors"),
    ] {
        check_code_refused(code, reason);
    }
    for (tensor, reason) in [
        (tensor("0", 4, -1, &[1], &[1]), "a size is -1"),
        (tensor("0", 4, 0, &[-4], &[1]), "a size is -4"),
        (tensor("0", 4, 0, &[4], &[]), "shape [4] and strides []"),
        (tensor("0", 4, 0, &[1; 9], &[1; 9]), "9 dimensions"),
        (
            tensor("0", i64::MAX, 0, &[1], &[1]),
            "9223372036854775807 elements",
        ),
    ] {
        let code = dict(&[("w", tensor)]);
        check_refused(&archive(&[("a/data.pkl", &code), ("a/data/0", &[0; 16])]), reason);
    }
    let twice = dict(&[
        ("w", tensor("0", 4, 0, &[4], &[1])),
        ("v", tensor("0", 2, 0, &[2], &[1])),
    ]);
    check_code_refused(&twice, "storage 0 has two lengths");
}

#[test]
fn views_lie_within_their_storage() {
    let file = |offset, shape: &[i64], strides: &[i64]| {
        let code = dict(&[("w", tensor("0", 4, offset, shape, strides))]);
        archive(&[("a/data.pkl", &code), ("a/data/0", &[7; 16])])
    };
    for (offset, shape, strides) in [
        (0, &[4][..], &[1][..]),
        (3, &[1], &[9]),
        (0, &[], &[]),
        (4, &[0], &[1]),
        (2, &[2, 1], &[1, 5]),
        (0, &[0, i64::MAX, i64::MAX], &[3, i64::MAX, 1]),
    ] {
        let file = file(offset, shape, strides);
        let entries = read_checkpoint(&file).unwrap();
        assert!(file[entries[0].bytes.clone()].iter().all(|byte| *byte == 7));
    }
    for (offset, shape, strides, reason) in [
        (0, &[5][..], &[1][..], "outside its storage"),
        (1, &[4], &[1], "outside its storage"),
        (i64::MAX, &[1], &[1], "outside its storage"),
        (0, &[i64::MAX, 4], &[4, 1], "outside its storage"),
        (0, &[2, 2], &[1, 2], "strides [1, 2]"),
        (0, &[4], &[0], "strides [0]"),
    ] {
        check_refused(&file(offset, shape, strides), reason);
    }
}

#[test]
fn archives_that_lie_are_refused() {
    let code = dict(&[("w", tensor("0", 1, 0, &[1], &[1]))]);
    let good = archive(&[("a/data.pkl", &code), ("a/data/0", &[0; 4])]);
    assert!(read_checkpoint(&good).is_ok());
    let wide = archive_of(Width::Bits64, &[("a/data.pkl", &code), ("a/data/0", &[0; 4])]);
    assert_eq!(
        contents(&wide, read_checkpoint(&wide).unwrap()),
        contents(&good, read_checkpoint(&good).unwrap())
    );
    for end in 0..wide.len() {
        assert!(read_checkpoint(&wide[..end]).is_err());
    }
    check_refused(b"", "begins like nothing");
    check_refused(b"PK\x03\x04", "without an end");
    check_refused(&good[..good.len() - 1], "without an end");
    check_refused(&archive(&[("a/b", b"")]), "no data.pkl");
    check_refused(&archive(&[("data.pkl", &code)]), "no data.pkl");
    check_refused(&archive(&[("a/data.pkl", &code)]), "storage 0 is missing");
    check_refused(
        &archive(&[("a/data.pkl", &code), ("a/data/0", &[0; 5])]),
        "storage 0 has 5 bytes",
    );
    check_refused(
        &archive(&[("a/data.pkl", &code), ("a/data.pkl", &code)]),
        "a/data.pkl is there twice",
    );
    check_refused(
        &archive(&[("a/data.pkl", &code), ("b/data.pkl", &code)]),
        "more than one",
    );
    check_refused(
        &archive(&[("a/data.pkl", &code), ("a/byteorder", b"big")]),
        "little-endian",
    );
    check_refused(
        &archive(&[("a/data.pkl", &[&code[..], b"x"].concat())]),
        "1 bytes follow",
    );
    let with = |from_end: usize, bytes: &[u8]| {
        let mut file = good.clone();
        let at = file.len() - from_end;
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    check_refused(&with(6, &[0xfe; 4]), "directory is outside");
    check_refused(&with(10, &[0xfe; 4]), "directory is outside");
    check_refused(&with(12, &[0xff; 2]), "the place of the end of 64 bits");
    check_refused(&with(12, &[3, 0]), "an entry of its directory");
    let row = 22 + 46 + "a/data/0".len();
    check_refused(&with(row, b"XX"), "an entry of its directory");
    check_refused(&with(row - 10, &[8, 0]), "compressed");
    check_refused(&with(row - 8, &[1, 0]), "encrypted");
    check_refused(&with(row - 20, &[9; 8]), "more were to come");
    check_refused(&with(row - 42, &[0; 4]), "another name");
}

proptest! {
    #[test]
    fn any_opcodes_are_an_answer_or_an_error(
        code in proptest::collection::vec(proptest::sample::select(&b"NKMJGX)tu]}eashjqrcRQb(.\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x95\0\x01\x02\n"[..]), 0..400),
    ) {
        let _ = read_checkpoint(&legacy(&[&b"\x80\x04}"[..], &code].concat()));
    }

    #[test]
    fn any_bytes_of_an_archive_are_an_answer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_checkpoint(&[&b"PK\x03\x04"[..], &bytes, b"PK\x05\x06", &bytes].concat());
        let _ = read_checkpoint(&[LEGACY_MAGIC, &bytes].concat());
    }
}

#[test]
fn every_truncation_and_every_broken_byte_is_an_answer_or_an_error() {
    let check = |file: &[u8]| {
        for entry in read_checkpoint(file).unwrap_or_default() {
            assert!(entry.bytes.end <= file.len() && entry.bytes.start <= entry.bytes.end);
        }
    };
    for name in ["zip.bin", "legacy.bin", "newer.bin"] {
        let whole = fixture(name);
        for end in 0..whole.len() {
            assert!(read_checkpoint(&whole[..end]).is_err(), "{name} cut at {end}");
        }
        let mut file = whole;
        for at in 0..file.len() {
            for broken in [0x01, 0x80, 0xff] {
                file[at] ^= broken;
                check(&file);
                file[at] ^= broken;
            }
        }
    }
}
