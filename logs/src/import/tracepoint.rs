//! The text that KVM's tracepoints print after the event's name.
//!
//! ftrace, `trace-cmd report` and `perf script` write different things in front of an event and the same text behind
//! its name, because all three use the event's own format. Source: include/trace/events/kvm.h, arch/x86/kvm/trace.h,
//! arch/x86/kvm/mmu/mmutrace.h and arch/arm64/kvm/trace_arm.h, Linux 6.1, 6.12 and 7.2; the ring's events are the same
//! in all three.

use std::fmt::Write as _;

use super::body::Body;
use super::cursor::Cursor;
use crate::trace::observed::{KvmIoctl, Observed, Phase};

/// Reads the text behind the name of an event.
#[must_use]
pub fn parse(name: &[u8], body: &[u8]) -> Body {
    let parser: fn(&mut Cursor<'_>) -> Option<Observed> = match name {
        b"kvm_dirty_ring_push" => ring_push,
        b"kvm_dirty_ring_reset" => ring_reset,
        b"kvm_dirty_ring_exit" => ring_exit,
        b"kvm_userspace_exit" => userspace_exit,
        b"kvm_pml_full" => pml_full,
        b"kvm_page_fault" => page_fault,
        b"fast_page_fault" => fast_page_fault,
        b"kvm_mmu_set_spte" => set_spte,
        b"kvm_tdp_mmu_spte_changed" => tdp_spte_changed,
        b"kvm_guest_fault" => guest_fault,
        b"kvm_access_fault" => access_fault,
        b"dirtysim_ioctl" => probe_ioctl,
        b"dirtysim_mark" => probe_mark,
        b"dirtysim_rearm" => probe_rearm,
        name if is_marker(name) => return marker(body),
        _ => return Body::Other,
    };
    let mut cursor = Cursor::new(body);
    cursor.spaces();
    match parser(&mut cursor) {
        Some(event) if cursor.end().is_some() => Body::Event(event),
        _ => Body::Damaged,
    }
}

/// Whether an event is a text that user space wrote into the kernel's buffer, as QEMU's `ftrace` trace backend does.
pub(super) fn is_marker(name: &[u8]) -> bool {
    matches!(name, b"tracing_mark_write" | b"print")
}

fn marker(body: &[u8]) -> Body {
    const MARK: &[u8] = b"tracing_mark_write: ";
    let text = super::cursor::find(body, MARK).map_or(body, |at| &body[at + MARK.len()..]);
    super::qemu::parse_event(text.trim_ascii_start())
}

fn ring_push(c: &mut Cursor<'_>) -> Option<Observed> {
    let (ring, dirty_index, reset_index) = ring_indices(c)?;
    c.word(b" slot ")?;
    let slot = c.dec32()?;
    c.word(b" offset 0x")?;
    let offset = c.hex()?;
    let used = used(c)?;
    Some(Observed::RingPush {
        ring,
        dirty_index,
        reset_index,
        slot,
        offset,
        used,
    })
}

fn ring_reset(c: &mut Cursor<'_>) -> Option<Observed> {
    let (ring, dirty_index, reset_index) = ring_indices(c)?;
    let used = used(c)?;
    Some(Observed::RingReset {
        ring,
        dirty_index,
        reset_index,
        used,
    })
}

fn ring_indices(c: &mut Cursor<'_>) -> Option<(u32, u32, u32)> {
    c.word(b"ring ")?;
    let ring = c.dec32()?;
    c.word(b": dirty 0x")?;
    let dirty_index = c.hex32()?;
    c.word(b" reset 0x")?;
    let reset_index = c.hex32()?;
    Some((ring, dirty_index, reset_index))
}

fn used(c: &mut Cursor<'_>) -> Option<u32> {
    c.word(b" (used ")?;
    let used = c.dec32()?;
    c.word(b")")?;
    Some(used)
}

fn ring_exit(c: &mut Cursor<'_>) -> Option<Observed> {
    c.word(b"vcpu ")?;
    Some(Observed::RingExit { vcpu: c.dec32()? })
}

fn userspace_exit(c: &mut Cursor<'_>) -> Option<Observed> {
    c.word(b"reason ")?;
    let word = c.token()?;
    c.word(b" (")?;
    let number = c.dec32()?;
    c.word(b")")?;
    let failed = matches!(word, b"restart" | b"error");
    Some(Observed::UserspaceExit {
        reason: (!failed).then_some(number),
        errno: failed.then_some(number),
    })
}

