//! Rotary frequencies: the dialects of config.json and the scalings of published checkpoints.

use std::f64::consts::TAU;

use kernels::RopePairs;

use super::config::{Aliases, CONTEXT_LEN, Fields, invalid};
use super::error::ModelError;

/// How positions become angles.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RopeSpec {
    /// Elements of a head that turn, even.
    pub(super) dim: usize,
    /// Which of them turn together.
    pub(super) pairs: RopePairs,
    /// Base of the frequencies.
    pub(super) theta: f64,
    /// What stretches them to longer contexts.
    pub(super) scaling: RopeScaling,
    /// What makes queries grow with their position.
    pub(super) query_growth: Option<QueryGrowth>,
}

/// Queries grow with their position: by `1 + beta · ln(1 + ⌊position / original_context_len⌋)` (Llama 4 and Ministral 3,
/// `llama_4_scaling_beta`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct QueryGrowth {
    /// How fast they grow.
    beta: f64,
    /// Positions up to here are not changed.
    original_context_len: f64,
}

/// A way to stretch the frequencies.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RopeScaling {
    /// None.
    Default,
    /// All frequencies divided (Chen et al. 2023, "Position Interpolation").
    Linear {
        /// By this.
        factor: f64,
    },
    /// Low frequencies divided, high ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths per original context below which a frequency is low.
        low_freq_factor: f64,
        /// Wavelengths per original context above which a frequency is high.
        high_freq_factor: f64,
        /// Context before stretching.
        original_context_len: f64,
    },
    /// The base grown with the length of a text beyond the context (u/bloc97 2023, "dynamic NTK").
    Dynamic {
        /// How fast it grows.
        factor: f64,
        /// Context before stretching.
        trained_context_len: f64,
    },
    /// Divisors of each frequency, other ones for long texts (Ding et al. 2024, "LongRoPE"; Phi-3).
    LongRope(LongRope),
    /// The first pairs turn as if all did, the others not at all (Gemma 4).
    Proportional {
        /// Pairs that turn.
        n_turning: usize,
    },
    /// As Llama 3's, with a ramp over dimensions, and larger queries and keys (Peng et al. 2023, "YaRN").
    Yarn(Yarn),
}

/// Parameters of YaRN.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Yarn {
    /// Divisor of the low frequencies.
    factor: f64,
    /// Context before stretching.
    original_context_len: f64,
    /// Turns within the original context above which a frequency is kept.
    beta_fast: f64,
    /// Turns below which it is divided.
    beta_slow: f64,
    /// Whether the ramp's ends are rounded to dimensions.
    truncate: bool,
    /// Factor of queries and keys.
    attention_factor: f64,
}

/// Parameters of LongRoPE.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LongRope {
    /// Divisors for texts within the original context. `[dim / 2]`
    short_factor: Vec<f64>,
    /// Divisors for longer ones. `[dim / 2]`
    long_factor: Vec<f64>,
    /// Context before stretching.
    original_context_len: usize,
    /// Factor of queries and keys.
    attention_factor: f64,
}

/// What [`RopeScaling`] can be, for messages.
const SUPPORTED: &str = "default, linear, dynamic, llama3, yarn, longrope";

/// The kinds of layers for which `rope_parameters` may have an object each.
const FULL: &str = "full_attention";
const WINDOWED: &str = "sliding_attention";

/// The context before stretching.
const ORIGINAL_CONTEXT_LEN: Aliases = &["original_max_position_embeddings"];

/// Names of the field that holds which part of a head turns.
const PART: &[&str] = &["partial_rotary_factor", "rotary_pct", "rope_pct"];

impl RopeSpec {
    /// All of a head with the usual base, whatever the config has.
    pub(super) fn plain(head_dim: usize) -> Result<RopeSpec, ModelError> {
        let mut spec = RopeSpec {
            dim: 0,
            pairs: RopePairs::HalfSplit,
            theta: 10_000.0,
            scaling: RopeScaling::Default,
            query_growth: None,
        };
        spec.set_dim(head_dim, head_dim)?;
        Ok(spec)
    }

    /// Reads `rope_theta` with `rope_scaling`, or `rope_parameters` (transformers 5 and later).
    pub(super) fn from_config(config: &Fields, head_dim: usize) -> Result<RopeSpec, ModelError> {
        RopeSpec::of_part(config, head_dim, 1.0)
    }

