//! What is known of one page at one moment, and what a step changed of it.

use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Account, Accounts};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Layout;
use dirtysim_model::state::ring::{F_DIRTY, RingEntry};
use dirtysim_model::words::{Frame, HostPage};

/// A page at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Its bytes differ from what the destination holds.
    pub stale: bool,
    /// Who accounts for it.
    pub accounts: Accounts,
    /// The rings that have an unread entry for it: vCPU and position.
    pub rings: Vec<(usize, usize)>,
    /// Its leaf lets a store through with no fault and no log.
    pub leaf_open: bool,
    /// vCPUs whose TLBs do.
    pub tlbs: Vec<usize>,
}

impl Facts {
    /// The facts of a host page.
    pub(super) fn of<L: Layout>(machine: &Machine, state: &State<L>, host: HostPage) -> Self {
        let frames: Vec<Frame> = machine
            .slots
            .iter()
            .filter(|slot| slot.has_host(host))
            .map(|slot| slot.frame + (host - slot.host))
            .collect();
        let mut facts = Self {
            stale: state.stale.contains(host),
            accounts: oracle::accounts(machine, state, host),
            ..Self::default()
        };
        for (index, vcpu) in state.vcpus.iter().enumerate() {
            if frames.iter().any(|&frame| vcpu.tlb.contains(frame)) {
                facts.tlbs.push(index);
            }
            for (position, entry) in vcpu.ring.entries.iter().enumerate() {
                let named = entry.flags() == F_DIRTY
                    && machine.slots.iter().any(|slot| {
                        slot.number() == entry.slot() && slot.host_at(entry.offset()) == Some(host)
                    });
                if named {
                    facts.rings.push((index, position));
                }
            }
        }
        facts.leaf_open = frames.iter().any(|&frame| {
            state.writable.contains(frame)
                && (!machine.has_dirty_bits() || state.dirty_bit.contains(frame))
        });
        facts
    }

    /// Whether a store to it now would be seen by nobody.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.leaf_open || !self.tlbs.is_empty()
    }

    /// Whether nobody accounts for it although its bytes differ or could come to differ unseen.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.accounts.is_empty() && (self.stale || self.is_open())
    }

    /// Whether there is nothing to say about it: equal to the destination's, recorded nowhere, armed.
    pub(super) fn is_quiet(&self) -> bool {
        let recorded = self
            .accounts
            .iter()
            .any(|account| !matches!(account, Account::FullCopy | Account::Declared));
        !self.stale && !recorded && !self.is_open()
    }

    /// Who accounts for it, in words.
    #[must_use]
    pub fn records(&self) -> String {
        let words: Vec<String> = self
            .accounts
            .iter()
            .map(|account| self.account_words(account))
            .collect();
        if words.is_empty() {
            "nobody".to_owned()
        } else {
            words.join(", ")
        }
    }

    fn account_words(&self, account: Account) -> String {
        if account == Account::Ring && !self.rings.is_empty() {
            let rings: Vec<String> = self
                .rings
                .iter()
                .map(|(vcpu, position)| format!("vcpu{vcpu}'s ring (entry {position})"))
                .collect();
            return rings.join(" and ");
        }
        account.words().to_owned()
    }

    /// That `account` has the page now.
    fn gained(&self, account: Account) -> String {
        match account {
            Account::Owed => "its mark is owed".to_owned(),
            Account::FullCopy => "a full copy is to come".to_owned(),
            Account::Declared => "the program is still to declare it dirty".to_owned(),
            Account::Pending => "it is among the pages to copy".to_owned(),
            other => format!("recorded in {}", self.account_words(other)),
        }
    }

    /// That `account` no longer has the page.
    fn lost(&self, account: Account) -> String {
        match account {
            Account::Owed => "its mark is no longer owed".to_owned(),
            Account::FullCopy => "the full copy has begun".to_owned(),
            Account::Declared => "the program declares it dirty no more".to_owned(),
            Account::Pending => "it is no longer among the pages to copy".to_owned(),
            other => format!("no longer in {}", self.account_words(other)),
        }
    }

    /// What changed from `before` to `self`, a sentence each.
    pub(super) fn changes(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        match (before.stale, self.stale) {
            (false, true) => changes.push("its bytes now differ from the copy".to_owned()),
            (true, false) => changes.push("the copy has its bytes".to_owned()),
            _ => {}
        }
        for account in self.accounts.iter() {
            let other_ring = account == Account::Ring && self.rings != before.rings;
            if !before.accounts.has(account) || other_ring {
                changes.push(self.gained(account));
            }
        }
        for account in before.accounts.iter() {
            if !self.accounts.has(account) {
                changes.push(before.lost(account));
            }
        }
        match (before.leaf_open, self.leaf_open) {
            (false, true) => changes.push("stores to it no longer fault".to_owned()),
            (true, false) => changes.push("its leaf is armed".to_owned()),
            _ => {}
        }
        for vcpu in &self.tlbs {
            if !before.tlbs.contains(vcpu) {
                changes.push(format!("vcpu{vcpu}'s TLB lets stores through"));
            }
        }
        let flushed: Vec<String> = before
            .tlbs
            .iter()
            .filter(|vcpu| !self.tlbs.contains(vcpu))
            .map(|vcpu| format!("vcpu{vcpu}'s"))
            .collect();
        if !flushed.is_empty() {
            changes.push(format!("no longer in {} TLB", flushed.join(", ")));
        }
        if self.is_forgotten() && !before.is_forgotten() {
            changes.push(
                if self.stale {
                    "NOBODY knows that it must be copied"
                } else {
                    "NOBODY would notice a store to it"
                }
                .to_owned(),
            );
        }
        changes
    }
}