fn pml_full(c: &mut Cursor<'_>) -> Option<Observed> {
    c.word(b"vcpu ")?;
    let vcpu = c.dec32()?;
    c.word(b": PML full")?;
    Some(Observed::PmlFull { vcpu })
}

fn page_fault(c: &mut Cursor<'_>) -> Option<Observed> {
    let mut vcpu = None;
    if c.word(b"vcpu ").is_some() {
        vcpu = Some(c.dec32()?);
        c.word(b" rip 0x")?;
        c.hex()?;
        c.word(b" ")?;
    }
    c.word(b"address ")?;
    let address = c.hex()?;
    c.word(b" error_code ")?;
    Some(Observed::PageFault {
        vcpu,
        address,
        error_code: c.hex()?,
    })
}

fn fast_page_fault(c: &mut Cursor<'_>) -> Option<Observed> {
    c.word(b"vcpu ")?;
    let vcpu = c.dec32()?;
    c.word(b" gva ")?;
    let address = c.hex()?;
    c.word(b" error_code ")?;
    c.token()?;
    c.word(b" sptep ")?;
    c.token()?;
    c.word(b" old ")?;
    let old_spte = c.hex()?;
    c.word(b" new ")?;
    let new_spte = c.hex()?;
    c.word(b" spurious ")?;
    c.dec32()?;
    c.word(b" fixed ")?;
    let fixed = c.dec32()? != 0;
    Some(Observed::FastPageFault {
        vcpu,
        address,
        old_spte,
        new_spte,
        fixed,
    })
}

fn set_spte(c: &mut Cursor<'_>) -> Option<Observed> {
    c.word(b"gfn ")?;
    let gfn = c.hex()?;
    c.word(b" spte ")?;
    let spte = c.hex()?;
    c.word(b" (")?;
    c.token()?;
    c.word(b" level ")?;
    let level = c.dec32()?;
    c.word(b" at ")?;
    c.hex()?;
    Some(Observed::SetSpte { gfn, spte, level })
}

fn tdp_spte_changed(c: &mut Cursor<'_>) -> Option<Observed> {
    c.word(b"as id ")?;
    let as_id = c.dec32()?;
    c.word(b" gfn ")?;
    let gfn = c.hex()?;
    c.word(b" level ")?;
    let level = c.dec32()?;
    c.word(b" old_spte ")?;
    let old_spte = c.hex()?;
    c.word(b" new_spte ")?;
    Some(Observed::TdpSpteChanged {
        as_id,
        gfn,
        level,
        old_spte,
        new_spte: c.hex()?,
    })
}

fn guest_fault(c: &mut Cursor<'_>) -> Option<Observed> {
    c.word(b"ipa ")?;
    let ipa = c.hex()?;
    c.word(b", hsr ")?;
    let hsr = c.hex()?;
    c.word(b", hxfar ")?;
    c.hex()?;
    c.word(b", pc ")?;
    c.hex()?;
    Some(Observed::GuestFault { ipa, hsr })
}

fn access_fault(c: &mut Cursor<'_>) -> Option<Observed> {
    c.word(b"IPA: ")?;
    Some(Observed::AccessFault { ipa: c.hex()? })
}

fn probe_ioctl(c: &mut Cursor<'_>) -> Option<Observed> {
    let phase = match c.token()? {
        b"enter" => Phase::Enter,
        b"return" => Phase::Return,
        _ => return None,
    };
    c.word(b" ")?;
    let ioctl = KvmIoctl::from_name(c.token()?)?;
    let slot = if c.word(b" slot ").is_some() {
        Some(c.dec32()?)
    } else {
        None
    };
    let first_page = if c.word(b" first_page ").is_some() {
        Some(c.dec()?)
    } else {
        None
    };
    let num_pages = if c.word(b" num_pages ").is_some() {
        Some(c.dec32()?)
    } else {
        None
    };
    let ret = if c.word(b" ret ").is_some() {
        Some(c.signed()?)
    } else {
        None
    };
    Some(Observed::ProbeIoctl {
        phase,
        ioctl,
        slot,
        first_page,
        num_pages,
        ret,
    })
}

fn probe_mark(c: &mut Cursor<'_>) -> Option<Observed> {
    c.word(b"slot ")?;
    let slot = c.dec32()?;
    c.word(b" offset 0x")?;
    Some(Observed::ProbeMark {
        slot,
        offset: c.hex()?,
    })
}

