//! A small scenario from a log: the machine, the order and the writers that it shows, scaled down until every interleaving
//! can be tried.
//!
//! What a log does not say is said in the scenario's comments, and stands there in its most common form: when the guest was
//! stopped, when pages were copied, and what was written between two events.
//!
//! ```
//! use dirtysim_evidence::distil::Distiller;
//! use dirtysim_evidence::trace::{Header, Kind};
//!
//! // A log without events shows nobody who collects.
//! let nothing = Distiller::new(&Header::new(Kind::Observed)).finish("mine", &[]);
//! assert!(nothing.unwrap_err().contains("nobody collects dirty pages"));
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::page::names::Named;
use crate::plain::paragraph;
use crate::trace::observed::{KvmIoctl, Observed, ObservedEvent, Phase};
use crate::trace::{Arch, Header};

/// Real pages that have a small one of their own.
const MOST_PAGES: usize = 2;
/// Rounds while the guest runs that the scenario has, of those that differ.
const MOST_ROUNDS: usize = 2;
/// Rounds that differ which are kept.
const KEPT_ROUNDS: usize = 1000;
/// Pages whose pushes are counted.
const KEPT_PAGES: usize = 1 << 20;

/// What a VMM was seen doing to its logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Harvest,
    Reset,
    Get,
    Clear,
}

impl Act {
    fn word(self) -> &'static str {
        match self {
            Self::Harvest => "harvest-rings",
            Self::Reset => "reset-rings",
            Self::Get => "get-dirty-log",
            Self::Clear => "clear-dirty-log",
        }
    }
}

/// Gathers what a log shows, in memory that does not grow with it.
#[derive(Debug, Default)]
pub struct Distiller {
    arch: Option<Arch>,
    rings: BTreeSet<u32>,
    pushes: BTreeMap<(u32, u64), u64>,
    round: Vec<Act>,
    /// The rounds that differ, in the order in which they were first seen, and how often each was.
    rounds: Vec<(Vec<Act>, u64)>,
    last: Vec<Act>,
    syncs: bool,
    harvests: bool,
    uses_rings: bool,
}

/// A scenario made of a log.
#[derive(Debug, Clone)]
pub struct Distilled {
    /// The scenario, with comments.
    pub toml: String,
    /// Small pages, and the real ones that each stands for, by what they are called.
    pub map: Vec<(String, String)>,
    /// What the log does not say and the scenario takes for granted.
    pub assumed: Vec<&'static str>,
}