    /// The same where a part of each head turns: the config's, or `part` if it names none.
    pub(super) fn of_part(config: &Fields, head_dim: usize, part: f64) -> Result<RopeSpec, ModelError> {
        let parameters = parameters(config)?;
        // An object of the windowed layers that differs is left unread, and so refused, unless the family reads it.
        let parameters = match parameters {
            Some(kinds) if kinds.is_object(FULL) || kinds.is_object(WINDOWED) => {
                kinds.same(WINDOWED, FULL);
                kinds
                    .object(FULL)?
                    .map_or_else(|| kinds.object(WINDOWED), |full| Ok(Some(full)))?
            }
            parameters => parameters,
        };
        RopeSpec::from_parameters(parameters.as_ref(), config, head_dim, part)
    }

    /// The positions of the layers that see everything and of the windowed ones, where `rope_parameters` has an object
    /// for each kind; `None` where it has not.
    pub(super) fn of_kinds(
        config: &Fields,
        head_dim: usize,
    ) -> Result<Option<(RopeSpec, RopeSpec)>, ModelError> {
        let Some(kinds) = parameters(config)? else {
            return Ok(None);
        };
        if !kinds.is_object(FULL) && !kinds.is_object(WINDOWED) {
            return Ok(None);
        }
        let of = |kind| -> Result<RopeSpec, ModelError> {
            let missing = || invalid("rope_parameters", format!("has no object {kind}"));
            let parameters = kinds.object(kind)?.ok_or_else(missing)?;
            RopeSpec::from_parameters(Some(&parameters), config, head_dim, 1.0)
        };
        Ok(Some((of(FULL)?, of(WINDOWED)?)))
    }

    /// Reads `llama_4_scaling_beta`, which lets queries grow with their position. The whole head of `head_dim` elements
    /// must turn, because the growth is a factor of the rotation.
    pub(super) fn read_query_growth(&mut self, config: &Fields, head_dim: usize) -> Result<(), ModelError> {
        const BETA: &str = "llama_4_scaling_beta";
        let Some(parameters) = parameters(config)? else {
            return Ok(());
        };
        let Some(beta) = parameters.number(&[BETA])?.filter(|beta| *beta != 0.0) else {
            return Ok(());
        };
        if self.dim != head_dim {
            return Err(invalid(
                BETA,
                format!(
                    "needs a head that turns as a whole, not {} of {head_dim}",
                    self.dim
                ),
            ));
        }
        let original = parameters.size(ORIGINAL_CONTEXT_LEN)?;
        let missing = || invalid(BETA, "needs original_max_position_embeddings".to_owned());
        self.query_growth = Some(QueryGrowth {
            beta,
            original_context_len: original.ok_or_else(missing)? as f64,
        });
        Ok(())
    }

    /// Factor of the queries at a position, beside [`RopeSpec::attention_factor`]; `None` if they do not grow.
    pub(super) fn query_factor(&self, position: u32) -> Option<f32> {
        let QueryGrowth {
            beta,
            original_context_len,
        } = self.query_growth?;
        let n_contexts = (f64::from(position) / original_context_len).floor();
        Some((1.0 + beta * n_contexts.ln_1p()) as f32)
    }

    /// From an object of parameters; what it lacks is taken from the config.
    pub(super) fn from_parameters(
        parameters: Option<&Fields>,
        config: &Fields,
        head_dim: usize,
        part: f64,
    ) -> Result<RopeSpec, ModelError> {
        let inner = parameters.unwrap_or(config);
        let of_either = |field| -> Result<Option<f64>, ModelError> {
            Ok(inner.positive(field)?.or(config.positive(field)?))
        };
        let theta = of_either(&["rope_theta", "rotary_emb_base"])?.unwrap_or(10_000.0);
        let part = of_either(PART)?.unwrap_or(part);
        let mut spec = RopeSpec {
            dim: 0,
            pairs: RopePairs::HalfSplit,
            theta,
            scaling: RopeScaling::Default,
            query_growth: None,
        };
        spec.set_dim((head_dim as f64 * part) as usize, head_dim)?;
        if let Some(parameters) = parameters {
            if let Some(alpha) = parameters.positive(&["alpha"])? {
                return spec.grown_by(alpha, parameters);
            }
            if parameters.text(&["rope_type", "type"])? == Some("proportional") {
                let n_turning = spec.dim / 2;
                spec.set_dim(head_dim, head_dim)?;
                spec.scaling = RopeScaling::Proportional { n_turning };
                return Ok(spec);
            }
            spec.scaling = RopeScaling::from_parameters(parameters, config, spec.dim)?;
        }
        Ok(spec)
    }

