//! The sizes of an engine: what is configured, and what the model adds to it.
//!
//! Owns the checks that an engine can start with them. Must not know requests or sequences.

use std::sync::Arc;

use crds::settings::{EngineSettings, PreemptionMode, SchedulingPolicy, ServingSettings};

use super::pace::Pace;
use crate::batch::{Forward, KvGroup};

/// Sizes of an engine. All but `n_host_blocks`, `max_waiting` and `seed` must be at least 1.
///
/// The default has vLLM's values where the documentation of the settings names them. Its `n_blocks` and
/// `max_model_len` are 0, which [`EngineConfig::limits`] refuses: they depend on the memory and the model.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Blocks of the model's KV cache.
    pub n_blocks: usize,
    /// Blocks of the model's host cache, for sequences that are swapped out; may be 0.
    pub n_host_blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Compute long prompts in chunks, not each in one step.
    pub enable_chunked_prefill: bool,
    /// How long new prompts wait to be computed together.
    pub pace: Pace,
    /// Keep the blocks of computed texts for texts with the same beginning.
    pub enable_prefix_caching: bool,
    /// What happens to a sequence that loses its blocks to another.
    pub preemption_mode: PreemptionMode,
    /// Which sequence goes first.
    pub scheduling_policy: SchedulingPolicy,
    /// Sequences in one step at most.
    pub max_num_seqs: usize,
    /// Tokens in one step at most. Fewer than `max_num_seqs` also limits the sequences.
    pub max_num_batched_tokens: usize,
    /// Tokens of prompt and answer together at most.
    pub max_model_len: usize,
    /// Requests held at most beyond those that can run at once.
    pub max_waiting: usize,
    /// Seeds the requests that bring no seed.
    pub seed: u64,
    /// Tokens with which the model ends an answer.
    pub eos_token_ids: Arc<[u32]>,
}

/// The fixed limits of a running engine.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What is configured.
    pub config: EngineConfig,
    /// The model's layers, grouped by what they see; at least one group.
    pub groups: Vec<KvGroup>,
    /// A prompt is computed in one step.
    pub whole_prompts: bool,
    /// The keys and values of a text's beginning are the same whatever follows.
    pub has_prefixes: bool,
    /// Prompts may contain images or sounds.
    pub reads_media: bool,
    /// Token ids are below this.
    pub vocab_size: usize,
}

/// Sizes with which no engine can start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A size that must be at least 1.
    #[error("{field} must be at least 1")]
    Zero {
        /// The field of [`EngineConfig`].
        field: &'static str,
    },
    /// A model without layers, or with a window that sees nothing.
    #[error("the model has no group of layers, or one whose window is 0")]
    NoLayers,
    /// Slots of the cache are numbered with 32 bits.
    #[error("{n_blocks} blocks of {block_size} tokens are more than 2^32 slots")]
    CacheTooLarge {
        /// Blocks of the cache.
        n_blocks: usize,
        /// Tokens per block.
        block_size: usize,
    },
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        let defaults = EngineSettings::default();
        EngineConfig {
            n_blocks: 0,
            n_host_blocks: 0,
            block_size: defaults.block_size() as usize,
            enable_chunked_prefill: defaults.enable_chunked_prefill(),
            pace: Pace::of(&defaults),
            enable_prefix_caching: defaults.enable_prefix_caching(),
            preemption_mode: defaults.preemption_mode(),
            scheduling_policy: defaults.scheduling_policy(),
            max_num_seqs: defaults.max_num_seqs() as usize,
            max_num_batched_tokens: defaults.max_num_batched_tokens() as usize,
            max_model_len: 0,
            max_waiting: ServingSettings::default().max_concurrency() as usize,
            seed: defaults.seed(),
            eos_token_ids: Arc::default(),
        }
    }
}

impl EngineConfig {
    /// Checks the sizes, and adds what `model` requires.
    ///
    /// # Errors
    /// [`ConfigError`] if no engine can start with them.
    pub fn limits(self, model: &dyn Forward) -> Result<Limits, ConfigError> {
        self.check()?;
        let groups = model.kv_groups();
        if groups.is_empty() || groups.iter().any(|group| group.window == Some(0)) {
            return Err(ConfigError::NoLayers);
        }
        Ok(Limits {
            groups,
            whole_prompts: model.whole_prompts() || !self.enable_chunked_prefill,
            has_prefixes: !model.whole_prompts(),
            config: self,
            reads_media: model.reads_media(),
            vocab_size: model.vocab_size(),
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("n_blocks", self.n_blocks),
            ("block_size", self.block_size),
            ("max_num_seqs", self.max_num_seqs),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("max_model_len", self.max_model_len),
        ];
        if let Some((field, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(ConfigError::Zero { field });
        }
        let n_slots = self.n_blocks.checked_mul(self.block_size).map(u32::try_from);
        match n_slots {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(ConfigError::CacheTooLarge {
                n_blocks: self.n_blocks,
                block_size: self.block_size,
            }),
        }
    }
}

impl Limits {
    /// Sequences that run at once at most. Every running sequence gets at least one token of each step,
    /// so there can be no more of them than the step has tokens.
    pub fn n_running_max(&self) -> usize {
        self.config.max_num_seqs.min(self.config.max_num_batched_tokens)
    }

    /// Blocks of computed texts are kept for texts with the same beginning.
    pub fn caches_prefixes(&self) -> bool {
        self.config.enable_prefix_caching && self.has_prefixes
    }

    /// A sequence that loses its blocks keeps them on the host, if the host has room.
    pub fn swaps(&self) -> bool {
        match self.config.preemption_mode {
            PreemptionMode::Recompute => false,
            PreemptionMode::Swap | PreemptionMode::Save => true,
        }
    }
}