fn probe_rearm(c: &mut Cursor<'_>) -> Option<Observed> {
    c.word(b"slot ")?;
    let slot = c.dec32()?;
    c.word(b" offset 0x")?;
    let offset = c.hex()?;
    c.word(b" mask 0x")?;
    Some(Observed::ProbeRearm {
        slot,
        offset,
        mask: c.hex()?,
    })
}

/// Appends the text that the kernel (or a probe of docs/bug-reports.md) prints for an event, without its name.
///
/// The inverse of [`parse`]: what an event does not keep (a guest's instruction pointer, say) is printed as 0. Answers
/// false, and appends nothing, for events that are no tracepoint's.
pub fn print(event: &Observed, out: &mut String) -> bool {
    let written = match event {
        Observed::RingPush {
            ring,
            dirty_index,
            reset_index,
            slot,
            offset,
            used,
        } => write!(
            out,
            "ring {ring}: dirty {dirty_index:#x} reset {reset_index:#x} slot {slot} offset {offset:#x} (used {used})"
        ),
        Observed::RingReset {
            ring,
            dirty_index,
            reset_index,
            used,
        } => {
            write!(
                out,
                "ring {ring}: dirty {dirty_index:#x} reset {reset_index:#x} (used {used})"
            )
        }
        Observed::RingExit { vcpu } => write!(out, "vcpu {vcpu}"),
        Observed::UserspaceExit {
            reason: Some(reason),
            ..
        } => match exit_name(*reason) {
            Some(name) => write!(out, "reason {name} ({reason})"),
            None => write!(out, "reason {reason:#x} ({reason})"),
        },
        Observed::UserspaceExit {
            reason: None,
            errno,
        } => {
            let errno = errno.unwrap_or(EINTR);
            let word = if errno == EINTR { "restart" } else { "error" };
            write!(out, "reason {word} ({errno})")
        }
        Observed::PmlFull { vcpu } => write!(out, "vcpu {vcpu}: PML full"),
        Observed::PageFault {
            vcpu: Some(vcpu),
            address,
            error_code,
        } => {
            write!(
                out,
                "vcpu {vcpu} rip 0x0 address {address:#018x} error_code {error_code:#x}"
            )
        }
        Observed::PageFault {
            vcpu: None,
            address,
            error_code,
        } => {
            write!(out, "address {address:x} error_code {error_code:x}")
        }
        Observed::FastPageFault {
            vcpu,
            address,
            old_spte,
            new_spte,
            fixed,
        } => write!(
            out,
            "vcpu {vcpu} gva {address:x} error_code W sptep 0000000000000000 old {old_spte:#x} new {new_spte:x} \
             spurious 0 fixed {}",
            u8::from(*fixed)
        ),
        Observed::SetSpte { gfn, spte, level } => {
            write!(out, "gfn {gfn:x} spte {spte:x} (rwxu) level {level} at 0")
        }
        Observed::TdpSpteChanged {
            as_id,
            gfn,
            level,
            old_spte,
            new_spte,
        } => {
            write!(
                out,
                "as id {as_id} gfn {gfn:x} level {level} old_spte {old_spte:x} new_spte {new_spte:x}"
            )
        }
        Observed::GuestFault { ipa, hsr } => {
            write!(
                out,
                "ipa {ipa:#x}, hsr {hsr:#010x}, hxfar 0x00000000, pc 0x0000000000000000"
            )
        }
        Observed::AccessFault { ipa } => write!(out, "IPA: {ipa:x}"),
        Observed::ProbeIoctl {
            phase,
            ioctl,
            slot,
            first_page,
            num_pages,
            ret,
        } => {
            let phase = match phase {
                Phase::Enter => "enter",
                Phase::Return => "return",
            };
            let _ = write!(out, "{phase} {}", ioctl.name());
            if let Some(slot) = slot {
                let _ = write!(out, " slot {slot}");
            }
            if let Some(first_page) = first_page {
                let _ = write!(out, " first_page {first_page}");
            }
            if let Some(num_pages) = num_pages {
                let _ = write!(out, " num_pages {num_pages}");
            }
            match ret {
                Some(ret) => write!(out, " ret {ret}"),
                None => Ok(()),
            }
        }
        Observed::ProbeMark { slot, offset } => write!(out, "slot {slot} offset {offset:#x}"),
        Observed::ProbeRearm { slot, offset, mask } => {
            write!(out, "slot {slot} offset {offset:#x} mask {mask:#x}")
        }
        _ => return false,
    };
    written.is_ok()
}

