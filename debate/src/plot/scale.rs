//! Axes: where a value lies between an axis' ends, and which values are labelled.

use super::PlotError;

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm.
    Log,
}

/// An axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// How values are spread.
    pub scale: Scale,
    /// The value at its beginning.
    pub from: u64,
    /// The value at its end.
    pub to: u64,
    /// What a raw value is divided by for its tick label: 10^9 where nanoseconds are labelled in seconds.
    pub divisor: u64,
}

/// The positions on an axis: 0 at its beginning, this at its end.
pub(super) const SPAN: i32 = 1 << 20;

impl Axis {
    /// An axis whose labels are the raw values.
    #[must_use]
    pub fn new(label: impl Into<String>, scale: Scale, from: u64, to: u64) -> Self {
        Self {
            label: label.into(),
            scale,
            from,
            to,
            divisor: 1,
        }
    }

    /// With labels in a larger unit.
    #[must_use]
    pub fn divided_by(self, divisor: u64) -> Self {
        Self {
            divisor: divisor.max(1),
            ..self
        }
    }

    pub(super) fn check(&self) -> Result<(), PlotError> {
        let why = if self.to <= self.from {
            "its end must lie above its beginning"
        } else if self.scale == Scale::Log && self.from == 0 {
            "a logarithmic axis cannot begin at zero; begin at 1"
        } else {
            return Ok(());
        };
        Err(PlotError::Axis {
            label: self.label.clone(),
            why,
        })
    }

    /// Where a value lies, from 0 to [`SPAN`]; `None` outside the axis.
    pub(super) fn position(&self, value: u64) -> Option<i32> {
        if !(self.from..=self.to).contains(&value) {
            return None;
        }
        let (part, whole) = match self.scale {
            Scale::Linear => (value - self.from, self.to - self.from),
            Scale::Log => (
                log2(value) - log2(self.from),
                log2(self.to) - log2(self.from),
            ),
        };
        let position = u128::from(part) * SPAN as u128 / u128::from(whole.max(1));
        i32::try_from(position).ok()
    }

    /// The values to label: powers of ten, or four to eight steps of 1, 2 or 5 times one.
    pub(super) fn ticks(&self) -> Vec<u64> {
        match self.scale {
            Scale::Log => {
                let powers = (0..20)
                    .map(|p| 10u64.pow(p))
                    .filter_map(|power| power.checked_mul(self.first_power()));
                powers
                    .filter(|tick| (self.from..=self.to).contains(tick))
                    .collect()
            }
            Scale::Linear => {
                let step = self.step();
                let first = self.from.div_ceil(step) * step;
                (0..20)
                    .map(|i| first.saturating_add(step.saturating_mul(i)))
                    .take_while(|&v| v <= self.to)
                    .collect()
            }
        }
    }

    /// One, or for a divisor that is no power of ten (pages of a GiB, say) the divisor's share that makes round labels.
    fn first_power(&self) -> u64 {
        let mut divisor = self.divisor;
        while divisor.is_multiple_of(10) {
            divisor /= 10;
        }
        divisor
    }

    fn step(&self) -> u64 {
        let unit = self.first_power();
        let span = (self.to - self.from) / unit;
        let mut power: u64 = 1;
        loop {
            for factor in [1, 2, 5] {
                let step = power.saturating_mul(factor);
                if span / step <= 6 {
                    return step.saturating_mul(unit);
                }
            }
            power = power.saturating_mul(10);
        }
    }

    /// A tick's label: the value over the divisor, with as few decimals as it needs.
    pub(super) fn tick_label(&self, value: u64) -> String {
        let (whole, rest) = (value / self.divisor, value % self.divisor);
        if rest == 0 {
            return grouped(whole);
        }
        let millionths = u128::from(rest) * 1_000_000 / u128::from(self.divisor);
        let decimals = format!("{millionths:06}");
        let decimals = decimals.trim_end_matches('0');
        if decimals.is_empty() {
            grouped(whole)
        } else {
            format!("{whole}.{decimals}")
        }
    }
}

/// A number with its digits in groups of three: `6,291,456`.
#[must_use]
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The binary logarithm of a value of at least 1, with 20 bits after the point, rounded down.
fn log2(value: u64) -> u64 {
    let whole = u64::from(value.max(1).ilog2());
    // The mantissa in 1..2 with 62 bits after the point; squaring it doubles its logarithm.
    let mut mantissa = (u128::from(value.max(1)) << (62 - whole.min(62))) >> (whole.max(62) - 62);
    let mut fraction = 0;
    for _ in 0..20 {
        mantissa = (mantissa * mantissa) >> 62;
        fraction <<= 1;
        if mantissa >= 1 << 63 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    (whole << 20) | fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_agree_with_the_tables() {
        assert_eq!(log2(1), 0);
        assert_eq!(log2(1 << 40), 40 << 20);
        assert_eq!(log2(u64::MAX), (64 << 20) - 1);
        // log2(10) = 3.321928095
        assert_eq!((log2(10) * 1_000_000) >> 20, 3_321_928);
    }

    #[test]
    fn decades_are_evenly_spaced_and_labelled() {
        let axis = Axis::new("states", Scale::Log, 1, 10_000);
        assert_eq!(axis.ticks(), [1, 10, 100, 1000, 10_000]);
        let quarter = axis.position(10).unwrap();
        assert!((quarter - SPAN / 4).abs() < 8);
        assert_eq!(axis.position(10_000), Some(SPAN));
        assert_eq!(axis.position(10_001), None);
        assert_eq!(axis.tick_label(10_000), "10,000");
    }

    #[test]
    fn nanoseconds_are_labelled_in_seconds() {
        let axis =
            Axis::new("time, s", Scale::Log, 1_000_000, 100_000_000_000).divided_by(1_000_000_000);
        let labels: Vec<_> = axis
            .ticks()
            .into_iter()
            .map(|tick| axis.tick_label(tick))
            .collect();
        assert_eq!(labels, ["0.001", "0.01", "0.1", "1", "10", "100"]);
        let linear =
            Axis::new("time, s", Scale::Linear, 0, 73_000_000_000).divided_by(1_000_000_000);
        let labels: Vec<_> = linear
            .ticks()
            .into_iter()
            .map(|tick| linear.tick_label(tick))
            .collect();
        assert_eq!(labels, ["0", "20", "40", "60"]);
    }

    #[test]
    fn an_axis_without_extent_is_refused() {
        assert!(Axis::new("a", Scale::Linear, 3, 3).check().is_err());
        assert!(Axis::new("a", Scale::Log, 0, 3).check().is_err());
        assert!(Axis::new("a", Scale::Linear, 0, 1).check().is_ok());
    }
}