    /// The base grown once for all (Hunyuan, whose configs call it dynamic and name options of YaRN that count for
    /// nothing).
    fn grown_by(mut self, alpha: f64, parameters: &Fields) -> Result<RopeSpec, ModelError> {
        const UNUSED: [Aliases; 5] = [
            &["factor"],
            &["beta_fast"],
            &["beta_slow"],
            &["mscale"],
            &["mscale_all_dim"],
        ];
        for option in UNUSED {
            parameters.number(option)?;
        }
        parameters.text(&["rope_type", "type"])?;
        let dim = self.dim as f64;
        self.theta *= alpha.powf(dim / (dim - 2.0).max(1.0));
        Ok(self)
    }

    /// Lets the first `dim` of `head_dim` elements turn.
    pub(super) fn set_dim(&mut self, dim: usize, head_dim: usize) -> Result<(), ModelError> {
        if dim == 0 || dim > head_dim || !dim.is_multiple_of(2) {
            let reason = format!("makes {dim} of {head_dim} elements of a head turn: not an even part of it");
            return Err(invalid("head_dim", reason));
        }
        self.dim = dim;
        Ok(())
    }

    /// Pairs that turn.
    pub(super) fn half_dim(&self) -> usize {
        self.dim / 2
    }

    /// Writes the angle per position of each pair, for a sequence whose prompt has `prompt_len` tokens. `[dim / 2]`
    ///
    /// Where frequencies depend on the length of the text, that of the prompt decides, once: keys in the
    /// cache stay right whatever is generated, chunked, or shared. In f32 where the reference
    /// implementations are in f32.
    pub(super) fn write_inv_freq(&self, prompt_len: usize, out: &mut Vec<f32>) {
        out.clear();
        let power = |theta: f64, i: usize| (theta as f32).powf((2 * i) as f32 / self.dim as f32);
        let plain = |i: usize| 1.0 / power(self.theta, i);
        let pairs = 0..self.dim / 2;
        match &self.scaling {
            RopeScaling::Default => out.extend(pairs.map(plain)),
            RopeScaling::Proportional { n_turning } => {
                out.extend(pairs.map(|i| if i < *n_turning { plain(i) } else { 0.0 }));
            }
            RopeScaling::Linear { factor } => out.extend(pairs.map(|i| plain(i) / *factor as f32)),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context_len,
            } => out.extend(pairs.map(|i| {
                let turns = original_context_len / (TAU / f64::from(plain(i)));
                // A ramp of no width is a step (Llama 4).
                let width = (high_freq_factor - low_freq_factor).max(f64::MIN_POSITIVE);
                let kept = (turns - low_freq_factor) / width;
                mix(plain(i), *factor, kept)
            })),
            RopeScaling::Dynamic {
                factor,
                trained_context_len,
            } => {
                let stretched = (prompt_len as f64).max(*trained_context_len) / trained_context_len;
                let dim = self.dim as f64;
                // A head of two elements has one frequency, which is 1 whatever the base.
                let exponent = dim / (dim - 2.0).max(1.0);
                let theta = self.theta * (factor * stretched - (factor - 1.0)).powf(exponent);
                out.extend(pairs.map(|i| 1.0 / power(theta, i)));
            }
            RopeScaling::LongRope(long) => {
                let divisors = match self.variant(prompt_len) {
                    0 => &long.short_factor,
                    _ => &long.long_factor,
                };
                out.extend(pairs.map(|i| 1.0 / (divisors[i] as f32 * power(self.theta, i))));
            }
            RopeScaling::Yarn(yarn) => {
                let (low, high) = yarn.ramp(self.dim, self.theta);
                let kept = |i: usize| 1.0 - (i as f64 - low) / (high - low);
                out.extend(pairs.map(|i| mix(plain(i), yarn.factor, kept(i))));
            }
        }
    }

    /// Factor of the rotated queries and keys.
    pub(super) fn attention_factor(&self) -> f32 {
        match &self.scaling {
            RopeScaling::Default
            | RopeScaling::Proportional { .. }
            | RopeScaling::Linear { .. }
            | RopeScaling::Dynamic { .. }
            | RopeScaling::Llama3 { .. } => 1.0,
            RopeScaling::LongRope(long) => long.attention_factor as f32,
            RopeScaling::Yarn(yarn) => yarn.attention_factor as f32,
        }
    }

    /// A number that differs where the frequencies of two prompts differ.
    pub(super) fn variant(&self, prompt_len: usize) -> u64 {
        match &self.scaling {
            RopeScaling::Default
            | RopeScaling::Proportional { .. }
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn(_) => 0,
            RopeScaling::LongRope(long) => u64::from(prompt_len > long.original_context_len),
            RopeScaling::Dynamic {
                trained_context_len, ..
            } if prompt_len as f64 <= *trained_context_len => 0,
            RopeScaling::Dynamic { .. } => prompt_len as u64,
        }
    }

    /// The context that stretching makes of `trained`, config.json's `max_position_embeddings`.
    pub(super) fn context_len(&self, trained: usize) -> usize {
        match &self.scaling {
            RopeScaling::Default
            | RopeScaling::Proportional { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::LongRope(_) => trained,
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor, .. } => {
                (trained as f64 * factor) as usize
            }
            // Published files have the original context in either field, so it is taken where it is named.
            RopeScaling::Yarn(yarn) => (yarn.original_context_len * yarn.factor) as usize,
        }
    }
}

