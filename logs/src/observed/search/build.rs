//! The machines that a log allows, each in the state in which the log begins.

use dirtysim_model::machine::{
    Arch, CAP_DIRTY_LOG_RING_ACQ_REL, CAP_DIRTY_LOG_RING_WITH_BITMAP, Constants, DIRTY_GFN_BYTES,
    Kernel, MEM_LOG_DIRTY_PAGES, Machine, RING_MAX_ENTRIES, SlotTemplate, VcpuConfig,
};
use dirtysim_model::op::{self, Op};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::state::thread::Thread;
use dirtysim_model::state::vcpu::UNLIMITED;
use dirtysim_model::words::{Frame, HostPage};

use super::run::{Recorded, Run, THREADS};
use super::shape::Shape;
use super::{Ended, Tried};
use crate::observed::check::reserves;
use crate::observed::ring::RING_ENTRIES_MAX;
use crate::trace;

/// The most rings of a search: the model numbers vCPUs by bytes.
const RINGS_MAX: usize = 255;
/// The most memslots of a search.
const SLOTS_MAX: usize = 1024;
/// The most pages of a search: 1 TiB of 4 KiB pages.
const PAGES_MAX: u64 = 1 << 28;
/// The most ring entries of a machine, all vCPUs together; an entry has 16 bytes.
const ENTRIES_MAX: u64 = 1 << 20;

/// A machine that is tried.
#[derive(Debug, Clone, Copy)]
struct Kind {
    arch: Arch,
    pml: bool,
}

impl Shape {
    /// A run for each machine that the log allows, and the machines that it does not allow; or why none can be tried.
    pub(super) fn candidates(&self) -> Result<(Vec<Run>, Vec<Tried>), String> {
        if let Some(alone) = self.seen_by_qemu_alone() {
            return alone.machines();
        }
        if !self.pushes && !self.rings.is_empty() {
            return Err("no push was recorded: record kvm:kvm_dirty_ring_push".to_owned());
        }
        self.machines()
    }

    fn machines(&self) -> Result<(Vec<Run>, Vec<Tried>), String> {
        if self.rings.is_empty() {
            return Err(
                "no event of a ring: record kvm:kvm_dirty_ring_push and kvm:kvm_dirty_ring_reset"
                    .to_owned(),
            );
        }
        let pages = self.slots.values().try_fold(0_u64, |sum, pages| {
            sum.checked_add(pages.checked_next_multiple_of(64)?)
        });
        let pages = pages.unwrap_or(u64::MAX);
        for (what, number, most) in [
            ("rings", self.rings.len() as u64, RINGS_MAX as u64),
            ("memslots", self.slots.len() as u64, SLOTS_MAX as u64),
            ("pages", pages, PAGES_MAX),
        ] {
            if number > most {
                return Err(format!("{number} {what}; a search takes {most}"));
            }
        }
        if let Some(slot) = self.slots.keys().find(|slot| **slot >> 16 > 1) {
            return Err(format!("slot {slot:#x}: there is no such address space"));
        }
        let (mut runs, mut excluded) = (Vec::new(), Vec::new());
        for kind in self.kinds() {
            match self.ring_size(kind) {
                Ok((entries, reserved)) => runs.push(self.build(kind, entries, reserved)?),
                Err(why) => excluded.push(Tried {
                    ended: Some(Ended { line: None, why }),
                    ..Tried::new(name(kind))
                }),
            }
        }
        Ok((runs, excluded))
    }

    fn kinds(&self) -> Vec<Kind> {
        let all = [
            (Arch::X86, false),
            (Arch::X86, true),
            (Arch::Arm64, false),
            (Arch::Riscv, false),
            (Arch::Loongarch, false),
        ];
        let arch = self.arch.map(|arch| match arch {
            trace::Arch::X86_64 => Arch::X86,
            trace::Arch::Arm64 => Arch::Arm64,
            trace::Arch::Riscv64 => Arch::Riscv,
            trace::Arch::Loongarch64 => Arch::Loongarch,
        });
        all.into_iter()
            .map(|(arch, pml)| Kind { arch, pml })
            .filter(|kind| match arch {
                Some(arch) => kind.arch == arch,
                // RISC-V and LoongArch differ from the others in nothing that these events show.
                None => matches!(kind.arch, Arch::X86 | Arch::Arm64),
            })
            .filter(|kind| {
                self.pml
                    .is_none_or(|pml| kind.pml == pml || kind.arch != Arch::X86)
            })
            .collect()
    }

