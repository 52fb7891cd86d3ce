//! Which operations are argued for any number of pages: a row for each. What a step looks at of pages that are not tracked, its
//! operation's own row says ([`Row::reads`](dirtysim_model::words::Row)), which holds for every search. `docs/proofs.md` has the argument.

use dirtysim_model::machine::{Arch, Machine, SlotTemplate, WriterLog};
use dirtysim_model::op::{ClearMask, HarvestWay, Op};
use dirtysim_model::reduce::harvests_exclude_each_other;
use dirtysim_model::words::Frame;

use super::{ANY_PART, OTHER_PART, OWN_PART, Part, choices_of};
use crate::scenario::meant::{MOST_CHOICES, Meant};

/// What the steps of an operation look at of pages that are not tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// At the sets that the row of each step says, and at nothing else that names a page but to take it along.
    ByRow,
    /// At the entry in work and at RESET's batch besides.
    Batch,
}

/// What an operation looks at, or why it is not argued.
pub(super) fn looks(machine: &Machine, op: &Op) -> Result<Looks, &'static str> {
    Ok(match op {
        // Ranges of all pages are changed, each alike.
        Op::SetMemoryRegion(op) => {
            let page = machine.constants.page_bytes;
            let as_it_is = |slot: &SlotTemplate| {
                let bytes = u64::from(slot.npages) * page;
                let stands = slot.places.iter().any(|place| place * page == op.gpa);
                op.slot == slot.number()
                    && (op.bytes == 0 || op.bytes == bytes && stands && op.hva == slot.hva)
            };
            if !machine.slots.iter().any(as_it_is) {
                return Err("a memslot's size and address are numbers here");
            }
            Looks::ByRow
        }
        // Sets are joined, emptied or filled page by page; or no page is looked at at all.
        Op::Publish
        | Op::PublishSlot(_)
        | Op::TakeAll
        | Op::Forget
        | Op::CollectOwnLog
        | Op::ResetOwnLog
        | Op::Cancel
        | Op::PutBack
        | Op::Discard
        | Op::NewDestination
        | Op::WaitStopped
        | Op::Checkpoint
        | Op::Finish(_)
        | Op::Kick(_)
        | Op::WaitKicked
        | Op::WaitRunning
        | Op::Resume
        | Op::WaitRingFull
        | Op::AckRingFull
        | Op::JoinThread(_)
        | Op::Lock(_)
        | Op::Unlock(_)
        | Op::Signal(_)
        | Op::WaitSignal(_)
        | Op::MayFail
        | Op::OnError(_)
        | Op::PassUnless(_) => Looks::ByRow,
        // Its entries are taken one by one, and only flags decide.
        Op::Harvest(op) => match op.way {
            HarvestWay::Right => Looks::ByRow,
            HarvestWay::SkipFirst
            | HarvestWay::WriteZero
            | HarvestWay::Unread
            | HarvestWay::OneTooMany => {
                return Err("a harvest against the ring's contract is not argued");
            }
        },
        // Whether some page is pending; a word of the bitmap at a time.
        Op::Copy | Op::CopyAll | Op::Again(_) | Op::GetDirtyLog(_) => Looks::ByRow,
        Op::ClearDirtyLog(op) => {
            let part = Part {
                first: op.first_page as u32,
                pages: op.num_pages,
            };
            if ![OWN_PART, OTHER_PART, ANY_PART].contains(&part) {
                return Err("a CLEAR of a part of a memslot says which pages it means");
            }
            match op.mask {
                ClearMask::Seen | ClearMask::All => Looks::ByRow,
                ClearMask::List(_) => {
                    return Err("it names pages, and a page that is named is like no other");
                }
            }
        }
        Op::ResetRings(_) => Looks::Batch,
        // Its tables: the tracked page, or another.
        Op::KernelWrite(op) => {
            if op.fails_after != u8::MAX {
                return Err("`fails_after` counts pages, of which there may be any number");
            }
            Looks::ByRow
        }
        // Its list is a part: the reader takes no other.
        Op::CopyList(_) => Looks::ByRow,
        // Its list: the tracked page, or others, which join a set or leave one.
        Op::MarkOwn(_) | Op::DropFree(_) | Op::EndFree(_) | Op::TakeAlways => Looks::ByRow,
        // Its page is the tracked one, or another: then it changes what is said of that alone.
        Op::UserWrite(_) | Op::HostAge(_) => Looks::ByRow,
        // What a device has in flight or in its log of others: sets are emptied or joined page by page. Others in flight keep a drain
        // waiting, and land whatever the tracked page is: that they have landed is among what is tried, and the device can always go on.
        Op::DeviceStart(_) | Op::DeviceStop(_) | Op::DeviceDrain(_) | Op::DeviceSync(_) => {
            Looks::ByRow
        }
        Op::PreFault(_) => {
            return Err(
                "how many pages it faults in, with no look at the ring between them, is a number",
            );
        }
        Op::SendPage(_) | Op::Proceed(_) | Op::Yield | Op::Panic | Op::Leave => {
            return Err("a VMM's own code is not argued yet");
        }
        Op::EnableCap(_) | Op::CreateVcpu => return Err("it belongs to the set-up"),
    })
}