/// The object of rotary parameters: `rope_parameters`, or the older `rope_scaling`. Newer programs may write both.
fn parameters(config: &Fields) -> Result<Option<Fields>, ModelError> {
    match config.object("rope_parameters")? {
        Some(parameters) => {
            config.same("rope_scaling", "rope_parameters");
            Ok(Some(parameters))
        }
        None => config.object("rope_scaling"),
    }
}

impl RopeScaling {
    fn from_parameters(parameters: &Fields, config: &Fields, dim: usize) -> Result<RopeScaling, ModelError> {
        let kind = parameters.text(&["rope_type", "type"])?.unwrap_or("default");
        let factor = || -> Result<f64, ModelError> {
            let factor = parameters.positive(&["factor"])?;
            factor.ok_or_else(|| invalid("rope_scaling", format!("of type {kind} needs a factor")))
        };
        let original_context_len = || -> Result<f64, ModelError> {
            let named = parameters
                .size(ORIGINAL_CONTEXT_LEN)?
                .or(config.size(ORIGINAL_CONTEXT_LEN)?);
            Ok(named.map_or_else(|| config.required_size(CONTEXT_LEN), Ok)? as f64)
        };
        match kind {
            // Three coordinates of a token of a picture turn parts of a head each. Those of a text are equal.
            "default" | "mrope" => {
                parameters.counts("mrope_section")?;
                parameters.flag("mrope_interleaved")?;
                Ok(RopeScaling::Default)
            }
            "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
            "dynamic" => Ok(RopeScaling::Dynamic {
                factor: factor()?,
                trained_context_len: config.required_size(CONTEXT_LEN)? as f64,
            }),
            "longrope" | "su" => {
                let long = LongRope::from_parameters(parameters, config, dim, original_context_len()?)?;
                Ok(RopeScaling::LongRope(long))
            }
            "llama3" => {
                let low_freq_factor = parameters.positive(&["low_freq_factor"])?.unwrap_or(1.0);
                let high_freq_factor = parameters.positive(&["high_freq_factor"])?.unwrap_or(4.0);
                if high_freq_factor < low_freq_factor {
                    let reason = "has a high_freq_factor that is below its low_freq_factor".to_owned();
                    return Err(invalid("rope_scaling", reason));
                }
                let (factor, original_context_len) = (factor()?, original_context_len()?);
                Ok(RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_context_len,
                })
            }
            "yarn" => Ok(RopeScaling::Yarn(Yarn::from_parameters(
                parameters,
                factor()?,
                original_context_len()?,
            )?)),
            other => Err(ModelError::UnsupportedOption {
                option: "rope_scaling type",
                value: other.to_owned(),
                supported: SUPPORTED,
            }),
        }
    }
}

