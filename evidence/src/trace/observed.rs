//! Traces of kind `observed`: what other tools saw, one event a line, in time order.
//!
//! A log of tracepoints is a set of partial observations. What it does not say is absent here, and absent means
//! unknown: nothing is filled in by guessing. QEMU's page event names no slot, no tracepoint names the bitmap, and a
//! log without time stamps has an order but no times.
//!
//! An event keeps the name that its tool gives it (`kvm_dirty_ring_push`), so that a line here can be found in the log
//! again; `line` (and `file`, when several logs were merged) say where.
//!
//! Not modelled: what happened between two events. A reader that needs a schedule has to search for one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Complaint, Problem};
use super::header::Kind;
pub use super::kvm_ioctl::KvmIoctl;
use super::lines::object_into;
use super::problems::{FieldProblem, RowProblem};
use super::row::TraceRow;

/// One observation of another tool, with everything that the tool said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedEvent {
    /// Line in the log that it came from, counted from 1.
    pub line: u64,
    /// Which log, as an index into the sources of the header; 0 is left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub file: u32,
    /// Time stamp in nanoseconds, on the clock of the tool; absent where the tool printed none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t_ns: Option<u64>,
    /// Time stamp of a clock that does not count nanoseconds (ftrace's `counter` or `x86-tsc`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick: Option<u64>,
    /// Process (thread group) that the event belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Thread that the event belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// Host processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// What was seen.
    #[serde(flatten)]
    pub what: Observed,
}

impl ObservedEvent {
    /// An event of which only its place in the log is known.
    #[must_use]
    pub fn at(line: u64, what: Observed) -> Self {
        Self {
            line,
            file: 0,
            t_ns: None,
            tick: None,
            pid: None,
            tid: None,
            cpu: None,
            what,
        }
    }

    /// Appends the row and its line feed: [`TraceRow::to_line`] without a string of its own.
    ///
    /// # Errors
    ///
    /// None in practice: memory takes what is written.
    pub fn write_line(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.push(b'\n');
        Ok(())
    }
}

impl TraceRow for ObservedEvent {
    const KIND: Kind = Kind::Observed;

    fn from_object(object: Map<String, Value>) -> Result<Self, Complaint> {
        let event: Self = object_into(object.clone())
            .map_err(|error| Complaint::from_serde(&error, Problem::row_field))?;
        // Fields of the event and fields of every event share one object, which serde cannot close by itself.
        let known = serde_json::to_value(&event).unwrap_or_default();
        if let Some(key) = object.keys().find(|key| known.get(key).is_none()) {
            let keys: Vec<&str> = known
                .as_object()
                .map(|known| known.keys().map(String::as_str).collect())
                .unwrap_or_default();
            return Err(Complaint::row(
                RowProblem::SaysNothing {
                    key: key.clone(),
                    event: event.what.name(),
                },
                format!(
                    "leave it out: a field that is not known is absent; the row has {}",
                    keys.join(", ")
                ),
            ));
        }
        event.check()?;
        Ok(event)
    }

    fn from_text(text: &str) -> Option<Self> {
        let event: Self = serde_json::from_str(text).ok()?;
        // What is written as this program writes it has every field once and no other.
        let mut written = Vec::with_capacity(text.len());
        serde_json::to_writer(&mut written, &event).ok()?;
        (written == text.as_bytes() && event.check().is_ok()).then_some(event)
    }

    fn check(&self) -> Result<(), Complaint> {
        if let Observed::UserspaceExit { reason, errno } = &self.what
            && reason.is_some() == errno.is_some()
        {
            return Err(Complaint::row(
                RowProblem::ReasonOrErrno,
                "write `reason` for an exit, `errno` for a KVM_RUN that failed",
            ));
        }
        Ok(())
    }

    fn to_line(&self) -> Result<String, Complaint> {
        serde_json::to_string(self).map_err(|error| {
            Complaint::row(
                RowProblem::Field(FieldProblem::Parser(error.to_string())),
                "this is a defect of the writer; report it",
            )
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Numbers that people read in hexadecimal (addresses, masks, table entries) are strings in a trace, `"0x1f000"`; a plain
/// number is read too.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:#x}"))
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(u64),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = match Written::deserialize(deserializer)? {
            Written::Number(value) => return Ok(value),
            Written::Text(text) => text,
        };
        text.strip_prefix("0x")
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or_else(|| {
                D::Error::custom(format!(
                    "{text:?} is not a hexadecimal number; write \"0x\" and up to 16 digits"
                ))
            })
    }
}

/// Whether a probe fired at the entry of an ioctl or at its return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// At entry: nothing has been done yet.
    Enter,
    /// At return: everything has been done.
    Return,
}

/// Why nothing is known about a stretch of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// The tracer says that it lost events: between the processor's last event and this place.
    Lost,
    /// The tracer says that it overwrote events: those before the first of each processor.
    Overwritten,
    /// A line that names an event of interest cannot be read: cut, or two lines written over one another.
    Damaged,
    /// A line longer than any of these tools writes.
    Overlong,
}

