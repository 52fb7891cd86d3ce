//! How a sequence begins: capabilities, slots, vCPUs, and on arm64 perhaps an interrupt controller.

use dirtysim::trace::call::{Call, GuestLayout, Prot, Sharing};
use dirtysim::trace::{Arch, Cap, PageRuns};

use super::Generator;

/// Slot sizes that have edges: one word, less than one, more than one, several, more than a ring.
const SLOT_PAGES: [u64; 8] = [1, 3, 64, 65, 128, 192, 200, 320];

/// Sizes of slots in huge pages: one, two, and two with a rest.
const HUGE_PAGES: [u64; 3] = [512, 1024, 1100];

/// How the names of memories begin that ask for huge pages.
pub(super) const HUGE_MEMORY: &str = "huge";

/// The slot of records of stolen time.
pub(super) const RECORD_SLOT: u16 = 5;

/// The slot of the guest's tables, where they are apart; nobody but the processor stores to it.
pub(super) const TABLES_SLOT: u16 = 6;

/// Their pages: a table of each level.
const TABLES_PAGES: u64 = 3;

/// `KVM_MEM_READONLY`.
pub(super) const READONLY: u32 = 2;

/// Bytes between the places where slots go, and from there to where a slot is moved.
const SLOT_STRIDE: u64 = 0x0200_0000;

impl Generator {
    pub(super) fn queue_setup(&mut self) {
        self.queued.push_back(Call::CreateVm {});
        self.queue_capabilities();
        self.queued.push_back(self.own_slot());
        let slots = self.random.between(1, 3) as u16;
        for slot in 1..=slots {
            let pages = self.random.one(&SLOT_PAGES);
            let flags = self.slot_flags();
            let call = self.create_slot(slot, pages, flags);
            self.queued.push_back(call);
        }
        if self.profile.its {
            self.queue_its_slot();
        }
        if self.profile.stolen {
            let log = u32::from(self.random.percent(80));
            let call = self.record_slot(log);
            self.queued.push_back(call);
        }
        if self.profile.tables {
            let log = u32::from(self.random.percent(80));
            let call = self.tables_slot(log);
            self.queued.push_back(call);
            self.queued.push_back(Call::GuestLayout(tables_layout()));
        }
        for vcpu in 0..self.profile.vcpus {
            self.queue_vcpu(vcpu);
        }
        if self.profile.its {
            self.queue_its();
        }
    }

    /// Most slots log; a few are read-only.
    pub(super) fn slot_flags(&mut self) -> u32 {
        let log = u32::from(self.random.percent(80));
        log | if self.random.percent(6) { READONLY } else { 0 }
    }

    fn queue_capabilities(&mut self) {
        let arm64 = self.target.arch == Arch::Arm64;
        if self.random.percent(15) {
            let call = self.bad_ring_size();
            self.queued.push_back(call);
        }
        let (ring, bitmap) = if arm64 {
            self.random.weighted(&[
                (25, (false, false)),
                (20, (true, false)),
                (55, (true, true)),
            ])
        } else {
            (self.random.percent(60) && self.target.rings, false)
        };
        let smallest = self.target.smallest_ring;
        let size = self.random.weighted(&[(80, smallest), (20, 2 * smallest)]);
        let manual = |args0| Call::EnableCap {
            cap: Cap::ManualDirtyLogProtect2,
            flags: 0,
            args0,
        };
        let protect = self.random.weighted(&[(50, 0), (30, 1), (20, 3)]);
        let manual_first = self.random.percent(50);
        if protect != 0 && manual_first {
            self.queued.push_back(manual(protect));
        }
        self.ring_expected = if ring { size } else { 0 };
        if ring {
            let cap = if self.target.ring_by_acq_rel_alone() || self.random.percent(50) {
                Cap::DirtyLogRingAcqRel
            } else {
                Cap::DirtyLogRing
            };
            self.queued.push_back(Call::EnableCap {
                cap,
                flags: 0,
                args0: size,
            });
        }
        if bitmap {
            self.queued.push_back(Call::EnableCap {
                cap: Cap::DirtyLogRingWithBitmap,
                flags: 0,
                args0: 0,
            });
        }
        if protect != 0 && !manual_first {
            self.queued.push_back(manual(protect));
        }
    }

