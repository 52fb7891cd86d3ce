//! Integer arithmetic with more room than a `u64`: products of sizes and times, and `exp(-x)`.
//!
//! Everything the cost model reports is an integer computed with these, so that the same input gives the same bytes on
//! every machine; a `f64` exponential comes from the platform's C library and differs in its last bit.

/// One, in the fixed-point format of this module: 48 bits after the point.
pub(super) const ONE: u64 = 1 << 48;

/// ln 2 with 48 bits after the point, rounded down.
const LN_2: u64 = 195_103_586_505_167;

/// `a * b / c` rounded down, or `None` if the result does not fit in a `u64`. `c` is not zero.
pub(super) fn mul_div(a: u64, b: u64, c: u64) -> Option<u64> {
    u64::try_from(u128::from(a) * u128::from(b) / u128::from(c)).ok()
}

/// `a * b / c` rounded up, or `None` if the result does not fit in a `u64`. `c` is not zero.
pub(super) fn mul_div_up(a: u64, b: u64, c: u64) -> Option<u64> {
    u64::try_from((u128::from(a) * u128::from(b)).div_ceil(u128::from(c))).ok()
}

/// `pages * fraction`, rounded to the nearest page; `fraction` is at most [`ONE`].
pub(super) fn scale(pages: u64, fraction: u64) -> u64 {
    let product = u128::from(pages) * u128::from(fraction) + u128::from(ONE / 2);
    // fraction <= ONE, so the quotient is at most `pages`.
    (product >> 48) as u64
}

/// `exp(-x)` for `x >= 0`; argument and result have 48 bits after the point.
///
/// Never increases with `x`, which the model's monotonicity rests on: the series of `exp(+r)` has only rounded-down
/// positive terms, and its reciprocal is taken afterwards.
pub(super) fn exp_neg(x: u64) -> u64 {
    let halvings = x / LN_2;
    if halvings >= 48 {
        return 0;
    }
    let r = u128::from(x % LN_2);
    let mut sum = u128::from(ONE);
    let mut term = u128::from(ONE);
    for k in 1..=24u128 {
        term = ((term * r) >> 48) / k;
        if term == 0 {
            break;
        }
        sum += term;
    }
    let reciprocal = (1u128 << 96) / sum;
    (reciprocal >> halvings) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exp_neg_agrees_with_the_tables() {
        // exp(-0.5), exp(-1), exp(-2), exp(-10), ten digits each.
        for (x_tenths, ten_digits) in [
            (5, 6_065_306_597u128),
            (10, 3_678_794_412),
            (20, 1_353_352_832),
            (100, 453_999),
        ] {
            let got = (u128::from(exp_neg(ONE / 10 * x_tenths)) * 10_000_000_000) >> 48;
            assert!(got.abs_diff(ten_digits) <= 10, "exp(-{x_tenths}/10): {got}");
        }
        assert_eq!(exp_neg(0), ONE);
        assert_eq!(exp_neg(u64::MAX), 0);
    }

    #[test]
    fn products_beyond_u64_are_refused_not_wrapped() {
        assert_eq!(mul_div(u64::MAX, 3, 3), Some(u64::MAX));
        assert_eq!(mul_div(u64::MAX, 3, 2), None);
        assert_eq!(mul_div_up(10, 1, 3), Some(4));
    }

    proptest! {
        #[test]
        fn exp_neg_never_increases(x in 0..ONE * 40, step in 0..ONE) {
            prop_assert!(exp_neg(x + step) <= exp_neg(x));
            prop_assert!(exp_neg(x) <= ONE);
        }
    }
}