    /// Entries of the rings, and how many of them are in reserve: what was said, or the largest soft limit that no exit
    /// contradicts. Without an exit, rings that never fill.
    fn ring_size(&self, kind: Kind) -> Result<(u32, u32), String> {
        let constants = Constants::of(kind.arch, kind.pml);
        let usual = constants.ring_reserved;
        let reserved = self.config.ring_reserved.unwrap_or(usual);
        if self.config.ring_reserved.is_some()
            && reserves().contains(&reserved)
            && reserved != usual
        {
            return Err(format!("{reserved} entries are in reserve, not {usual}"));
        }
        let least = constants.ring_min_entries;
        let sizes = (0..=16).map(|n| 1_u32 << n).filter(|size| *size >= least);
        let size = match (self.config.ring_entries, self.least_at_exit) {
            (Some(entries), _) => Some(entries),
            (None, Some(least)) => sizes
                .filter(|size| *size > reserved && size - reserved <= least)
                .max(),
            (None, None) => sizes
                .filter(|size| *size > reserved.saturating_add(self.most_used))
                .min()
                .or(Some(RING_ENTRIES_MAX)),
        };
        match size {
            None => Err(format!(
                "a vCPU left with {} entries in use, and no ring with {reserved} in reserve has so low a limit",
                self.least_at_exit.unwrap_or_default()
            )),
            Some(size) if !size.is_power_of_two() || size > RING_MAX_ENTRIES => Err(format!(
                "KVM has no ring of {size} entries; write a power of two up to {RING_MAX_ENTRIES}"
            )),
            Some(size) if size <= reserved => Err(format!(
                "a ring of {size} entries with {reserved} in reserve is always soft-full"
            )),
            Some(size) if size < self.most_used => Err(format!(
                "{} entries were in use, and a ring that is soft-full at {} has {size}",
                self.most_used,
                size - reserved
            )),
            Some(size) => Ok((size, reserved)),
        }
    }

    fn build(&self, kind: Kind, entries: u32, reserved: u32) -> Result<Run, String> {
        if u64::from(entries) * self.rings.len() as u64 > ENTRIES_MAX {
            return Err(format!(
                "{} rings of {entries} entries; a search takes {ENTRIES_MAX} entries in all",
                self.rings.len()
            ));
        }
        let mut machine = Machine::new(kind.arch, Kernel::V7_2, kind.pml);
        let two_spaces = self.slots.keys().any(|slot| slot >> 16 == 1);
        machine.constants = Constants {
            ring_reserved: reserved,
            ring_min_entries: entries.min(machine.constants.ring_min_entries),
            huge_pages: 1,
            address_spaces: 1 + u32::from(two_spaces),
            ..machine.constants
        };
        let page = machine.constants.page_bytes;
        let mut frame = Frame(0);
        for (&number, &pages) in &self.slots {
            machine.slots.push(SlotTemplate {
                as_id: number >> 16,
                id: number & 0xffff,
                npages: pages as u32,
                frame,
                host: HostPage(frame.0),
                hva: u64::from(frame.0) * page,
                places: vec![u64::from(frame.0)],
                huge: false,
                name: String::new(),
            });
            frame = frame + machine.padded(pages as u32);
        }
        machine.vcpus = vec![
            VcpuConfig {
                stores: UNLIMITED,
                steal: 1,
                own_stores: true,
                ..VcpuConfig::default()
            };
            self.rings.len()
        ];
        let mut setup = vec![Op::EnableCap(op::EnableCap {
            cap: CAP_DIRTY_LOG_RING_ACQ_REL,
            flags: 0,
            args0: u64::from(entries) * u64::from(DIRTY_GFN_BYTES),
        })];
        let with_bitmap = kind.arch.has_ring_with_bitmap(machine.kernel);
        if with_bitmap {
            setup.push(Op::EnableCap(op::EnableCap {
                cap: CAP_DIRTY_LOG_RING_WITH_BITMAP,
                flags: 0,
                args0: 0,
            }));
        }
        for (index, slot) in machine.slots.iter().enumerate() {
            setup.push(Op::SetMemoryRegion(op::SetMemoryRegion {
                slot: slot.number(),
                flags: MEM_LOG_DIRTY_PAGES,
                gpa: u64::from(slot.frame.0) * page,
                bytes: u64::from(slot.npages) * page,
                hva: slot.hva,
                template: index as u16,
            }));
        }
        setup.extend(self.rings.iter().map(|_| Op::CreateVcpu));
        machine.programs = vec![Vec::new(); THREADS];
        let mut state = State::<Large>::new(&machine);
        // What is stale shows in no event.
        state.stale.clear();
        state.threads = vec![Thread::default(); THREADS];
        let words = format!(
            "{}, rings of {entries} entries, {reserved} in reserve{}",
            name(kind),
            if self.config.ring_entries.is_none() && self.least_at_exit.is_none() {
                " (no exit shows their size: so large that they never fill)"
            } else {
                ""
            }
        );
        let recorded = Recorded {
            pushes: self.pushes,
            resets: self.resets,
            ring_exits: self.ring_exits,
            userspace_exits: self.userspace_exits,
        };
        let mut run = Run::new(machine, state, &self.rings, recorded, words);
        for op in setup {
            let answer = run.ioctl(op).map_err(|stuck| stuck.to_string())?;
            answer.map_err(|errno| format!("the model refuses the machine: {}", errno.name()))?;
        }
        run.set_up();
        Ok(run)
    }
}

fn name(kind: Kind) -> String {
    let pml = match (kind.arch, kind.pml) {
        (Arch::X86, true) => " with PML",
        (Arch::X86, false) => " without PML",
        _ => "",
    };
    format!("{}{pml}", kind.arch.name())
}