impl Distiller {
    /// Begins with what the trace's header says.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        Self {
            arch: header.machine.as_ref().map(|machine| machine.arch),
            ..Self::default()
        }
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &ObservedEvent) {
        match &event.what {
            Observed::RingPush {
                ring, slot, offset, ..
            } => {
                self.ring(*ring);
                let place = (*slot, *offset);
                if self.pushes.len() < KEPT_PAGES || self.pushes.contains_key(&place) {
                    *self.pushes.entry(place).or_default() += 1;
                }
            }
            Observed::RingReset { ring, .. } => {
                self.ring(*ring);
                self.act(Act::Reset);
            }
            Observed::QemuPage { .. } | Observed::QemuReapVcpu { .. } => {
                (self.harvests, self.uses_rings) = (true, true);
                self.act(Act::Harvest);
            }
            Observed::QemuClear { .. } => self.act(Act::Clear),
            Observed::QemuVmIoctl { ioctl }
            | Observed::ProbeIoctl {
                phase: Phase::Enter,
                ioctl,
                ..
            } => match ioctl {
                KvmIoctl::GetDirtyLog => self.act(Act::Get),
                KvmIoctl::ClearDirtyLog => self.act(Act::Clear),
                KvmIoctl::ResetDirtyRings => self.act(Act::Reset),
                _ => {}
            },
            Observed::QemuSyncStart => {
                self.end_round();
                self.syncs = true;
            }
            Observed::PageFault { .. }
            | Observed::FastPageFault { .. }
            | Observed::PmlFull { .. }
            | Observed::SetSpte { .. }
            | Observed::TdpSpteChanged { .. } => {
                self.arch.get_or_insert(Arch::X86_64);
            }
            Observed::GuestFault { .. } | Observed::AccessFault { .. } => {
                self.arch.get_or_insert(Arch::Arm64);
            }
            _ => {}
        }
    }

    fn ring(&mut self, ring: u32) {
        self.uses_rings = true;
        // Two stand for any number.
        if self.rings.len() < 2 {
            self.rings.insert(ring);
        }
    }

    fn act(&mut self, act: Act) {
        if self.round.last() == Some(&act) {
            return;
        }
        if self.round.contains(&act) {
            // With syncs, a GET and a CLEAR a memslot are told once; without, a round ends where it begins again.
            if self.syncs {
                return;
            }
            self.end_round();
        }
        self.round.push(act);
    }

    fn end_round(&mut self) {
        let round = std::mem::take(&mut self.round);
        if round.is_empty() {
            return;
        }
        let known = self.rounds.len();
        match self.rounds.iter_mut().find(|(known, _)| *known == round) {
            Some((_, n)) => *n += 1,
            None if known < KEPT_ROUNDS => self.rounds.push((round.clone(), 1)),
            None => {}
        }
        self.last = round;
    }

    /// The scenario, under a name that is one; `wanted` are the pages that it is about, none: those that were pushed most.
    ///
    /// # Errors
    /// A log in which nobody collects pages: what to record.
    pub fn finish(mut self, name: &str, wanted: &[Named]) -> Result<Distilled, String> {
        self.end_round();
        if self.last.is_empty() {
            return Err("nobody collects dirty pages in this log: it has no harvest, no reset, no GET and no CLEAR\nhelp: `dirtysim help bug-reports` says what to record".to_owned());
        }
        let mut assumed = Vec::new();
        if self.uses_rings && !self.harvests {
            assumed.push("the log has no harvest: one is taken to come before each reset");
            let rounds = self.rounds.iter_mut().map(|(round, _)| round);
            for round in rounds.chain([&mut self.last]) {
                if let Some(at) = round.iter().position(|act| *act == Act::Reset) {
                    round.insert(at, Act::Harvest);
                }
            }
        }
        let uses = |act| self.rounds.iter().any(|(round, _)| round.contains(&act));
        let arch = match self.arch {
            Some(Arch::Arm64) => "arm64",
            Some(Arch::Riscv64) => "riscv",
            Some(Arch::Loongarch64) => "loongarch",
            Some(Arch::X86_64) => "x86",
            // Only there is a bitmap beside rings.
            None if self.uses_rings && uses(Act::Get) => {
                assumed.push(
                    "the log does not say the architecture: arm64, since it has rings and GET",
                );
                "arm64"
            }
            None => {
                assumed.push("the log does not say the architecture: x86");
                "x86"
            }
        };
        assumed.push("no log says when pages were copied and when the guest was stopped: a copy follows each round, and the guest is stopped before the last");
        assumed.push("no log says what the guest stored: each vCPU stores twice, to any page");
        let map = self.map(wanted);
        let mut out =
            format!("# {name}: made of a log by `dirtysim distil`, and scaled down.\n#\n");
        for (small, real) in &map {
            out.push_str(&format!("#   {small} stands for {real}\n"));
        }
        out.push_str(&format!(
            "#   ram:{} stands for every other page\n#\n# Not in the log, and taken for granted:\n",
            map.len()
        ));
        for assumed in &assumed {
            paragraph(&mut out, assumed, "#   - ", "#     ", 100);
        }
        out.push_str("#\n# The log's rounds, and how often each was seen:\n");
        for (round, n) in self.rounds.iter().take(10) {
            out.push_str(&format!("#   {n} x {}\n", words(round)));
        }
        out.push_str(&format!(
            "\nname = \"{name}\"\n\n[machine]\narch = \"{arch}\"\nvcpus = {}\npages = {}\n",
            self.rings.len().max(1),
            map.len() + 1
        ));
        if self.uses_rings {
            out.push_str("ring = { entries = 4, reserved = 2 } # scaled down\n");
            if uses(Act::Get) && arch == "arm64" {
                out.push_str("ring_with_bitmap = true\n");
            }
        }
        if uses(Act::Clear) {
            out.push_str("manual_protect = true\n");
        }
        out.push_str("\n[writers]\nvcpu = { stores = 2 }\n\n[protocol]\nsteps = [\n  \"enable-logging\", \"copy-all\",\n");
        for (round, _) in self.rounds.iter().take(MOST_ROUNDS) {
            out.push_str(&format!("  {}, \"copy\",\n", words(round)));
        }
        out.push_str(&format!(
            "  \"pause-vcpus\", {}, \"copy\", \"finish\",\n]\n",
            words(&self.last)
        ));
        Ok(Distilled {
            toml: out,
            map,
            assumed,
        })
    }

    /// The small pages and what they stand for.
    fn map(&self, wanted: &[Named]) -> Vec<(String, String)> {
        let mut named: Vec<String> = wanted.iter().map(Named::to_string).collect();
        if named.is_empty() {
            let mut pushed: Vec<_> = self.pushes.iter().collect();
            pushed.sort_by_key(|(place, n)| (Reverse(**n), **place));
            let words = |((slot, offset), n): &(&(u32, u64), &u64)| {
                format!("{slot}:{offset:#x} (entries that name it: {n})")
            };
            named = pushed.iter().take(MOST_PAGES).map(words).collect();
        }
        named.truncate(MOST_PAGES);
        let small = (0..).map(|n| format!("ram:{n}"));
        small.zip(named).collect()
    }
}

fn words(round: &[Act]) -> String {
    let words: Vec<String> = round
        .iter()
        .map(|act| format!("\"{}\"", act.word()))
        .collect();
    words.join(", ")
}
