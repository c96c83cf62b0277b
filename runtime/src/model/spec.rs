//! One decoder described as data: what a family makes of config.json, and all that the loader needs.
//!
//! Every layer is `x += out(attention(norm(x)))` then `x += down(silu(gate) · up)` of `norm(x)`, with
//! rotary positions and RMS norms. An option stands here once a family uses it and the decoder executes it.

use super::rope::RopeSpec;

/// A decoder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DecoderSpec {
    /// Rows of the embedding and of the head.
    pub(super) vocab_size: usize,
    /// Width of the residual stream.
    pub(super) hidden_size: usize,
    /// Query heads.
    pub(super) n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub(super) n_kv_heads: usize,
    /// Elements of a head.
    pub(super) head_dim: usize,
    /// Width of the feed-forward part.
    pub(super) ffn_size: usize,
    /// What norms add to the mean square.
    pub(super) norm_eps: f32,
    /// Positions.
    pub(super) rope: RopeSpec,
    /// How far each layer looks back; its length is the number of layers.
    pub(super) windows: Vec<Option<usize>>,
    /// Positions the model can tell apart.
    pub(super) context_len: usize,
    /// Where the weights are.
    pub(super) names: Names,
}

/// Names of the weights in the checkpoint; `{i}` stands for the layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Names {
    /// Embedding. `[vocab_size, hidden_size]`
    pub(super) embed: &'static str,
    /// Last norm. `[hidden_size]`
    pub(super) final_norm: &'static str,
    /// Head, unless it is the embedding. `[vocab_size, hidden_size]`
    pub(super) head: Option<&'static str>,
    /// Norm before attention. `[hidden_size]`
    pub(super) attention_norm: &'static str,
    /// Norm before the feed-forward part. `[hidden_size]`
    pub(super) ffn_norm: &'static str,
    /// Queries, keys, values: together `[(n_heads + 2 n_kv_heads) · head_dim, hidden_size]`.
    pub(super) qkv: LinearNames,
    /// Output of attention. `[hidden_size, n_heads · head_dim]`
    pub(super) out: LinearNames,
    /// Gate, then up: together `[2 ffn_size, hidden_size]`.
    pub(super) gate_up: LinearNames,
    /// Back to the residual stream. `[hidden_size, ffn_size]`
    pub(super) down: LinearNames,
}

/// A linear layer: one weight here, one or several in the checkpoint, their rows one after another.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LinearNames {
    /// The pieces: name without `.weight`, and rows.
    pub(super) parts: Vec<(&'static str, usize)>,
    /// Columns of every piece.
    pub(super) n_cols: usize,
    /// Whether each piece has a `.bias` beside its `.weight`.
    pub(super) bias: Bias,
}

/// Whether a linear layer adds a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    /// It does.
    Present,
    /// It does not.
    Absent,
}

impl From<bool> for Bias {
    fn from(present: bool) -> Bias {
        if present { Bias::Present } else { Bias::Absent }
    }
}

/// A tensor that the checkpoint must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorSpec {
    /// Its name.
    pub(super) name: String,
    /// Its shape.
    pub(super) shape: Vec<usize>,
}

impl DecoderSpec {
    /// Layers.
    pub(super) fn n_layers(&self) -> usize {
        self.windows.len()
    }

    /// Every tensor of the checkpoint.
    pub(super) fn tensors(&self) -> Vec<TensorSpec> {
        let names = &self.names;
        let vector = |name: String| TensorSpec {
            name,
            shape: vec![self.hidden_size],
        };
        let table = |name: &str| TensorSpec {
            name: format!("{name}.weight"),
            shape: vec![self.vocab_size, self.hidden_size],
        };
        let mut tensors = vec![table(names.embed), vector(format!("{}.weight", names.final_norm))];
        tensors.extend(names.head.map(table));
        for layer in 0..self.n_layers() {
            for norm in [names.attention_norm, names.ffn_norm] {
                tensors.push(vector(of_layer(norm, layer, "weight")));
            }
            for linear in [&names.qkv, &names.out, &names.gate_up, &names.down] {
                tensors.extend(linear.tensors(layer));
            }
        }
        tensors
    }
}

impl LinearNames {
    fn tensors(&self, layer: usize) -> Vec<TensorSpec> {
        let mut tensors = Vec::new();
        for &(part, n_rows) in &self.parts {
            tensors.push(TensorSpec {
                name: of_layer(part, layer, "weight"),
                shape: vec![n_rows, self.n_cols],
            });
            if self.bias == Bias::Present {
                tensors.push(TensorSpec {
                    name: of_layer(part, layer, "bias"),
                    shape: vec![n_rows],
                });
            }
        }
        tensors
    }
}

/// The name of a layer's tensor.
pub(super) fn of_layer(template: &str, layer: usize, kind: &str) -> String {
    format!("{}.{kind}", template.replace("{i}", &layer.to_string()))
}
