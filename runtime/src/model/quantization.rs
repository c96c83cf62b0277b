//! Which matrices of a model are kept in fewer bits than the checkpoint has them in.

use kernels::QuantFormat;

use super::spec::{Attention, Ffn, Layer, MatrixId, Mlp, Network};

/// The numbers of the matrices that can be quantised: those of the layers, without routers and gates of experts, whose few
/// numbers decide much, and without the embedding and the head, whose rows are tokens. A matrix that is also used outside
/// of the layers is not among them.
pub(super) fn quantisable<V>(network: &Network<MatrixId, V>) -> Vec<usize> {
    let mut numbers: Vec<usize> = network
        .layers
        .iter()
        .flat_map(products)
        .map(|matrix| matrix.index)
        .filter(|index| *index != network.embedding.tokens.index)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// The large products of a layer.
fn products<V>(layer: &Layer<MatrixId, V>) -> Vec<MatrixId> {
    let both = |mlp: &Mlp<MatrixId>| [mlp.up, mlp.down];
    let mut products = match &layer.attention {
        Attention::Grouped(grouped) => vec![grouped.qkv, grouped.out],
        Attention::Latent(latent) => {
            let down = latent.q_down.as_ref().map(|(matrix, _)| *matrix);
            let heads = latent.key_up.iter().chain(&latent.value_up);
            let others = [latent.q_up, latent.kv_down, latent.out];
            others.into_iter().chain(down).chain(heads.copied()).collect()
        }
    };
    match &layer.ffn {
        Ffn::Dense(mlp) => products.extend(both(mlp)),
        Ffn::Xielu(of) => products.extend([of.up, of.down]),
        Ffn::Experts(moe) => products.extend(moe.experts.iter().chain(&moe.shared).flat_map(both)),
    }
    products
}

/// How the matrices of a model are kept, where `quantised` names those that may have a format of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Formats<'a> {
    /// The format, `None` if all matrices have their dtype.
    pub(super) format: Option<QuantFormat>,
    /// Numbers of the matrices that have it, ascending.
    pub(super) quantised: &'a [usize],
}

impl Formats<'_> {
    /// The format of a matrix, `None` if it has its dtype.
    pub(super) fn of(&self, index: usize) -> Option<QuantFormat> {
        self.format
            .filter(|_| self.quantised.binary_search(&index).is_ok())
    }
}