    fn own_slot(&self) -> Call {
        Call::SetUserMemoryRegion {
            slot: 0,
            as_id: 0,
            flags: 0,
            gpa: self.target.own_gpa,
            npages: self.target.own_pages,
            bytes: None,
            mem: "code".to_owned(),
            mem_offset: 0,
            populated: true,
            huge: false,
        }
    }

    /// Where a slot goes by default, bytes.
    pub(super) fn slot_gpa(&self, slot: u16) -> u64 {
        self.target.data_gpa + u64::from(slot) * SLOT_STRIDE
    }

    /// Where a slot goes when it is moved, bytes.
    pub(super) fn other_gpa(&self, slot: u16) -> u64 {
        self.slot_gpa(slot) + SLOT_STRIDE / 2
    }

    pub(super) fn create_slot(&mut self, slot: u16, npages: u64, flags: u32) -> Call {
        // On RISC-V a slot in huge pages whose log is switched off can keep a guest from going on for ever: see the module's list.
        let riscv = self.target.arch == Arch::Riscv64;
        let huge = self.random.percent(8) && !riscv;
        let untouched = huge && self.target.huge_when_touched && self.random.percent(40);
        // Now and then two slots share their memory, as a device's aperture does.
        let mem = if huge {
            format!("{HUGE_MEMORY}{slot}")
        } else if slot > 1 && self.random.percent(10) {
            "data1".to_owned()
        } else {
            format!("data{slot}")
        };
        Call::SetUserMemoryRegion {
            slot,
            as_id: 0,
            flags,
            gpa: self.slot_gpa(slot),
            npages: if huge {
                self.random.one(&HUGE_PAGES)
            } else {
                npages
            },
            bytes: None,
            mem,
            mem_offset: 0,
            // A guest's load and then store of memory that nobody touched changes the host's page of zeros there: see the module's list.
            populated: if huge {
                !untouched
            } else {
                self.random.percent(80) || (riscv && self.target.rings)
            },
            huge,
        }
    }

    /// The slot of the records, which nobody else stores to: what KVM writes there is not known.
    pub(super) fn record_slot(&self, flags: u32) -> Call {
        Call::SetUserMemoryRegion {
            slot: RECORD_SLOT,
            as_id: 0,
            flags,
            gpa: self.slot_gpa(RECORD_SLOT),
            npages: 2,
            bytes: None,
            mem: "records".to_owned(),
            mem_offset: 0,
            populated: true,
            huge: false,
        }
    }

    /// The slot of the guest's tables, which nobody else stores to, and which stays where it is.
    pub(super) fn tables_slot(&self, flags: u32) -> Call {
        Call::SetUserMemoryRegion {
            slot: TABLES_SLOT,
            as_id: 0,
            flags,
            gpa: self.slot_gpa(TABLES_SLOT),
            npages: TABLES_PAGES,
            bytes: None,
            mem: "tables".to_owned(),
            mem_offset: 0,
            populated: true,
            huge: false,
        }
    }

    pub(super) fn queue_vcpu(&mut self, vcpu: u32) {
        self.queued.push_back(Call::CreateVcpu { vcpu });
        self.queued.push_back(Call::VcpuInit {
            vcpu,
            mode: self.profile.mode.to_owned(),
        });
        if self.profile.stolen && self.random.percent(80) {
            let gpa = self.slot_gpa(RECORD_SLOT) + u64::from(vcpu) * 0x840;
            self.queued.push_back(Call::StolenTime { vcpu, gpa });
        }
        if self.ring_expected > 0 {
            self.queued.push_back(self.usual_mapping(vcpu));
        }
    }

    pub(super) fn usual_mapping(&self, vcpu: u32) -> Call {
        Call::MmapRing {
            vcpu,
            offset_pages: 64,
            bytes: self.ring_expected,
            prot: Prot::Rw,
            sharing: Sharing::Shared,
            touch_byte: None,
        }
    }
}

/// Where the guest's tables are that are apart.
fn tables_layout() -> GuestLayout {
    let mut pages = PageRuns::default();
    pages
        .push_run(0, TABLES_PAGES)
        .expect("a run of a few pages");
    GuestLayout {
        slot: TABLES_SLOT,
        code_pages: PageRuns::default(),
        mailbox_pages: None,
        gdt_pages: None,
        stack_pages: None,
        page_table_pages: Some(pages),
        list_pages: None,
        other_guest_tables: None,
        page_table_accessed_dirty_bits_at_start: Some(0),
        written_before_slot_creation: Some(false),
        logged_slot_pages_touched_by_setup: PageRuns::default(),
    }
}
