//! What is written is read, and only that.

use super::*;
use crate::cpu::simd::{F8E4M3, F8E5M2};

/// A slot: a block, and a place in it.
type Slot = (usize, usize);

fn key<E: KvElement>(cache: &KvCache, (block, offset): Slot, head: usize) -> Vec<f32> {
    let (numbers, steps) = (cache.numbers::<E>(), cache.key_steps());
    let keys = &numbers.keys(block, head)[offset * steps.position..];
    let of_key = keys.iter().step_by(steps.element).take(cache.key_dim());
    of_key.map(|v| v.widened()).collect()
}

fn value<E: KvElement>(cache: &KvCache, (block, offset): Slot, head: usize) -> Vec<f32> {
    let numbers = cache.numbers::<E>();
    let values = &numbers.values(block, head)[offset * numbers.value_step()..];
    values[..cache.value_dim()].iter().map(|v| v.widened()).collect()
}

#[test]
fn writes_each_head_to_its_slot() {
    let mut cache = KvCache::new(3, 2, KvShape::of_heads(2, 3), KvDType::F32).unwrap();
    let x: Vec<f32> = (1..=26).map(|i| i as f32).collect();
    let op = KvWrite {
        x: &x,
        row_stride: 13,
        keys_at: 1,
        slots: &[5, 0],
    };
    kv_write(&mut cache, op).unwrap();
    assert_eq!(key::<f32>(&cache, (2, 1), 1), [5.0, 6.0, 7.0]);
    assert_eq!(value::<f32>(&cache, (2, 1), 1), [11.0, 12.0, 13.0]);
    assert_eq!(key::<f32>(&cache, (0, 0), 0), [15.0, 16.0, 17.0]);
    assert_eq!(
        cache.keys.as_slice::<f32>().iter().filter(|&&v| v != 0.0).count(),
        12,
        "nothing else was written"
    );
}

#[test]
fn refuses_a_slot_beyond_the_cache_and_writes_nothing() {
    let mut cache = KvCache::new(1, 2, KvShape::of_heads(1, 2), KvDType::F32).unwrap();
    let op = KvWrite {
        x: &[1.0; 8],
        row_stride: 4,
        keys_at: 0,
        slots: &[0, 2],
    };
    assert!(matches!(
        kv_write(&mut cache, op),
        Err(KernelError::Range { got: 2, .. })
    ));
    assert!(cache.keys.as_slice::<f32>().iter().all(|&v| v == 0.0));
    let op = KvWrite {
        x: &[1.0; 4],
        row_stride: 4,
        keys_at: 1,
        slots: &[0],
    };
    assert!(kv_write(&mut cache, op).is_err());
}

/// A cache in which every number of every slot is different.
fn filled(n_blocks: usize, first: f32) -> KvCache {
    let mut cache = KvCache::new(n_blocks, 2, KvShape::of_heads(2, 3), KvDType::F32).unwrap();
    let n_slots = 2 * n_blocks;
    let x: Vec<f32> = (0..12 * n_slots).map(|i| first + i as f32).collect();
    let slots: Vec<u32> = (0..n_slots as u32).collect();
    let op = KvWrite {
        x: &x,
        row_stride: 12,
        keys_at: 0,
        slots: &slots,
    };
    kv_write(&mut cache, op).unwrap();
    cache
}

#[test]
fn copies_whole_blocks_and_nothing_else() {
    let (before, mut cache, other) = (filled(3, 1.0), filled(3, 1.0), filled(2, 1000.0));
    let block = |cache: &KvCache, block: usize| {
        let vectors = (0..4).map(|i| ((block, i / 2), i % 2));
        let both =
            vectors.map(|(slot, head)| [key::<f32>(cache, slot, head), value::<f32>(cache, slot, head)]);
        both.map(|both| both.concat()).collect::<Vec<_>>()
    };
    cache.copy_block(2, 0).unwrap();
    assert_eq!(
        [0, 1, 2].map(|b| block(&cache, b)),
        [2, 1, 2].map(|b| block(&before, b))
    );
    cache.copy_block_from(&other, 1, 2).unwrap();
    assert_eq!(block(&cache, 2), block(&other, 1));
    assert_eq!(
        [0, 1].map(|b| block(&cache, b)),
        [2, 1].map(|b| block(&before, b))
    );
    assert!(cache.copy_block(3, 0).is_err() && cache.copy_block(0, 3).is_err());
    assert!(cache.copy_block_from(&other, 2, 0).is_err());
    let wider = KvCache::new(3, 2, KvShape::of_heads(2, 4), KvDType::F32).unwrap();
    assert!(cache.copy_block_from(&wider, 0, 0).is_err());
}

