//! Bitmaps, written short: zero words are left out, equal words that follow each other stand as one.
//!
//! Like [`super::runs`], nothing here takes memory by what a file claims.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::hex;
use super::runs::{RunError, SLOT_PAGES_MAX};

/// The words of the largest memslot's bitmap.
pub const SLOT_WORDS_MAX: u64 = SLOT_PAGES_MAX.div_ceil(64);

/// A slot's bitmap without its zero words: an object from a word's index, or a range of them `"a-b"`, to the word.
///
/// Bit `i` of word `w` is page `64 w + i`, counted from the first page that the call names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Words {
    runs: Vec<WordRun>,
}

/// Equal words that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WordRun {
    /// The first word's index.
    pub first: u64,
    /// The last word's index, not before `first`.
    pub last: u64,
    /// The word, not zero.
    pub word: u64,
}

impl Words {
    /// The runs, in ascending order and as long as they can be.
    pub fn runs(&self) -> &[WordRun] {
        &self.runs
    }

    /// No bit is set.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The index of the last word that is not zero.
    pub fn last_index(&self) -> Option<u64> {
        self.runs.last().map(|run| run.last)
    }

    /// The word at `index`.
    pub fn word(&self, index: u64) -> u64 {
        let at = self.runs.partition_point(|run| run.last < index);
        self.runs
            .get(at)
            .filter(|run| run.first <= index)
            .map_or(0, |run| run.word)
    }

    /// Every set bit in ascending order, as a page number.
    pub fn iter_pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|run| {
            (run.first..=run.last).flat_map(move |index| {
                (0..64)
                    .filter(move |bit| run.word >> bit & 1 == 1)
                    .map(move |bit| index * 64 + bit)
            })
        })
    }

    /// Appends equal words. Zero words are left out; refuses a range that is backwards, does not come after the ones
    /// before, or lies where no bitmap reaches.
    pub fn push_run(&mut self, run: WordRun) -> Result<(), RunError> {
        if run.last < run.first {
            return Err(RunError::Backwards);
        }
        if run.last >= SLOT_WORDS_MAX {
            return Err(RunError::PastTheEnd {
                what: "word",
                max: SLOT_WORDS_MAX - 1,
            });
        }
        if self
            .runs
            .last()
            .is_some_and(|before| run.first <= before.last)
        {
            return Err(RunError::NotAscending);
        }
        if run.word == 0 {
            return Ok(());
        }
        match self.runs.last_mut() {
            Some(before) if before.last + 1 == run.first && before.word == run.word => {
                before.last = run.last
            }
            _ => self.runs.push(run),
        }
        Ok(())
    }

    /// A bitmap as it is in memory, from word 0 on. An error if it is longer than the largest slot's.
    pub fn from_bitmap(words: impl IntoIterator<Item = u64>) -> Result<Self, RunError> {
        let mut found = Self::default();
        for (index, word) in (0u64..).zip(words) {
            found.push_run(WordRun {
                first: index,
                last: index,
                word,
            })?;
        }
        Ok(found)
    }
}

impl fmt::Display for WordRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.runs.len()))?;
        for run in &self.runs {
            map.serialize_entry(&run.to_string(), &format_args!("{:#x}", run.word))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordsVisitor;
        impl<'de> Visitor<'de> for WordsVisitor {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an object from word indices (\"3\") or ranges (\"0-15\") to hexadecimal words",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Words, A::Error> {
                let mut words = Words::default();
                while let Some((indices, text)) = entries.next_entry::<String, String>()? {
                    let Some((first, last)) = parse_indices(&indices) else {
                        let found = serde::de::Unexpected::Str(&indices);
                        return Err(A::Error::invalid_value(
                            found,
                            &"a word's index (\"3\") or a range (\"0-15\")",
                        ));
                    };
                    let Some(word) = hex::parse(&text) else {
                        let found = serde::de::Unexpected::Str(&text);
                        return Err(A::Error::invalid_value(
                            found,
                            &"a word \"0x…\" of at most 16 digits",
                        ));
                    };
                    words
                        .push_run(WordRun { first, last, word })
                        .map_err(A::Error::custom)?;
                }
                Ok(words)
            }
        }
        deserializer.deserialize_map(WordsVisitor)
    }
}

/// `3` or `0-15`.
fn parse_indices(text: &str) -> Option<(u64, u64)> {
    let number = |digits: &str| -> Option<u64> {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    match text.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None => number(text).map(|index| (index, index)),
    }
}