/// `EINTR`, which the kernel prints as `restart`.
pub(crate) const EINTR: u32 = 4;

/// The exit reasons that the tracepoint's own table names; it ends at 30, so that a full dirty ring has no name.
fn exit_name(reason: u32) -> Option<&'static str> {
    Some(match reason {
        0 => "KVM_EXIT_UNKNOWN",
        1 => "KVM_EXIT_EXCEPTION",
        2 => "KVM_EXIT_IO",
        3 => "KVM_EXIT_HYPERCALL",
        4 => "KVM_EXIT_DEBUG",
        5 => "KVM_EXIT_HLT",
        6 => "KVM_EXIT_MMIO",
        7 => "KVM_EXIT_IRQ_WINDOW_OPEN",
        8 => "KVM_EXIT_SHUTDOWN",
        9 => "KVM_EXIT_FAIL_ENTRY",
        10 => "KVM_EXIT_INTR",
        17 => "KVM_EXIT_INTERNAL_ERROR",
        24 => "KVM_EXIT_SYSTEM_EVENT",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, body: &str) -> Observed {
        match parse(name.as_bytes(), body.as_bytes()) {
            Body::Event(event) => event,
            other => panic!("{name}: {body:?} gave {other:?}"),
        }
    }

    #[test]
    fn the_texts_of_the_kernel_are_read() {
        assert_eq!(
            event(
                "kvm_dirty_ring_push",
                "ring 0: dirty 0x1c1 reset 0x1 slot 65539 offset 0x2a (used 448)"
            ),
            Observed::RingPush {
                ring: 0,
                dirty_index: 0x1c1,
                reset_index: 1,
                slot: 65539,
                offset: 0x2a,
                used: 448
            }
        );
        assert_eq!(
            event("kvm_userspace_exit", "reason 0x1f (31)"),
            Observed::UserspaceExit {
                reason: Some(31),
                errno: None
            }
        );
        assert_eq!(
            event("kvm_userspace_exit", "reason restart (4)"),
            Observed::UserspaceExit {
                reason: None,
                errno: Some(4)
            }
        );
        assert_eq!(
            event(
                "kvm_page_fault",
                "vcpu 0 rip 0xffffffff81000000 address 0x0000000000fee0b0 error_code 0x182"
            ),
            Observed::PageFault {
                vcpu: Some(0),
                address: 0xfee0b0,
                error_code: 0x182
            }
        );
        assert_eq!(
            event("kvm_page_fault", "address fee0b0 error_code 182"),
            Observed::PageFault {
                vcpu: None,
                address: 0xfee0b0,
                error_code: 0x182
            }
        );
        assert_eq!(
            event(
                "kvm_guest_fault",
                "ipa 0x8000000, hsr 0x93c08006, hxfar 0xffff800008c10000, pc 0xffff800008511234"
            ),
            Observed::GuestFault {
                ipa: 0x800_0000,
                hsr: 0x93c0_8006
            }
        );
    }

    #[test]
    fn a_text_with_anything_behind_it_is_damaged() {
        for body in [
            "ring 0: dirty 0x1 reset 0x0 (used 1) x",
            "ring 0: dirty 0x1 reset 0x0 (used 1",
            "ring 0: dirty 0x100000000 reset 0x0 (used 1)",
            "",
        ] {
            assert_eq!(
                parse(b"kvm_dirty_ring_reset", body.as_bytes()),
                Body::Damaged,
                "{body}"
            );
        }
        assert_eq!(parse(b"kvm_entry", b"vcpu 0, rip 0x1"), Body::Other);
    }

    #[test]
    fn qemu_events_in_the_kernels_buffer_are_read() {
        assert_eq!(
            event(
                "tracing_mark_write",
                "kvm_dirty_ring_page vcpu 1 fetch 7 offset 0x2a"
            ),
            Observed::QemuPage {
                cpu_index: 1,
                fetch: 7,
                offset: 42
            }
        );
        assert_eq!(
            event("print", "tracing_mark_write: migration_bitmap_sync_start "),
            Observed::QemuSyncStart
        );
    }
}