impl LongRope {
    /// The factor of queries and keys where a config has one for short texts and one for long ones, which are equal.
    fn magnitude(parameters: &Fields) -> Result<Option<f64>, ModelError> {
        let (short, long) = (
            parameters.positive(&["short_mscale"])?,
            parameters.positive(&["long_mscale"])?,
        );
        if short != long {
            let reason = "has a short_mscale that is not its long_mscale".to_owned();
            return Err(invalid("rope_scaling", reason));
        }
        Ok(long)
    }

    fn from_parameters(
        parameters: &Fields,
        config: &Fields,
        dim: usize,
        original_context_len: f64,
    ) -> Result<LongRope, ModelError> {
        let divisors = |field| match parameters.positives(field)? {
            Some(divisors) if divisors.len() == dim / 2 => Ok(divisors),
            Some(divisors) => {
                let reason = format!("has {} entries for {} pairs", divisors.len(), dim / 2);
                Err(invalid(field, reason))
            }
            None => Err(invalid(field, "is missing".to_owned())),
        };
        let stretched = match parameters.positive(&["factor"])? {
            Some(factor) => factor,
            None => config.required_size(CONTEXT_LEN)? as f64 / original_context_len,
        };
        let named = match parameters.positive(&["attention_factor"])? {
            Some(factor) => Some(factor),
            None => LongRope::magnitude(parameters)?,
        };
        let attention_factor = match named {
            Some(factor) => factor,
            None if stretched <= 1.0 || original_context_len <= 1.0 => 1.0,
            None => (1.0 + stretched.ln() / original_context_len.ln()).sqrt(),
        };
        Ok(LongRope {
            short_factor: divisors("short_factor")?,
            long_factor: divisors("long_factor")?,
            original_context_len: original_context_len as usize,
            attention_factor,
        })
    }
}

impl Yarn {
    fn from_parameters(
        parameters: &Fields,
        factor: f64,
        original_context_len: f64,
    ) -> Result<Yarn, ModelError> {
        let grown = |scale: f64| {
            if factor <= 1.0 {
                1.0
            } else {
                0.1 * scale * factor.ln() + 1.0
            }
        };
        let attention_factor = match parameters.positive(&["attention_factor"])? {
            Some(factor) => factor,
            None => match (
                parameters.positive(&["mscale"])?,
                parameters.positive(&["mscale_all_dim"])?,
            ) {
                (Some(mscale), Some(all)) => grown(mscale) / grown(all),
                _ => grown(1.0),
            },
        };
        Ok(Yarn {
            factor,
            original_context_len,
            beta_fast: parameters.positive(&["beta_fast"])?.unwrap_or(32.0),
            beta_slow: parameters.positive(&["beta_slow"])?.unwrap_or(1.0),
            truncate: parameters.flag("truncate")?.unwrap_or(true),
            attention_factor,
        })
    }