#[test]
fn refuses_sizes_that_make_no_cache() {
    let one = KvShape::of_heads(1, 1);
    assert!(KvCache::new(0, 1, one, KvDType::F32).is_err());
    assert!(KvCache::new(usize::MAX, 1, one, KvDType::F32).is_err());
    assert!(KvCache::new(1 << 31, 1 << 31, one, KvDType::F32).is_err());
    assert!(matches!(
        KvCache::new(1 << 31, 1, KvShape::of_heads(1 << 30, 1 << 4), KvDType::F32),
        Err(KernelError::Memory { .. })
    ));
    let longer_than_its_key = KvShape {
        values: KvValues::InKeys { value_dim: 2 },
        ..one
    };
    assert!(KvCache::new(1, 1, longer_than_its_key, KvDType::F32).is_err());
}

#[test]
fn a_value_may_be_the_start_of_its_key() {
    let shape = KvShape {
        n_heads: 1,
        key_dim: 5,
        values: KvValues::InKeys { value_dim: 3 },
    };
    let mut cache = KvCache::new(2, 2, shape, KvDType::F32).unwrap();
    let op = KvWrite {
        x: &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        row_stride: 6,
        keys_at: 1,
        slots: &[3],
    };
    kv_write(&mut cache, op).unwrap();
    assert_eq!(key::<f32>(&cache, (1, 1), 0), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(value::<f32>(&cache, (1, 1), 0), [1.0, 2.0, 3.0]);
    cache.copy_block(1, 0).unwrap();
    assert_eq!(value::<f32>(&cache, (0, 1), 0), [1.0, 2.0, 3.0]);
    assert_eq!(
        [
            shape.slot_bytes(KvDType::F32),
            KvShape::of_heads(2, 5).slot_bytes(KvDType::F32)
        ],
        [64, 168]
    );
}

/// Writes numbers as the keys of one slot and reads them back.
fn stored<E: KvElement>(numbers: &[f32]) -> Vec<f32> {
    let shape = KvShape::of_heads(1, numbers.len());
    let mut cache = KvCache::new(2, 2, shape, E::DTYPE).unwrap();
    let op = KvWrite {
        x: &[numbers, numbers].concat(),
        row_stride: 2 * numbers.len(),
        keys_at: 0,
        slots: &[1],
    };
    kv_write(&mut cache, op).unwrap();
    cache.copy_block(0, 1).unwrap();
    let key = key::<E>(&cache, (1, 1), 0);
    assert_eq!(key, value::<E>(&cache, (1, 1), 0));
    key
}

#[test]
fn numbers_are_rounded_to_the_type_of_the_cache() {
    let numbers = [1.0 + 1.0 / 512.0, -3.3, 70_000.0, -1e9, 0.0];
    assert_eq!(stored::<f32>(&numbers), numbers);
    assert_eq!(
        stored::<half::bf16>(&numbers),
        [1.0, -3.296_875, 70_144.0, -998_244_352.0, 0.0]
    );
    assert_eq!(
        stored::<half::f16>(&numbers),
        [1.001_953_1, -3.300_781_2, f32::INFINITY, f32::NEG_INFINITY, 0.0]
    );
    assert_eq!(stored::<F8E4M3>(&numbers), [1.0, -3.25, 448.0, -448.0, 0.0]);
    assert_eq!(stored::<F8E5M2>(&numbers), [1.0, -3.5, 57_344.0, -57_344.0, 0.0]);
}

#[test]
fn a_slot_takes_as_many_bytes_as_its_numbers() {
    let bytes = |dtype| KvShape::of_heads(4, 64).slot_bytes(dtype);
    assert_eq!(
        [
            KvDType::F32,
            KvDType::F16,
            KvDType::BF16,
            KvDType::F8E4M3,
            KvDType::F8E5M2
        ]
        .map(bytes),
        [2048, 1024, 1024, 512, 512]
    );
    let mut narrow = KvCache::new(1, 2, KvShape::of_heads(1, 2), KvDType::BF16).unwrap();
    let wide = KvCache::new(1, 2, KvShape::of_heads(1, 2), KvDType::F32).unwrap();
    assert!(narrow.copy_block_from(&wide, 0, 0).is_err());
}
