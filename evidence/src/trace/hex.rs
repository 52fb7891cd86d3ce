//! Addresses, bitmap words and register values as hexadecimal strings.
//!
//! They are written as `"0x…"`, because a JSON number above 2^53 does not survive most other tools; a plain number is
//! accepted on reading. Everything that is counted (pages, bytes, entries, indices) is a plain decimal number.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// Writes `value` as `"0x…"` without leading zeros.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

/// Reads `"0x…"` (up to 16 digits, either case) or a number.
///
/// # Errors
/// It is neither.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(HexVisitor)
}

/// Reads the text `0x…`, as it stands between the quotes; none where it is none.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    // from_str_radix would take a sign.
    if digits.starts_with(['+', '-']) || digits.len() > 16 {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

struct HexVisitor;

impl Visitor<'_> for HexVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hexadecimal string \"0x…\" of at most 16 digits")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<u64, E> {
        parse(value).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(value), &self))
    }
}

/// The same for a field that may be absent.
pub(crate) mod option {
    use serde::de::Deserializer;
    use serde::ser::Serializer;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Hex(#[serde(with = "super")] u64);

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Hex).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        Ok(Option::<Hex>::deserialize(deserializer)?.map(|Hex(value)| value))
    }
}
