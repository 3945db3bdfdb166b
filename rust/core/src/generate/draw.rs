//! Random numbers that are a function of a place, not of a history.
//!
//! Integer arithmetic only: the same bytes on every machine. Every draw is addressed by
//! (seed, stream, row, column), so rows may be made in any order and in chunks of any size.

/// The step of SplitMix64, 2^64 / golden ratio.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finalizer of SplitMix64: every bit of `x` reaches every bit of the result.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A family of draws: of a whole stream, or of one row in it.
#[derive(Clone, Copy)]
pub(super) struct Key(u64);

impl Key {
    /// Streams of one seed are independent of each other: a ratio changed in one leaves the
    /// others as they were.
    pub(super) fn stream(seed: u64, name: u64) -> Key {
        Key(mix(mix(seed.wrapping_add(GAMMA)) ^ name.wrapping_mul(GAMMA)))
    }

    pub(super) fn at(self, n: u64) -> Key {
        Key(self.bits_at(n))
    }

    pub(super) fn draw(self, n: usize) -> Draw {
        Draw(self.bits_at(n as u64))
    }

    /// Whether place `n` is among the `ratio` of all places.
    pub(super) fn hits(self, n: u64, ratio: Ratio) -> bool {
        ratio.0 != 0 && self.bits_at(n) >> 32 < ratio.0
    }

    fn bits_at(self, n: u64) -> u64 {
        mix(self.0.wrapping_add((n + 1).wrapping_mul(GAMMA)))
    }
}

/// 64 random bits that are spent choice by choice.
#[derive(Clone, Copy)]
pub(super) struct Draw(u64);

impl Draw {
    /// A number below `n`. The bits that this choice leaves over feed the next one, so one
    /// `Draw` is good for choices among up to about 2^48 outcomes in all.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        let product = u128::from(self.0) * u128::from(n);
        self.0 = product as u64;
        (product >> 64) as u64
    }

    pub(super) fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// All 64 bits as the key of further draws, for what needs more than one.
    pub(super) fn into_key(self) -> Key {
        Key(self.0)
    }
}

/// A share of rows in 2^32ths; below 0 (and NaN) is none, above 1 is all.
#[derive(Clone, Copy)]
pub(super) struct Ratio(u64);

impl Ratio {
    pub(super) fn new(share: f64) -> Ratio {
        // Scaling by a power of two is exact, and the cast truncates and saturates.
        Ratio(((share * 4_294_967_296.0) as u64).min(1 << 32))
    }
}

/// The identity numbered `n` as 60 bits: a bijection, so no two numbers share one.
pub(super) fn scramble60(seed: u64, n: u64) -> u64 {
    const MASK: u64 = (1 << 60) - 1;
    let mut x = (n ^ mix(seed)) & MASK;
    // Odd factors and shifts by more than a third of the width are each invertible mod 2^60.
    x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15) & MASK;
    x ^= x >> 31;
    x = x.wrapping_mul(0xD6E8_FEB8_6659_FD93) & MASK;
    x ^= x >> 29;
    x = x.wrapping_mul(0xC2B2_AE3D_27D4_EB4F) & MASK;
    x ^ (x >> 32)
}
