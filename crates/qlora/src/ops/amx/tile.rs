//! The tile unit (Intel AMX): is it there, may we use it, and one 32 x 32 block of a product.
//!
//! All that touches the unit is in this file, as `asm!`, for the intrinsics are not in stable Rust. A task
//! sets the unit up and releases it at its end, so a thread that does not multiply carries no tile state
//! (setting up for each block costs a tenth of the speed or more). It knows tiles of bf16 parts, not what they stand for.
//! Source: Intel 64 and IA-32 Architectures SDM, volume 1 chapter 18, and the kernel's
//! `Documentation/arch/x86/xstate.rst` for the permission.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Rows and columns of a block: 2 x 2 accumulators of 16 x 16.
pub(super) const BLOCK: usize = 32;
/// Inner values of a tile: 16 pairs.
pub(super) const INNER: usize = 32;
/// Lines of one k-tile of a panel: high, middle and low parts, two tiles of 16 lines each.
pub(super) const LINES: usize = 6 * 16;

/// A row of a tile: 16 pairs of bf16, the first of a pair in the lower half. Aligned, so that loading a
/// line touches one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u32; 16]);

/// A finished block, row after row.
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [[f32; BLOCK]; BLOCK]);

/// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Config(bytes)
};

/// Whether the processor has the unit and the kernel lets this process use it. Asks once; the permission
/// holds for every thread of the process.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_unit() && ask_permission())
}

/// AMX-TILE and AMX-BF16, and both parts of the tile state switched on by the system.
fn has_unit() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const TILE_STATE: u32 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let low: u32;
    #[expect(unsafe_code, reason = "reading a control register")]
    // SAFETY: OSXSAVE above says that `xgetbv` may be executed; it changes eax and edx alone.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    __cpuid_count(7, 0).edx & BF16_AND_TILE == BF16_AND_TILE && low & TILE_STATE == TILE_STATE
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
#[cfg(target_os = "linux")]
fn ask_permission() -> bool {
    const ARCH_PRCTL: i64 = 158;
    let result: i64;
    #[expect(unsafe_code, reason = "a system call that no crate of ours wraps")]
    // SAFETY: takes two numbers and touches no memory of ours; the kernel spoils rcx and r11. A kernel that
    // does not know the request answers with an error number.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") 0x1023, in("rsi") 18,
             out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn ask_permission() -> bool {
    false
}

/// The unit, set up for the calling thread until this is dropped.
pub(super) struct Tiles {
    /// Set up for one thread only.
    here: PhantomData<*const ()>,
}

impl Tiles {
    pub(super) fn set_up() -> Self {
        assert!(available(), "the driver asks first");
        #[expect(unsafe_code, reason = "the tile unit has no stable intrinsics")]
        // SAFETY: the unit is there and permitted; the instruction reads the 64 bytes of a valid setup. No code
        // but this file's uses tiles.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly, preserves_flags));
        }
        Self { here: PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "the tile unit has no stable intrinsics")]
        // SAFETY: gives the tile state up, which nobody reads after this.
        unsafe {
            asm!("tilerelease", options(nomem, nostack, preserves_flags));
        }
    }
}

/// The product of a panel of 32 rows and one of 32 columns, each cut in three bf16 parts (`h + m + l`, see
/// `pack`): `h h' + h m' + m h' + h l' + m m' + l h'`, what is dropped being below the rounding of f32.
///
/// The five small products are summed first over the whole inner dimension and `h h'` after them, so
/// that they add little to the rounding of the sum. Between two products one operand stays loaded.
pub(super) fn block(_: &Tiles, rows: &[Line], cols: &[Line], sums: &mut Sums) {
    assert!(
        rows.len() == cols.len() && rows.len().is_multiple_of(LINES) && !rows.is_empty(),
        "panels of whole k-tiles"
    );
    let steps = rows.len() / LINES;
    #[expect(unsafe_code, reason = "the tile unit has no stable intrinsics")]
    // SAFETY: the unit is set up, as `Tiles` says. Each of `steps` rounds reads 6 tiles of 1 KiB from either
    // panel, which hold `steps * LINES` lines of 64 bytes; `sums` is 32 rows of 128 bytes, of which the four
    // stores write all. The tile registers are declared as clobbered.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "mov {a}, {rows}",
            "mov {b}, {cols}",
            "mov {left}, {steps}",
            "2:",
            "tileloadd tmm6, [{b} + {line} + 4096]", // l'
            "tileloadd tmm4, [{a} + {line}]",        // h
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {line} + 5120]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{b} + {line} + 2048]", // m'
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {line} + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {line} + 2048]", // m
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {line} + 3072]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{b} + {line}]", // h'
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {line} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {line} + 4096]", // l
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {line} + 5120]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 6144",
            "add {b}, 6144",
            "dec {left}",
            "jnz 2b",
            "3:",
            "tileloadd tmm6, [{cols} + {line}]", // h'
            "tileloadd tmm4, [{rows} + {line}]", // h
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{cols} + {line} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{rows} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {rows}, 6144",
            "add {cols}, 6144",
            "dec {steps}",
            "jnz 3b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 64], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            "tilestored [{sums} + {row} + 2112], tmm3",
            rows = inout(reg) rows.as_ptr() => _,
            cols = inout(reg) cols.as_ptr() => _,
            steps = inout(reg) steps => _,
            a = out(reg) _,
            b = out(reg) _,
            left = out(reg) _,
            sums = in(reg) sums,
            line = in(reg) 64_usize,
            row = in(reg) 128_usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