/// What was seen. The variants carry the tool's own names for events and fields.
///
/// `slot` is the 32-bit number of KVM's API, address space in the upper half: `as_id << 16 | id`. `offset` is in pages
/// from the slot's base. Ring indices are KVM's free-running 32-bit ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub enum Observed {
    /// A ring took an entry; indices after the push. Source: include/trace/events/kvm.h, Linux 7.2.
    #[serde(rename = "kvm_dirty_ring_push")]
    RingPush {
        /// The vCPU's id.
        ring: u32,
        /// Producer index after this push.
        dirty_index: u32,
        /// Reset index when the event was taken.
        reset_index: u32,
        /// Slot of the entry.
        slot: u32,
        /// Page within the slot.
        offset: u64,
        /// Entries in use, as the kernel printed it.
        used: u32,
    },
    /// One ring's part of `KVM_RESET_DIRTY_RINGS` is over; indices after it.
    #[serde(rename = "kvm_dirty_ring_reset")]
    RingReset {
        /// The vCPU's id.
        ring: u32,
        /// Producer index.
        dirty_index: u32,
        /// Reset index.
        reset_index: u32,
        /// Entries in use, as the kernel printed it.
        used: u32,
    },
    /// A vCPU leaves for userspace because its ring is soft-full.
    #[serde(rename = "kvm_dirty_ring_exit")]
    RingExit {
        /// The vCPU's id.
        vcpu: u32,
    },
    /// `KVM_RUN` returns to userspace. The event does not name the vCPU; its thread does.
    #[serde(rename = "kvm_userspace_exit")]
    UserspaceExit {
        /// Exit reason (31: dirty ring full); absent when `KVM_RUN` failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<u32>,
        /// Positive errno when `KVM_RUN` failed (4: interrupted by a signal).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errno: Option<u32>,
    },
    /// x86: the PML buffer was full.
    #[serde(rename = "kvm_pml_full")]
    PmlFull {
        /// The vCPU's id.
        vcpu: u32,
    },
    /// x86: a guest access faulted in the second-stage tables.
    #[serde(rename = "kvm_page_fault")]
    PageFault {
        /// The vCPU's id; older kernels do not print it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vcpu: Option<u32>,
        /// Guest physical address.
        #[serde(with = "hex")]
        address: u64,
        /// Error code of the fault; bit 1 is a write.
        #[serde(with = "hex")]
        error_code: u64,
    },
    /// x86: a write-protection fault repaired without a lock.
    #[serde(rename = "fast_page_fault")]
    FastPageFault {
        /// The vCPU's id.
        vcpu: u32,
        /// Guest physical (or, with shadow paging, virtual) address.
        #[serde(with = "hex")]
        address: u64,
        /// Table entry before.
        #[serde(with = "hex")]
        old_spte: u64,
        /// Table entry after.
        #[serde(with = "hex")]
        new_spte: u64,
        /// The fault was repaired here.
        fixed: bool,
    },
    /// x86: a second-stage entry was set.
    #[serde(rename = "kvm_mmu_set_spte")]
    SetSpte {
        /// Guest frame.
        gfn: u64,
        /// The entry.
        #[serde(with = "hex")]
        spte: u64,
        /// 1 for a 4 KiB page.
        level: u32,
    },
    /// x86, TDP MMU: a second-stage entry changed.
    #[serde(rename = "kvm_tdp_mmu_spte_changed")]
    TdpSpteChanged {
        /// Address space.
        as_id: u32,
        /// Guest frame.
        gfn: u64,
        /// 1 for a 4 KiB page.
        level: u32,
        /// Table entry before.
        #[serde(with = "hex")]
        old_spte: u64,
        /// Table entry after.
        #[serde(with = "hex")]
        new_spte: u64,
    },
    /// arm64: a guest access faulted at stage 2.
    #[serde(rename = "kvm_guest_fault")]
    GuestFault {
        /// Intermediate physical address.
        #[serde(with = "hex")]
        ipa: u64,
        /// Syndrome.
        #[serde(with = "hex")]
        hsr: u64,
    },
    /// arm64: an access-flag fault.
    #[serde(rename = "kvm_access_fault")]
    AccessFault {
        /// Intermediate physical address.
        #[serde(with = "hex")]
        ipa: u64,
    },
    /// A probe of docs/bug-reports.md: an ioctl that has no tracepoint.
    #[serde(rename = "dirtysim_ioctl")]
    ProbeIoctl {
        /// Entry or return.
        phase: Phase,
        /// Which ioctl.
        ioctl: KvmIoctl,
        /// Slot argument.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<u32>,
        /// First page of a CLEAR.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first_page: Option<u64>,
        /// Pages of a CLEAR.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        num_pages: Option<u32>,
        /// What the ioctl returned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ret: Option<i64>,
    },
    /// A probe of docs/bug-reports.md: a page is being marked, in a ring or in the bitmap.
    #[serde(rename = "dirtysim_mark")]
    ProbeMark {
        /// Slot.
        slot: u32,
        /// Page within the slot.
        offset: u64,
    },
    /// A probe of docs/bug-reports.md: pages are being write-protected again.
    #[serde(rename = "dirtysim_rearm")]
    ProbeRearm {
        /// Slot.
        slot: u32,
        /// Page of the mask's lowest bit, within the slot.
        offset: u64,
        /// Pages to re-arm, bit by bit from `offset`.
        #[serde(with = "hex")]
        mask: u64,
    },
    /// QEMU harvested one ring entry. The event has no slot.
    #[serde(rename = "kvm_dirty_ring_page")]
    QemuPage {
        /// QEMU's index of the CPU, which need not be KVM's vCPU id.
        cpu_index: u32,
        /// Userspace's fetch index before this entry.
        fetch: u32,
        /// Page within the slot that is not named.
        offset: u64,
    },
    /// QEMU harvested and reset; `count` is the sum over all vCPUs.
    #[serde(rename = "kvm_dirty_ring_reap")]
    QemuReap {
        /// Pages harvested.
        count: u64,
    },
    /// QEMU starts harvesting one vCPU's ring.
    #[serde(rename = "kvm_dirty_ring_reap_vcpu")]
    QemuReapVcpu {
        /// QEMU's index of the CPU.
        cpu_index: u32,
    },
    /// QEMU handles exit 31 of a vCPU.
    #[serde(rename = "kvm_dirty_ring_full")]
    QemuRingFull {
        /// QEMU's index of the CPU.
        cpu_index: u32,
    },
    /// QEMU makes every vCPU leave KVM, to flush what hardware buffers.
    #[serde(rename = "kvm_dirty_ring_flush")]
    QemuFlush {
        /// False at its start, true at its end.
        finished: bool,
    },
    /// QEMU's `KVM_CLEAR_DIRTY_LOG`.
    #[serde(rename = "kvm_clear_dirty_log")]
    QemuClear {
        /// Slot.
        slot: u32,
        /// First page.
        start: u64,
        /// Pages.
        size: u32,
    },
    /// QEMU's `KVM_SET_USER_MEMORY_REGION`, after the call.
    #[serde(rename = "kvm_set_user_memory")]
    QemuSetMemory {
        /// Slot.
        slot: u32,
        /// Flags; bit 0 logs dirty pages.
        #[serde(with = "hex")]
        flags: u64,
        /// Guest physical address.
        #[serde(with = "hex")]
        gpa: u64,
        /// Bytes; 0 deletes the slot.
        #[serde(with = "hex")]
        size: u64,
        /// Result of the ioctl.
        ret: i64,
    },
    /// QEMU is about to make a VM ioctl that matters to dirty logging.
    #[serde(rename = "kvm_vm_ioctl")]
    QemuVmIoctl {
        /// Which.
        ioctl: KvmIoctl,
    },
    /// QEMU is about to make a device ioctl that can matter to dirty logging.
    #[serde(rename = "kvm_device_ioctl")]
    QemuDeviceIoctl {
        /// Which.
        ioctl: KvmIoctl,
    },
    /// QEMU saw `KVM_RUN` return.
    #[serde(rename = "kvm_run_exit")]
    QemuRunExit {
        /// QEMU's index of the CPU.
        cpu_index: u32,
        /// Exit reason.
        reason: u32,
    },
    /// QEMU made a vCPU: which KVM id its index stands for.
    #[serde(rename = "kvm_create_vcpu")]
    QemuCreateVcpu {
        /// QEMU's index of the CPU.
        cpu_index: u32,
        /// KVM's vCPU id.
        vcpu: u32,
    },
    /// QEMU's migration starts to collect dirty pages.
    #[serde(rename = "migration_bitmap_sync_start")]
    QemuSyncStart,
    /// QEMU's migration has collected dirty pages.
    #[serde(rename = "migration_bitmap_sync_end")]
    QemuSyncEnd {
        /// Pages that became dirty.
        dirty_pages: u64,
    },
    /// The first event of a thread, or its first under a new name.
    #[serde(rename = "thread")]
    Thread {
        /// The thread's name, as text.
        comm: String,
    },
    /// Nothing is known from here to the next event: events are missing.
    #[serde(rename = "gap")]
    Gap {
        /// Why.
        reason: GapReason,
        /// How many events are missing, where the tracer counted them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost: Option<u64>,
    },
}