    /// The pairs between which frequencies go from kept to divided.
    fn ramp(&self, dim: usize, theta: f64) -> (f64, f64) {
        let dim = dim as f64;
        let pair_of =
            |turns: f64| dim * (self.original_context_len / (turns * TAU)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        // A ramp of no width would divide by zero.
        (low, if low == high { high + 0.001 } else { high })
    }
}

/// `kept` of the frequency as it is and the rest divided by `factor`; `kept` is taken into 0..1.
fn mix(freq: f32, factor: f64, kept: f64) -> f32 {
    let kept = kept.clamp(0.0, 1.0) as f32;
    (1.0 - kept) * (freq / factor as f32) + kept * freq
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Result<RopeSpec, ModelError> {
        RopeSpec::from_config(&Fields::parse(json), 8)
    }

    impl RopeSpec {
        fn inv_freq(&self, prompt_len: usize) -> Vec<f32> {
            let mut out = vec![f32::NAN];
            self.write_inv_freq(prompt_len, &mut out);
            out
        }
    }

    #[test]
    fn both_dialects_mean_the_same() {
        let old = r#"{"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}"#;
        let new = r#"{"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}"#;
        assert_eq!(spec(old).unwrap(), spec(new).unwrap());
        assert_eq!(spec(old).unwrap().theta, 5e5);
    }

    #[test]
    fn plain_frequencies_fall_from_one() {
        let plain = spec("{}").unwrap();
        assert_eq!(plain.theta, 1e4);
        let freq = plain.inv_freq(1);
        assert_eq!((freq.len(), freq[0]), (4, 1.0));
        assert!((f64::from(freq[3]) - 1e-3).abs() < 1e-9);
        let linear = spec(r#"{"rope_scaling": {"type": "linear", "factor": 4.0}}"#).unwrap();
        assert_eq!(linear.inv_freq(1)[0], 0.25);
        assert_eq!(linear.context_len(256), 1024);
    }

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaled = spec(
            r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
                "original_max_position_embeddings": 64}}"#,
        )
        .unwrap();
        let (freq, plain) = (scaled.inv_freq(1), spec("{}").unwrap().inv_freq(1));
        assert_eq!(freq[0], plain[0]);
        assert_eq!(freq[3], plain[3] / 8.0);
    }

    #[test]
    fn a_ramp_of_no_width_is_a_step() {
        let scaled = spec(
            r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 1.0, "original_max_position_embeddings": 64}}"#,
        )
        .unwrap();
        let (freq, plain) = (scaled.inv_freq(1), spec("{}").unwrap().inv_freq(1));
        // 64 tokens are ten turns of the first pair, one of the second, and less of the others.
        let divisors = plain.iter().zip(&freq).map(|(plain, freq)| plain / freq);
        assert_eq!(divisors.collect::<Vec<f32>>(), [1.0, 1.0, 8.0, 8.0]);
    }

    #[test]
    fn the_first_pairs_of_a_whole_head_can_turn() {
        let some = r#"{"rope_parameters": {"rope_type": "proportional", "partial_rotary_factor": 0.5}}"#;
        let (some, plain) = (spec(some).unwrap(), spec("{}").unwrap().inv_freq(1));
        assert_eq!(
            (some.dim, some.inv_freq(1)),
            (8, vec![plain[0], plain[1], 0.0, 0.0])
        );
    }

    #[test]
    fn the_base_can_grow_once_for_all() {
        let grown = spec(r#"{"rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 1000.0}}"#).unwrap();
        assert_eq!(grown.theta, 1e4 * 1000_f64.powf(8.0 / 6.0));
        assert_eq!(
            (grown.scaling.clone(), grown.context_len(256)),
            (RopeScaling::Default, 256)
        );
    }

    #[test]
    fn the_length_of_the_prompt_decides_where_length_matters() {
        let longrope = r#"{"max_position_embeddings": 256, "original_max_position_embeddings": 64,
            "rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 2, 3, 4]}}"#;
        let longrope = spec(longrope).unwrap();
        assert_eq!([64, 65, 200].map(|n| longrope.variant(n)), [0, 1, 1]);
        let (short, long) = (longrope.inv_freq(64), longrope.inv_freq(65));
        assert_eq!((short[0], short[3]), (long[0], 4.0 * long[3]));
        let want = (1.0 + 4_f32.ln() / 64_f32.ln()).sqrt();
        assert!((longrope.attention_factor() - want).abs() < 1e-6);
        let dynamic =
            r#"{"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 2.0}}"#;
        let dynamic = spec(dynamic).unwrap();
        assert_eq!([1, 64, 65, 100].map(|n| dynamic.variant(n)), [0, 0, 65, 100]);
        assert_eq!(dynamic.inv_freq(64), spec("{}").unwrap().inv_freq(1));
        assert!(dynamic.inv_freq(65)[3] < dynamic.inv_freq(64)[3]);
        let short_list = r#"{"max_position_embeddings": 256, "original_max_position_embeddings": 64,
            "rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1, 2, 3, 4]}}"#;
        assert!(spec(short_list).is_err());
    }

    #[test]
    fn each_kind_of_layers_can_have_parameters_of_its_own() {
        let nested = |sliding: &str| {
            format!(
                r#"{{"rope_parameters": {{"full_attention": {{"rope_theta": 5e5, "rope_type": "linear", "factor": 2}},
                "sliding_attention": {sliding}}}}}"#
            )
        };
        let differing = Fields::parse(&nested(r#"{"rope_theta": 1e4, "rope_type": "default"}"#));
        let (full, sliding) = RopeSpec::of_kinds(&differing, 8).unwrap().unwrap();
        assert_eq!((full.theta, sliding.theta), (5e5, 1e4));
        assert_eq!(full.scaling, RopeScaling::Linear { factor: 2.0 });
        assert_eq!(sliding.scaling, RopeScaling::Default);
        assert_eq!(differing.unread(), []);
        let flat = Fields::parse(r#"{"rope_parameters": {"rope_theta": 7.0}}"#);
        assert_eq!(RopeSpec::of_kinds(&flat, 8).unwrap(), None);
        // A family with one kind of layer reads one object, and the other is left over unless it is the same.
        let differing = Fields::parse(&nested(r#"{"rope_theta": 1e4, "rope_type": "default"}"#));
        assert_eq!(RopeSpec::from_config(&differing, 8).unwrap(), full);
        assert_eq!(differing.unread()[0].path, "rope_parameters.sliding_attention");
        let same = nested(r#"{"rope_theta": 5e5, "rope_type": "linear", "factor": 2}"#);
        let same = Fields::parse(&same);
        assert_eq!(RopeSpec::from_config(&same, 8).unwrap(), full);
        assert_eq!(same.unread(), []);
        let one = Fields::parse(r#"{"rope_parameters": {"full_attention": {"rope_theta": 7.0}}}"#);
        assert!(RopeSpec::of_kinds(&one, 8).is_err());
    }

    #[test]
    fn queries_grow_with_their_position() {
        let growing = |more: &str| {
            let json = format!(r#"{{"rope_parameters": {{"llama_4_scaling_beta": 0.1{more}}}}}"#);
            let config = Fields::parse(&json);
            let mut rope = RopeSpec::from_config(&config, 8)?;
            rope.read_query_growth(&config, 8).map(|()| rope)
        };
        let rope = growing(r#", "original_max_position_embeddings": 32"#).unwrap();
        let factors = [0, 31, 32, 63, 64].map(|position| rope.query_factor(position).unwrap());
        let (once, twice) = (1.0 + 0.1 * 2_f32.ln(), 1.0 + 0.1 * 3_f32.ln());
        assert_eq!(factors, [1.0, 1.0, once, once, twice]);
        assert!(growing("").is_err(), "an original context is needed");
        let half = r#", "original_max_position_embeddings": 32, "partial_rotary_factor": 0.5"#;
        assert!(growing(half).is_err(), "the whole head must turn");
        assert_eq!(spec("{}").unwrap().query_factor(1000), None);
    }

    #[test]
    fn a_part_of_the_head_can_turn() {
        assert_eq!(spec(r#"{"partial_rotary_factor": 0.5}"#).unwrap().dim, 4);
        assert!(
            spec(r#"{"partial_rotary_factor": 0.4}"#).is_err(),
            "an odd number of elements"
        );
        assert!(spec(r#"{"partial_rotary_factor": 2.0}"#).is_err());
        assert!(RopeSpec::from_config(&Fields::parse("{}"), 7).is_err());
    }

    #[test]
    fn other_scalings_are_refused_by_name() {
        let refused = spec(r#"{"rope_scaling": {"type": "spiral", "factor": 2.0}}"#).unwrap_err();
        let text = "config.json: rope_scaling type = spiral is not supported; \
                    supported are default, linear, dynamic, llama3, yarn, longrope";
        assert_eq!(refused.to_string(), text);
        assert!(
            spec(r#"{"rope_scaling": {"type": "linear"}}"#).is_err(),
            "a factor is needed"
        );
        assert!(
            spec(r#"{"rope_scaling": {"type": "yarn", "factor": 4.0}}"#).is_err(),
            "a context is needed"
        );
        let falling = r#"{"max_position_embeddings": 64, "rope_scaling": {"rope_type": "llama3", "factor": 2.0,
            "low_freq_factor": 4.0, "high_freq_factor": 3.0}}"#;
        assert!(spec(falling).is_err(), "a ramp that falls");
        let uneven = r#"{"max_position_embeddings": 256, "original_max_position_embeddings": 64,
            "rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 2, 3, 4],
            "short_mscale": 1.1, "long_mscale": 1.2}}"#;
        assert!(spec(uneven).is_err(), "a factor that depends on the length");
    }
}
