//! The instruction sets that the ops are compiled for.

/// An instruction set that the ops have a path for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, on every processor.
    Portable,
    /// AVX2 with FMA and F16C (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, DQ and VL (x86-64-v4).
    Avx512,
    /// AVX-512 with products of bf16 numbers (`vdpbf16ps`).
    Avx512Bf16,
    /// AVX-512 with tiles of bf16 numbers (AMX).
    AmxBf16,
}

impl Isa {
    /// Every instruction set that there is a path for.
    pub const ALL: [Isa; 5] = [
        Isa::Portable,
        Isa::Avx2,
        Isa::Avx512,
        Isa::Avx512Bf16,
        Isa::AmxBf16,
    ];

    /// Every instruction set this processor can run, slowest first.
    pub fn available() -> Vec<Isa> {
        let mut found = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                found.push(Isa::Avx2);
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    found.push(Isa::Avx512);
                    if is_x86_feature_detected!("avx512bf16") {
                        // Intel's processors compute it at half the rate of f32 (measured on Sapphire Rapids).
                        let at = found.len() - usize::from(x86::is_of_intel());
                        found.insert(at, Isa::Avx512Bf16);
                    }
                    if x86::has_amx_bf16() {
                        found.push(Isa::AmxBf16);
                    }
                }
            }
        }
        found
    }

    /// The fastest one of this processor whose products keep activations in f32. Those that round them have run in an
    /// emulator only, so nothing chooses them by itself.
    pub fn best() -> Isa {
        let mut exact = Isa::available().into_iter().filter(|isa| !isa.multiplies_bf16());
        exact.next_back().expect("the portable path is always there")
    }

    /// Its name in logs: `portable`, `avx2`, `avx512`, `avx512_bf16` or `amx_bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512_bf16",
            Isa::AmxBf16 => "amx_bf16",
        }
    }

    /// Whether products with bf16 weights round the activations to bf16.
    pub fn multiplies_bf16(self) -> bool {
        matches!(self, Isa::Avx512Bf16 | Isa::AmxBf16)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    use std::sync::OnceLock;

    /// Whether the processor names Intel as its vendor.
    pub(super) fn is_of_intel() -> bool {
        let vendor = __cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx]
            .map(u32::to_le_bytes)
            .as_flattened()
            == b"GenuineIntel"
    }

    /// Whether this process may use AMX with bf16. The first call requests the permission of the system, which all threads of
    /// the process have then.
    pub(super) fn has_amx_bf16() -> bool {
        static HAS: OnceLock<bool> = OnceLock::new();
        *HAS.get_or_init(|| processor_has_amx_bf16() && is_permitted())
    }

    fn processor_has_amx_bf16() -> bool {
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        if __cpuid(0).eax < 7 || !is_x86_feature_detected!("xsave") {
            return false;
        }
        let has = __cpuid_count(7, 0).edx;
        // SAFETY: the processor and the system have XSAVE.
        has & AMX_BF16 != 0 && has & AMX_TILE != 0 && unsafe { system_keeps_tiles() }
    }

    /// Whether the system saves the tiles' configuration and data when it switches threads.
    ///
    /// # Safety
    /// The processor and the system must have XSAVE.
    #[target_feature(enable = "xsave")]
    unsafe fn system_keeps_tiles() -> bool {
        const TILES: u64 = 0b11 << 17;
        // SAFETY: register 0 is always there.
        unsafe { _xgetbv(0) & TILES == TILES }
    }

    /// Asks Linux for the permission to use tiles (arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)).
    #[cfg(target_os = "linux")]
    fn is_permitted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const XFEATURE_XTILEDATA: u64 = 18;
        let result: i64;
        // SAFETY: this system call reads and writes no memory; the registers that it changes are named.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    #[cfg(not(target_os = "linux"))]
    fn is_permitted() -> bool {
        false
    }
}
