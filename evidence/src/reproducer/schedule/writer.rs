//! What happens whole, as C.

use dirtysim_model::op::{ClearMask, HarvestWay, Into, Op, SetMemoryRegion};
use dirtysim_model::transition::Actor;
use dirtysim_model::words::Frame;
use dirtysim_model::words::constants::{CAP_DIRTY_LOG_RING, CAP_DIRTY_LOG_RING_ACQ_REL};

use super::super::in_comment;
use super::item::{Item, What, words};
use super::{OWN_BYTES, Unforced};
use crate::explain::op_words;
use crate::scenario::Scenario;

const DATA_GPA: u64 = 0x1000_0000;
const PAGE_BYTES: u64 = 4096;

/// Items as C.
pub(super) struct Writer<'a> {
    pub(super) scenario: &'a Scenario,
    /// Pages that one of the schedule's stands for.
    pub(super) scale: u64,
    pub(super) ring_bytes: u64,
    pub(super) overflows: bool,
}

impl Writer<'_> {
    fn line(text: &str) -> String {
        format!("\t{text};\n")
    }

    /// A VM, the guest's own memory, and what the scenario has before its schedules begin.
    pub(super) fn set_up(&self) -> Result<String, Unforced> {
        let mut out = Self::line("create_vm(0)");
        let mut vcpu = 0;
        for op in &self.scenario.setup {
            match op {
                Op::CreateVcpu => {
                    out.push_str(&Self::line(&format!("create_vcpu(0, 0, {vcpu}, 0)")));
                    out.push_str(&Self::line(&format!("vcpu_init(0, {vcpu})")));
                    if self.scenario.ring_entries() > 0 {
                        out.push_str(&Self::line(&format!("map_ring(0, 0, {vcpu}, 0)")));
                    }
                    vcpu += 1;
                }
                op => out.push_str(&self.op(0, op, 0)?),
            }
        }
        // Capabilities are enabled before there is a memslot.
        out.push_str(&Self::line(&format!(
            "set_memory(0, 0, (struct region){{ .slot = OWN_SLOT, .bytes = {OWN_BYTES:#x}ull, .own = 1 }}, 0)"
        )));
        Ok(out)
    }

    pub(super) fn item(&self, item: &Item) -> Result<String, Unforced> {
        let said = in_comment(&words(self.scenario, item));
        let mut out = match item.actor() {
            Actor::Thread(thread) if self.scenario.machine.programs.len() > 1 => {
                format!("\t/* VMM{thread}: {said} */\n")
            }
            Actor::Thread(_) => format!("\t/* VMM: {said} */\n"),
            _ => format!("\t/* {said} */\n"),
        };
        let page = |frame: Frame| {
            let machine = &self.scenario.machine;
            let slot = machine
                .slot_of_frame(frame)
                .map(|slot| &machine.slots[slot]);
            slot.map(|slot| (slot.number(), u64::from(frame - slot.frame) * self.scale))
                .ok_or_else(|| Unforced::new("an access outside every memslot", "it has no C"))
        };
        out.push_str(&match item.what {
            What::Op(thread, op) => {
                let op = &self.scenario.machine.programs[thread][usize::from(op)];
                match op {
                    Op::ResetRings(_) if item.is_cut() => Self::line("reset_with_signal(0)"),
                    op => self.op(thread, op, item.first + 1)?,
                }
            }
            What::Access(vcpu, frame, store) => {
                let (slot, first) = page(frame)?;
                if self.overflows && store {
                    Self::line(&format!("fill_ring(0, {vcpu}, {slot}, {first})"))
                } else {
                    let bytes = if store { 8 } else { 0 };
                    Self::line(&format!(
                        "access_pages(0, {vcpu}, {slot}, {first}, {}, {bytes})",
                        self.scale
                    ))
                }
            }
            What::String(vcpu, frame) => {
                let (slot, first) = page(frame)?;
                Self::line(&format!("copy_string(0, {vcpu}, {slot}, {first})"))
            }
        });
        Ok(out)
    }

    fn into(into: Into, thread: usize) -> Result<String, Unforced> {
        match into {
            Into::Pending => Ok("PENDING".to_owned()),
            Into::Hand => Ok(format!("HANDS + {thread}")),
            Into::Nowhere => Ok("NOWHERE_SET".to_owned()),
            Into::OwnLog => Err(Unforced::new(
                "the VMM's own log has no C",
                "take a schedule without one",
            )),
        }
    }

    /// An operation; where the guest is not running, nothing has to be waited for.
    fn op(&self, thread: usize, op: &Op, line: usize) -> Result<String, Unforced> {
        Ok(Self::line(&match op {
            Op::EnableCap(cap) => {
                let args0 = match self.scenario.ring_entries() {
                    entries
                        if entries > 0
                            && matches!(
                                cap.cap,
                                CAP_DIRTY_LOG_RING | CAP_DIRTY_LOG_RING_ACQ_REL
                            ) =>
                    {
                        self.ring_bytes
                    }
                    _ => cap.args0,
                };
                format!("enable(0, {}, {}u, {args0:#x}ull)", cap.cap, cap.flags)
            }
            Op::SetMemoryRegion(SetMemoryRegion {
                slot,
                flags,
                gpa,
                bytes,
                hva,
                template,
            }) => {
                let slots = &self.scenario.machine.slots;
                let known = slots.get(usize::from(*template));
                let host = known.map_or(0, |slot| {
                    u64::from(slot.host.0) * PAGE_BYTES + hva.saturating_sub(slot.hva)
                });
                format!(
                    "set_memory({line}, 0, (struct region){{ .slot = {slot}, .flags = {flags}u, .gpa = {:#x}ull, .bytes = {:#x}ull, .name = 1, .offset = {:#x}ull }}, 0)",
                    DATA_GPA + gpa * self.scale,
                    bytes * self.scale,
                    host * self.scale
                )
            }
            Op::GetDirtyLog(get) if !get.bad_pointer => {
                format!("get(0, {}, {})", get.slot, Self::into(get.into, thread)?)
            }
            Op::ClearDirtyLog(clear) if !clear.bad_pointer => {
                let (first, count) = (
                    clear.first_page * self.scale,
                    u64::from(clear.num_pages) * self.scale,
                );
                let slots = &self.scenario.machine.slots;
                let slot = slots.iter().find(|slot| slot.number() == clear.slot);
                let all = slot.map_or(0, |slot| u64::from(slot.npages) * self.scale);
                if first % 64 != 0 || (count % 64 != 0 && first + count != all) {
                    return Err(Unforced::new(
                        format!(
                            "KVM_CLEAR_DIRTY_LOG of {count} pages from {first} on: its words are scaled down"
                        ),
                        "KVM takes whole words of 64 pages; clear whole memslots",
                    ));
                }
                let which = match clear.mask {
                    ClearMask::Seen => 0,
                    ClearMask::All => 1,
                    ClearMask::List(_) => {
                        return Err(Unforced::new(
                            "KVM_CLEAR_DIRTY_LOG of a list of pages",
                            "it has no C",
                        ));
                    }
                };
                format!("clear(0, {}, {first}, {count}, {which})", clear.slot)
            }
            Op::ResetRings(_) => "reset(0)".to_owned(),
            Op::Harvest(harvest) if harvest.way == HarvestWay::Right => {
                let only = harvest
                    .vcpu
                    .map_or("-1".to_owned(), |vcpu| vcpu.to_string());
                let max = match u64::from(harvest.max) {
                    max if max >= u64::from(self.scenario.ring_entries()) => "~0ull".to_owned(),
                    max => format!("{}ull", max * self.scale),
                };
                format!(
                    "collect(0, {only}, {max}, {})",
                    Self::into(harvest.into, thread)?
                )
            }
            Op::CopyAll => "take_all(0);\n\tcopy_pending(0)".to_owned(),
            Op::TakeAll => "take_all(0)".to_owned(),
            Op::Copy => "copy_pending(0)".to_owned(),
            Op::Publish => format!("publish(0, {thread})"),
            Op::Forget => "forget_pending(0)".to_owned(),
            Op::Kick(_)
            | Op::WaitKicked
            | Op::WaitStopped
            | Op::Resume
            | Op::WaitRingFull
            | Op::AckRingFull
            | Op::JoinThread(_)
            | Op::Lock(_)
            | Op::Unlock(_)
            | Op::Signal(_)
            | Op::WaitSignal(_)
            | Op::WaitRunning
            | Op::Again(_)
            | Op::PassUnless(_)
            | Op::OnError(_)
            | Op::Finish(_) => return Ok(String::new()),
            other => {
                return Err(Unforced::new(
                    format!(
                        "`{}` as it stands here has no C",
                        op_words(self.scenario, other)
                    ),
                    "enabling, memslots, GET, CLEAR, RESET, harvests, copies and stops have",
                ));
            }
        }))
    }
}
