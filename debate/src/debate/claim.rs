//! The claims as data: a file each under `debate/claims`.
//!
//! A claim says something about orders of calls. A *case* is such an order, with the machines on which it is checked
//! and what the claim, as it is worded, says of it. The claim's verdict follows from what the search finds; it is
//! compared with the verdict that the file states, so that a change of the model that changes an answer is noticed.

use dirtysim_model::oracle::Invariant;
use serde::Deserialize;

/// The kinds of verdict on a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every case came out as the claim says.
    Confirmed,
    /// Every case that meets the stated condition came out as the claim says, and some that do not meet it did not.
    Conditional,
    /// Some case came out otherwise.
    Refuted,
    /// The claim is about a price; the figure is given.
    Cost,
    /// This model cannot say.
    Undecidable,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 5] = [
        Self::Confirmed,
        Self::Conditional,
        Self::Refuted,
        Self::Cost,
        Self::Undecidable,
    ];

    /// The word in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Conditional => "conditional",
            Self::Refuted => "refuted",
            Self::Cost => "cost",
            Self::Undecidable => "undecidable",
        }
    }

    /// What the word means.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Confirmed => {
                "every case came out as the claim says: where it says that nothing is lost, every interleaving within the bounds was seen; where it says that something is, there is a trace"
            }
            Self::Conditional => {
                "it is so exactly under the condition stated: the cases that meet it came out as the claim says, and for each way of not meeting it there is a trace that shows otherwise"
            }
            Self::Refuted => "a trace shows otherwise",
            Self::Cost => "it is about a price, not about a loss: the figure is given",
            Self::Undecidable => "this model cannot say, and why is stated",
        }
    }
}

/// What a case comes to: every claim of the oracle holds, or one of them is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is lost.
    Holds,
    /// That invariant breaks.
    Breaks(Invariant),
}

impl Outcome {
    /// The word in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Breaks(_) => "violated",
        }
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        match word.as_str() {
            "holds" => Ok(Self::Holds),
            "lost" => Ok(Self::Breaks(Invariant::NoDirtyPageLost)),
            _ => Invariant::by_name(&word).map(Self::Breaks).ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "unknown outcome `{word}`: write holds, lost, or the name of an invariant"
                ))
            }),
        }
    }
}

/// A change that must turn a claim's verdict: the test that the verdict hangs on what it says it hangs on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flip {
    /// The case that is changed.
    pub case: String,
    /// A mutation that is switched on in it.
    #[serde(default)]
    pub mutate: Option<String>,
    /// Steps in place of its own.
    #[serde(default)]
    pub steps: Option<Vec<toml::Value>>,
    /// The verdict then.
    pub verdict: Verdict,
}

/// An order of calls, and the machines on which it is checked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name within the claim.
    pub name: String,
    /// What it is, in a sentence.
    pub sentence: String,
    /// The machines: `[ARCH:]MODE[/PROTECT]`, see [`super::expand`].
    pub on: Vec<String>,
    /// What the claim, as worded, says of it.
    pub says: Outcome,
    /// What is found, where it is something else.
    #[serde(default)]
    pub finds: Option<Outcome>,
    /// Whether it meets the claim's condition, where there is one.
    #[serde(default = "yes")]
    pub within: bool,
    /// The protocol.
    #[serde(default)]
    pub steps: Vec<toml::Value>,
    /// Threads of the VMM beside it.
    #[serde(default)]
    pub beside: Vec<Vec<toml::Value>>,
    /// vCPUs.
    #[serde(default = "two")]
    pub vcpus: u64,
    /// Pages of the one slot, unless there are `slots`.
    #[serde(default = "two")]
    pub pages: u64,
    /// Stores of each vCPU.
    #[serde(default = "one")]
    pub stores: u64,
    /// The pages to which vCPUs store; none: all.
    #[serde(default)]
    pub store_pages: Option<Vec<u64>>,
    /// More keys of `[machine]`.
    #[serde(default)]
    pub machine: toml::Table,
    /// More keys of `[writers]`.
    #[serde(default)]
    pub writers: toml::Table,
    /// Slots in place of the one.
    #[serde(default)]
    pub slots: Vec<toml::Value>,
    /// What the vCPU thread does after exit 31.
    #[serde(default)]
    pub on_ring_full: Option<String>,
    /// Whether over-reports count.
    #[serde(default)]
    pub check_spurious: bool,
    /// Mutations that belong to the case: a wrong behaviour that the claim is about.
    #[serde(default)]
    pub mutations: Vec<String>,
    /// Events that its trace must contain, in that order: the words of traces, and `store-retires`.
    #[serde(default)]
    pub along: Vec<String>,
}

fn yes() -> bool {
    true
}

fn one() -> u64 {
    1
}

fn two() -> u64 {
    2
}

impl Case {
    /// What is expected to be found.
    #[must_use]
    pub fn expected(&self) -> Outcome {
        self.finds.unwrap_or(self.says)
    }
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// P1 to P21, C1 to C7, X1 to X6; parts of one by a letter.
    pub id: String,
    /// A few words.
    pub title: String,
    /// Who said it, and where.
    pub said: String,
    /// The claim, in this project's words.
    pub claim: String,
    /// What would refute it.
    pub refuted_by: String,
    /// The verdict that is expected.
    pub expect: Verdict,
    /// What the verdict comes to, in a sentence or two: the answer.
    pub answer: String,
    /// The condition, where there is one.
    #[serde(default)]
    pub condition: Option<String>,
    /// What is left open, or why the model cannot say.
    #[serde(default)]
    pub open: Option<String>,
    /// The figure, by the name of a computation in [`super::figures`].
    #[serde(default)]
    pub figure: Option<String>,
    /// Sets of calls with their answers, by the name of an enumeration in [`super::calls`].
    #[serde(default)]
    pub calls: Vec<String>,
    /// The cases.
    #[serde(default, rename = "case")]
    pub cases: Vec<Case>,
    /// What turns the verdict.
    #[serde(default)]
    pub flip: Option<Flip>,
}

macro_rules! files {
    ($($id:literal),+ $(,)?) => {
        /// Ids and texts, in the order in which they are shown.
        const FILES: &[(&str, &str)] = &[$(($id, include_str!(concat!("../../claims/", $id, ".toml")))),+];
    };
}

files!(
    "P1", "P2", "P3", "P4", "P5", "P6a", "P6b", "P6c", "P7", "P8", "P9", "P10", "P11", "P12",
    "P13", "P14", "P15", "P16a", "P16b", "P17a", "P17b", "P18", "P19", "P20", "P21a", "P21b", "C1",
    "C2", "C3", "C4", "C4r", "C5", "C6", "C7", "X1", "X2", "X3", "X4", "X5", "X6",
);

/// Every claim, in the order in which they are shown.
#[must_use]
pub fn claims() -> Vec<Claim> {
    FILES
        .iter()
        .map(|(id, text)| match toml::from_str::<Claim>(text) {
            Ok(claim) => claim,
            Err(error) => panic!("a built-in claim is right, or its test fails: {id}: {error}"),
        })
        .collect()
}
