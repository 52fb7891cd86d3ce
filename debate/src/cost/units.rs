//! Sizes, rates and times as people write them, and as this tool prints them: integers throughout.

use std::fmt;

use super::error::CostError;

/// Bytes in a page. Dirty logging counts in 4 KiB pages here; a kernel with larger pages sends more for each bit.
pub const PAGE_BYTES: u64 = 4096;

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Bytes in a KiB, MiB and GiB.
pub const KIB: u64 = 1 << 10;
/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;

/// What a suffix multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// Memory: K, M, G, T are powers of 1024.
    Binary,
    /// Link speeds and counts: k, M, G, T are powers of 1000.
    Decimal,
}

fn parse(what: &'static str, text: &str, base: Base, endings: &[&str]) -> Result<u64, CostError> {
    let bad = |why: &str| CostError::Number {
        what,
        text: text.to_owned(),
        why: why.to_owned(),
    };
    let trimmed = text.trim();
    let lower = trimmed.to_ascii_lowercase();
    let mut body = lower.as_str();
    for ending in endings {
        if let Some(rest) = body.strip_suffix(ending) {
            body = rest;
            break;
        }
    }
    let digits = body
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(body.len());
    let (number, suffix) = body.split_at(digits);
    if number.is_empty() {
        return Err(bad("it must begin with a whole number, as in 24G"));
    }
    let power = match suffix {
        "" => 0,
        "k" | "ki" => 1,
        "m" | "mi" => 2,
        "g" | "gi" => 3,
        "t" | "ti" => 4,
        _ => {
            return Err(bad(
                "a whole number and K, M, G or T, as in 24G, is wanted; write 1536M rather than 1.5G",
            ));
        }
    };
    let unit: u64 = if base == Base::Binary || suffix.ends_with('i') {
        1024
    } else {
        1000
    };
    let value: u64 = number
        .parse()
        .map_err(|_| bad("the number does not fit in 64 bits"))?;
    value
        .checked_mul(unit.pow(power))
        .ok_or_else(|| bad("the value does not fit in 64 bits"))
}

/// A size in bytes: `24G`, `512M`, `4096`; K, M, G and T are powers of 1024.
///
/// # Errors
/// [`CostError::Number`] if the text is not such a size or overflows.
pub fn parse_bytes(what: &'static str, text: &str) -> Result<u64, CostError> {
    parse(what, text, Base::Binary, &["b"])
}

/// A rate of stores in bytes per second: `800M`, `2G/s`; K, M, G and T are powers of 1000.
///
/// # Errors
/// [`CostError::Number`] if the text is not such a rate or overflows.
pub fn parse_bytes_per_s(what: &'static str, text: &str) -> Result<u64, CostError> {
    parse(what, text, Base::Decimal, &["b/s", "/s"])
}

/// A link speed in bits per second: `10G`, `25Gbit/s`; K, M, G and T are powers of 1000.
///
/// # Errors
/// [`CostError::Number`] if the text is not such a speed or overflows.
pub fn parse_bits_per_s(what: &'static str, text: &str) -> Result<u64, CostError> {
    parse(what, text, Base::Decimal, &["bit/s", "b/s", "bps", "/s"])
}

/// A count: `65536`, `64Ki`, `2M`.
///
/// # Errors
/// [`CostError::Number`] if the text is not a count or overflows.
pub fn parse_count(what: &'static str, text: &str) -> Result<u64, CostError> {
    parse(what, text, Base::Decimal, &[])
}

/// A duration in nanoseconds: `300ms`, `2s`, `50us`, `900ns`; a bare number counts milliseconds.
///
/// # Errors
/// [`CostError::Number`] if the text is not a duration or overflows.
pub fn parse_duration(what: &'static str, text: &str) -> Result<u64, CostError> {
    let lower = text.trim().to_ascii_lowercase();
    let (body, unit) = [("ns", 1), ("us", 1000), ("ms", MS), ("s", SECOND)]
        .into_iter()
        .find_map(|(ending, unit)| lower.strip_suffix(ending).map(|body| (body, unit)))
        .unwrap_or((&lower, MS));
    let bad = |why: &str| CostError::Number {
        what,
        text: text.to_owned(),
        why: why.to_owned(),
    };
    let number: u64 = body
        .trim()
        .parse()
        .map_err(|_| bad("write a whole number and ns, us, ms or s, as in 300ms"))?;
    number
        .checked_mul(unit)
        .ok_or_else(|| bad("the value does not fit in 64 bits of nanoseconds"))
}

/// A duration for people: three decimals of the largest fitting unit, from integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nanos(pub u64);

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            ns if ns >= SECOND => (SECOND, "s"),
            ns if ns >= MS => (MS, "ms"),
            ns if ns >= 1000 => (1000, "us"),
            ns => return f.pad(&format!("{ns} ns")),
        };
        f.pad(&format!(
            "{}.{:03} {name}",
            self.0 / unit,
            self.0 % unit / (unit / 1000)
        ))
    }
}

/// A size for people: one decimal of the largest fitting power of 1024, rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            b if b >= GIB => (GIB, "GiB"),
            b if b >= MIB => (MIB, "MiB"),
            b if b >= KIB => (KIB, "KiB"),
            b => return f.pad(&format!("{b} B")),
        };
        f.pad(&format!(
            "{}.{} {name}",
            self.0 / unit,
            self.0 % unit * 10 / unit
        ))
    }
}

/// A ratio in thousandths, printed as a percentage with one decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerMille(pub u64);

impl fmt::Display for PerMille {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{} %", self.0 / 10, self.0 % 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_counts_in_1024_and_links_in_1000() {
        assert_eq!(parse_bytes("memory", "24G"), Ok(24 * GIB));
        assert_eq!(parse_bytes("memory", "512MiB"), Ok(512 * MIB));
        assert_eq!(parse_bits_per_s("bandwidth", "10G"), Ok(10_000_000_000));
        assert_eq!(parse_bits_per_s("bandwidth", "500Mbit/s"), Ok(500_000_000));
        assert_eq!(parse_bytes_per_s("dirty-rate", "800MB/s"), Ok(800_000_000));
        assert_eq!(parse_count("ring", "64Ki"), Ok(65536));
        assert_eq!(parse_duration("limit", "300ms"), Ok(300 * MS));
        assert_eq!(parse_duration("limit", "2s"), Ok(2 * SECOND));
        assert_eq!(parse_duration("limit", "7"), Ok(7 * MS));
    }

    #[test]
    fn a_bad_number_says_what_to_write_instead() {
        for text in [
            "",
            "G",
            "1.5G",
            "-1",
            "24X",
            "99999999999999999999",
            "18446744073709551615G",
        ] {
            let error = parse_bytes("memory", text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("memory: `{text}`")), "{error}");
        }
    }

    #[test]
    fn times_print_from_integers() {
        assert_eq!(Nanos(999).to_string(), "999 ns");
        assert_eq!(Nanos(1_234_567).to_string(), "1.234 ms");
        assert_eq!(Nanos(73_000_000_000).to_string(), "73.000 s");
        assert_eq!(Bytes(1536 * MIB).to_string(), "1.5 GiB");
        assert_eq!(PerMille(254).to_string(), "25.4 %");
    }
}
