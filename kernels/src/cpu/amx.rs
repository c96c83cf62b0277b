//! Tiles of bf16 numbers (Intel AMX): products of 16 rows of activations and 16 rows of a weight.
//!
//! In assembly, because the compiler's own functions for tiles are not stable. A tile of activations is
//! `[16 rows, 32 columns]`, one of a weight `[16 pairs of columns, 16 rows, 2]`, one of sums `[16, 16]` f32; each takes
//! 1 KiB without gaps. A sum takes the columns in the order of the tiles, whichever function computes it. Numbers below
//! the smallest normal one count as zero.

use std::arch::asm;

/// Bytes of a tile.
pub(crate) const TILE_BYTES: usize = 1024;
/// Rows of a tile of activations or sums.
pub(crate) const TILE_ROWS: usize = 16;
/// Columns of a tile of activations or of a weight.
pub(crate) const TILE_COLUMNS: usize = 32;

/// The shape of all eight tiles: 16 rows of 64 bytes (palette 1).
#[repr(C, align(64))]
struct Shape {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPE: Shape = Shape {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The tiles of this thread, until they are dropped.
pub(crate) struct Tiles {
    /// They are a thread's.
    not_send: std::marker::PhantomData<*const ()>,
}

impl Tiles {
    /// Gives the thread's tiles their shape.
    ///
    /// # Safety
    /// The processor must have AMX with bf16, and the process the permission.
    pub(crate) unsafe fn new() -> Tiles {
        // SAFETY: the caller's promise; the shape is a valid one.
        unsafe { asm!("ldtilecfg [{shape}]", shape = in(reg) &raw const SHAPE, options(nostack, readonly)) };
        Tiles {
            not_send: std::marker::PhantomData,
        }
    }

    /// The sums of one row of tiles `x` and of four panels `w`, over `n` tiles each. `[4]` tiles.
    ///
    /// # Safety
    /// `n` tiles must be readable at each pointer, and four be writable at `sums`.
    pub(crate) unsafe fn one_by_four(&self, x: *const u8, w: [*const u8; 4], n: usize, sums: *mut f32) {
        /// Asks for the tile four tiles ahead.
        macro_rules! prefetch {
            ($w:literal) => {
                concat!(
                    "prefetcht0 [",
                    $w,
                    " + 4096]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4160]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4224]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4288]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4352]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4416]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4480]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4544]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4608]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4672]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4736]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4800]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4864]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4928]\n",
                    "prefetcht0 [",
                    $w,
                    " + 4992]\n",
                    "prefetcht0 [",
                    $w,
                    " + 5056]\n",
                )
            };
        }
        if n == 0 {
            return;
        }
        // SAFETY: `self` is proof of AMX with tiles of 1 KiB; the caller promises the memory, and a prefetch is harmless.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{x} + {row}*1]",
                "tileloadd tmm5, [{w0} + {row}*1]",
                prefetch!("{w0}"),
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tileloadd tmm6, [{w1} + {row}*1]",
                prefetch!("{w1}"),
                "tdpbf16ps tmm1, tmm4, tmm6",
                "tileloadd tmm7, [{w2} + {row}*1]",
                prefetch!("{w2}"),
                "tdpbf16ps tmm2, tmm4, tmm7",
                "tileloadd tmm5, [{w3} + {row}*1]",
                prefetch!("{w3}"),
                "tdpbf16ps tmm3, tmm4, tmm5",
                "add {x}, 1024",
                "add {w0}, 1024",
                "add {w1}, 1024",
                "add {w2}, 1024",
                "add {w3}, 1024",
                "dec {n}",
                "jnz 2b",
                "tilestored [{sums} + {row}*1], tmm0",
                "tilestored [{sums} + {row}*1 + 1024], tmm1",
                "tilestored [{sums} + {row}*1 + 2048], tmm2",
                "tilestored [{sums} + {row}*1 + 3072], tmm3",
                x = inout(reg) x => _,
                w0 = inout(reg) w[0] => _,
                w1 = inout(reg) w[1] => _,
                w2 = inout(reg) w[2] => _,
                w3 = inout(reg) w[3] => _,
                n = inout(reg) n => _,
                sums = in(reg) sums,
                row = in(reg) 64_usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// The sums of two rows of tiles `x` and of two panels `w`, over `n` tiles each: `[2 rows, 2 panels]` tiles. Asks for
    /// half a KiB from `ahead` on with each tile.
    ///
    /// # Safety
    /// `n` tiles must be readable at each pointer of `x` and `w`, and four be writable at `sums`.
    #[allow(
        clippy::too_many_arguments,
        reason = "they are the registers of one piece of assembly"
    )]
    pub(crate) unsafe fn two_by_two(
        &self,
        x: [*const u8; 2],
        w: [*const u8; 2],
        n: usize,
        ahead: *const u8,
        sums: *mut f32,
    ) {
        if n == 0 {
            return;
        }
        // SAFETY: as above.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{x0} + {row}*1]",
                "tileloadd tmm6, [{w0} + {row}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead}]",
                "prefetcht1 [{ahead} + 64]",
                "prefetcht1 [{ahead} + 128]",
                "prefetcht1 [{ahead} + 192]",
                "prefetcht1 [{ahead} + 256]",
                "prefetcht1 [{ahead} + 320]",
                "prefetcht1 [{ahead} + 384]",
                "prefetcht1 [{ahead} + 448]",
                "tileloadd tmm7, [{w1} + {row}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{x1} + {row}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {x0}, 1024",
                "add {x1}, 1024",
                "add {w0}, 1024",
                "add {w1}, 1024",
                "add {ahead}, 512",
                "dec {n}",
                "jnz 2b",
                "tilestored [{sums} + {row}*1], tmm0",
                "tilestored [{sums} + {row}*1 + 1024], tmm1",
                "tilestored [{sums} + {row}*1 + 2048], tmm2",
                "tilestored [{sums} + {row}*1 + 3072], tmm3",
                x0 = inout(reg) x[0] => _,
                x1 = inout(reg) x[1] => _,
                w0 = inout(reg) w[0] => _,
                w1 = inout(reg) w[1] => _,
                ahead = inout(reg) ahead => _,
                n = inout(reg) n => _,
                sums = in(reg) sums,
                row = in(reg) 64_usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `self` is proof of AMX. Released tiles cost a switch of threads nothing.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