impl Observed {
    /// Names of all events, in the order of [`Observed::index`].
    pub const NAMES: [&'static str; 28] = [
        "kvm_dirty_ring_push",
        "kvm_dirty_ring_reset",
        "kvm_dirty_ring_exit",
        "kvm_userspace_exit",
        "kvm_pml_full",
        "kvm_page_fault",
        "fast_page_fault",
        "kvm_mmu_set_spte",
        "kvm_tdp_mmu_spte_changed",
        "kvm_guest_fault",
        "kvm_access_fault",
        "dirtysim_ioctl",
        "dirtysim_mark",
        "dirtysim_rearm",
        "kvm_dirty_ring_page",
        "kvm_dirty_ring_reap",
        "kvm_dirty_ring_reap_vcpu",
        "kvm_dirty_ring_full",
        "kvm_dirty_ring_flush",
        "kvm_clear_dirty_log",
        "kvm_set_user_memory",
        "kvm_vm_ioctl",
        "kvm_device_ioctl",
        "kvm_run_exit",
        "kvm_create_vcpu",
        "migration_bitmap_sync_start",
        "migration_bitmap_sync_end",
        "thread",
    ];

    /// Number of this event's kind, an index into [`Observed::NAMES`]; a gap has none.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        Some(match self {
            Self::RingPush { .. } => 0,
            Self::RingReset { .. } => 1,
            Self::RingExit { .. } => 2,
            Self::UserspaceExit { .. } => 3,
            Self::PmlFull { .. } => 4,
            Self::PageFault { .. } => 5,
            Self::FastPageFault { .. } => 6,
            Self::SetSpte { .. } => 7,
            Self::TdpSpteChanged { .. } => 8,
            Self::GuestFault { .. } => 9,
            Self::AccessFault { .. } => 10,
            Self::ProbeIoctl { .. } => 11,
            Self::ProbeMark { .. } => 12,
            Self::ProbeRearm { .. } => 13,
            Self::QemuPage { .. } => 14,
            Self::QemuReap { .. } => 15,
            Self::QemuReapVcpu { .. } => 16,
            Self::QemuRingFull { .. } => 17,
            Self::QemuFlush { .. } => 18,
            Self::QemuClear { .. } => 19,
            Self::QemuSetMemory { .. } => 20,
            Self::QemuVmIoctl { .. } => 21,
            Self::QemuDeviceIoctl { .. } => 22,
            Self::QemuRunExit { .. } => 23,
            Self::QemuCreateVcpu { .. } => 24,
            Self::QemuSyncStart => 25,
            Self::QemuSyncEnd { .. } => 26,
            Self::Thread { .. } => 27,
            Self::Gap { .. } => return None,
        })
    }

    /// The event's name, as its tool writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.index().map_or("gap", |index| Self::NAMES[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_only_what_is_known() {
        let event = ObservedEvent {
            t_ns: Some(101_000_001_000),
            tid: Some(4242),
            cpu: Some(3),
            ..ObservedEvent::at(
                7,
                Observed::RingPush {
                    ring: 0,
                    dirty_index: 449,
                    reset_index: 1,
                    slot: 65_539,
                    offset: 42,
                    used: 448,
                },
            )
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"line":7,"t_ns":101000001000,"tid":4242,"cpu":3,"event":"kvm_dirty_ring_push","ring":0,"dirty_index":449,"reset_index":1,"slot":65539,"offset":42,"used":448}"#
        );
        assert_eq!(serde_json::from_str::<ObservedEvent>(&text).unwrap(), event);
    }

    #[test]
    fn every_event_is_written_under_its_own_name() {
        for (event, name) in [
            (Observed::QemuSyncStart, "migration_bitmap_sync_start"),
            (Observed::RingExit { vcpu: 1 }, "kvm_dirty_ring_exit"),
            (
                Observed::QemuFlush { finished: true },
                "kvm_dirty_ring_flush",
            ),
        ] {
            let value = serde_json::to_value(ObservedEvent::at(1, event.clone())).unwrap();
            assert_eq!(value["event"], name);
            assert_eq!(event.name(), name);
        }
    }
}
