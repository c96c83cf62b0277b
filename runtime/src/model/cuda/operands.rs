//! What ops read beside weights and activations, made once: lists of matrices, and the numbers of attention.

use std::collections::HashMap;

use kernels::KernelError;
use kernels::cuda::{DeviceBuffer, Gpu, View};
use kernels::gpu::{Matrix, MatrixList, unit_scales};

use super::weights::{Weights, upload_vector};
use crate::model::program::{Attend, Experts, Op, PerHead, Program};
use crate::model::spec::MatrixId;

/// What the ops of a program have, by their place in it.
#[derive(Default)]
pub(super) struct Operands {
    per_head: HashMap<usize, MatrixList>,
    experts: HashMap<usize, [MatrixList; 2]>,
    attend: HashMap<usize, AttendOperands>,
    unit_scales: HashMap<usize, DeviceBuffer<f32>>,
}

/// The numbers of attention that are part of the program.
#[derive(Default)]
struct AttendOperands {
    alibi_slopes: Option<DeviceBuffer<f32>>,
    buckets: Option<DeviceBuffer<u16>>,
}

impl Operands {
    /// Makes what the ops of a program read.
    ///
    /// # Errors
    /// The device has no memory for it, or fails.
    pub(super) fn new(gpu: &Gpu, program: &Program, weights: &Weights) -> Result<Operands, KernelError> {
        let mut operands = Operands::default();
        for (idx, op) in program.ops.iter().enumerate() {
            match op {
                Op::PerHead(PerHead { weights: ids, .. }) => {
                    operands.per_head.insert(idx, list(gpu, weights, ids)?);
                }
                Op::Experts(op) => {
                    operands.experts.insert(idx, expert_lists(gpu, weights, op)?);
                }
                Op::Attend(op) => {
                    operands.attend.insert(idx, AttendOperands::new(gpu, op)?);
                }
                Op::UnitRows { weight, .. } => {
                    let scales = gpu.alloc(weight.n_rows)?;
                    unit_scales(gpu, weights.matrix(*weight), scales.view())?;
                    operands.unit_scales.insert(idx, scales);
                }
                _ => {}
            }
        }
        Ok(operands)
    }

    /// The matrices of an op's heads.
    pub(super) fn per_head(&self, op: usize) -> Option<&MatrixList> {
        self.per_head.get(&op)
    }

    /// The first and second matrices of an op's experts.
    pub(super) fn experts(&self, op: usize) -> Option<[&MatrixList; 2]> {
        self.experts.get(&op).map(|[up, down]| [up, down])
    }

    /// Per head, what each position of distance takes off a score.
    pub(super) fn alibi_slopes(&self, op: usize) -> Option<View<f32>> {
        self.attend
            .get(&op)?
            .alibi_slopes
            .as_ref()
            .map(DeviceBuffer::view)
    }

    /// The bucket of each distance.
    pub(super) fn buckets(&self, op: usize) -> Option<View<u16>> {
        self.attend.get(&op)?.buckets.as_ref().map(DeviceBuffer::view)
    }

    /// Factors that give rows of the head length 1.
    pub(super) fn unit_scales(&self, op: usize) -> Option<View<f32>> {
        self.unit_scales.get(&op).map(DeviceBuffer::view)
    }
}

impl AttendOperands {
    fn new(gpu: &Gpu, op: &Attend) -> Result<AttendOperands, KernelError> {
        let slopes = op
            .alibi_slopes
            .as_deref()
            .map(|slopes| upload_vector(gpu, slopes));
        let mut buckets = None;
        if let Some(relative) = &op.relative {
            let buffer = gpu.alloc(relative.buckets.len())?;
            gpu.upload(&relative.buckets, buffer.view())?;
            buckets = Some(buffer);
        }
        Ok(AttendOperands {
            alibi_slopes: slopes.transpose()?,
            buckets,
        })
    }
}

/// A list of matrices with their biases.
fn list(gpu: &Gpu, weights: &Weights, ids: &[MatrixId]) -> Result<MatrixList, KernelError> {
    let matrices: Vec<Matrix> = ids.iter().map(|&id| weights.matrix(id)).collect();
    let biases: Vec<View<f32>> = ids.iter().filter_map(|&id| weights.bias(id)).collect();
    MatrixList::new(gpu, &matrices, &biases)
}

fn expert_lists(gpu: &Gpu, weights: &Weights, op: &Experts) -> Result<[MatrixList; 2], KernelError> {
    let ups: Vec<MatrixId> = op.experts.iter().map(|expert| expert.up).collect();
    let downs: Vec<MatrixId> = op.experts.iter().map(|expert| expert.down).collect();
    Ok([list(gpu, weights, &ups)?, list(gpu, weights, &downs)?])
}