/// Why a machine with any number of pages is not argued, whatever its programs are.
pub(crate) fn stands_in_the_way(machine: &Machine, meant: &Meant) -> Option<&'static str> {
    if machine.arch == Arch::S390 {
        return Some("s390, whose leaves are its log, is not argued yet");
    }
    let mut slots = machine.slots.iter();
    if slots.clone().any(|slot| slot.huge) {
        return Some("huge mappings are not argued yet");
    }
    if slots.clone().any(|slot| slot.host.0 != slot.frame.0) {
        // A set of host pages would have the tracked page at another place than a set of frames, or two of its frames at one.
        return Some(
            "a memslot with a `block` of its own, or whose memory another shares, is not argued",
        );
    }
    if machine.slots.len() > 1 {
        if slots.any(|slot| slot.as_id != 0 || slot.places.len() > 1) {
            return Some(
                "memslots of several address spaces, or that move beside others, are not argued",
            );
        }
        let number = |slot: usize| machine.slots[slot].number();
        let mut later = 1..machine.slots.len();
        if later.any(|slot| (0..slot).any(|before| number(before) == number(slot))) {
            // What a ring entry names is one of whichever is there.
            return Some("memslots of one number, one after the other, are not argued");
        }
        if machine.kernel.ring_wants_vcpu() {
            // A write to a memslot that logs brings this host down, a write to one that does not log leaves it be.
            return Some(
                "several memslots are not argued on this kernel, where a mark without a vCPU looks for one",
            );
        }
    }
    for device in &machine.devices {
        if device.log == WriterLog::WrongSpace || device.used_ring.is_some() || device.granule > 1 {
            return Some(
                "a device that writes or logs other pages than those of its transfers is not argued",
            );
        }
    }
    if machine.track_spurious {
        return Some("`check_spurious` is not argued yet");
    }
    let several = machine.slots.len() > 1;
    if several && machine.vcpus.iter().any(|vcpu| vcpu.preempted) {
        // The entry that both fill may name the memslot of one page and the offset of the other.
        return Some("a push that is preempted, beside several memslots, is not argued");
    }
    if !harvests_exclude_each_other(machine) {
        // One may give back what the other has passed: an entry that nobody filled names a memslot's first page.
        return Some("two threads that harvest at once are not argued");
    }
    if choices_of(machine, meant) > MOST_CHOICES {
        return Some(
            "more than 5 kinds of pages, calls of kernel writers and the like are too many to try each with the tracked page and without",
        );
    }
    if !machine.always_dirty.is_empty() && machine.kernel.ring_wants_vcpu() {
        // Whether another page that is written without a vCPU is always dirty decides whether this host comes down.
        return Some(
            "pages that are always dirty are not argued on this kernel, where a mark without a vCPU looks for one",
        );
    }
    None
}

/// Why an operation is not argued.
pub(crate) fn not_argued(machine: &Machine, op: &Op) -> Option<&'static str> {
    looks(machine, op).err()
}

/// The one page that an operation is about.
pub(crate) fn page_of(op: &mut Op) -> Option<&mut Frame> {
    match op {
        Op::UserWrite(op) => Some(&mut op.frame),
        Op::HostAge(op) => Some(&mut op.frame),
        // What names a page otherwise is not argued.
        _ => None,
    }
}
