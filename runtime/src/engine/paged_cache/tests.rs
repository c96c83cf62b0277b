//! What two texts share in the prefix cache.

use proptest::prelude::*;

use super::*;
use crate::batch::MediaDigest;
use crate::engine::config::EngineConfig;
use crate::engine::prompt::{Prompt, Span};

const PLACEHOLDER: u32 = 9;

fn cache(block_size: usize) -> PagedCache {
    let config = EngineConfig {
        n_blocks: 200,
        block_size,
        ..EngineConfig::default()
    };
    PagedCache::new(&Limits {
        config,
        groups: vec![KvGroup::default()],
        whole_prompts: false,
        has_prefixes: true,
        reads_media: true,
        vocab_size: 10,
    })
}

/// Text, an image, text.
fn prompt(lengths: [usize; 3], digest: u8) -> Prompt {
    Prompt::from(vec![
        Span::Tokens(vec![PLACEHOLDER; lengths[0]]),
        Span::Media {
            digest: MediaDigest([digest; 32]),
            n_tokens: lengths[1],
            placeholder: PLACEHOLDER,
        },
        Span::Tokens(vec![PLACEHOLDER; lengths[2]]),
    ])
}

/// Computes a prompt after what the cache has of it, and publishes it; its blocks, and how many it shares.
fn compute(cache: &mut PagedCache, prompt: Prompt) -> (Vec<BlockId>, usize) {
    let (tokens, media) = prompt.into_parts();
    let content = Content {
        tokens: &tokens,
        media: &media,
    };
    let mut tables = BlockTables::default();
    let hit = cache.lookup(0, content);
    cache.adopt(&mut tables, &hit);
    let n_cached = cache.n_tokens(&hit);
    cache.grow(&mut tables, n_cached..tokens.len(), &mut Vec::new());
    cache.publish(&mut tables, 0, content);
    let blocks = tables.groups().next().map(<[BlockId]>::to_vec);
    (blocks.unwrap(), n_cached / cache.block_size)
}

proptest! {
    /// All tokens have one id, so only the digests and the indices in the media tell the texts apart.
    #[test]
    fn media_share_blocks_only_with_the_same_media(
        block_size in 1..8usize,
        lengths in [0..20usize, 1..20usize, 0..20usize],
        digests in (0..2u8, 0..2u8),
    ) {
        let mut cache = cache(block_size);
        let n_tokens: usize = lengths.iter().sum();
        let (first, n_hit) = compute(&mut cache, prompt(lengths, digests.0));
        prop_assert_eq!(n_hit, 0);
        let (second, n_hit) = compute(&mut cache, prompt(lengths, digests.1));
        // The last token is always computed.
        let n_same = if digests.0 == digests.1 { n_tokens - 1 } else { lengths[0].min(n_tokens - 1) };
        prop_assert_eq!(n_hit, n_same / block_size);
        prop_assert_eq!(&first[..n_hit], &second[..n_hit]);
        prop_assert!(second[n_hit..].iter().all(|block| !first.contains(block)));
    }

    /// An image one token further on is other content, although tokens and digests are equal.
    #[test]
    fn media_elsewhere_are_other_content(block_size in 1..8usize, n_before in 0..20usize, n_tokens in 1..20usize) {
        let mut cache = cache(block_size);
        compute(&mut cache, prompt([n_before, n_tokens, 20], 1));
        let (_, n_hit) = compute(&mut cache, prompt([n_before + 1, n_tokens, 20], 1));
        prop_assert_eq!(n_hit, n_before / block_size);
    }
}
