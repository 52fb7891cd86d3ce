//! One call after the set-up.

use dirtysim::trace::call::{Access, Call, Program, UserData};
use dirtysim::trace::{Arch, Cap, PageRuns, StoreRuns, Words};

use super::Generator;
use super::setup::{HUGE_MEMORY, READONLY, RECORD_SLOT, TABLES_SLOT};
use super::world::VcpuView;

/// Bytes of a page.
const PAGE_BYTES: u32 = 4096;

/// Kinds of calls, by how often they come.
#[derive(Clone, Copy)]
enum Kind {
    Run,
    Peek,
    Harvest,
    RingRead,
    RingWrite,
    Reset,
    Get,
    Clear,
    Region,
    Capability,
    Check,
    LateVcpu,
    Map,
    UserWrite,
    Copy,
    Compare,
    Discard,
    PreFault,
    Its,
}

impl Generator {
    pub(super) fn draw(&mut self) -> Call {
        let ring = if self.world.ring_bytes > 0 { 1 } else { 0 };
        let wild = u64::from(self.profile.wild) * ring;
        let its = u64::from(self.profile.its);
        // With a ring and no bitmap both are refused, whatever they are told: a few are enough.
        let log = if self.world.ring_bytes > 0 && !self.world.with_bitmap {
            1
        } else {
            4
        };
        let kind = self.random.weighted(&[
            (26, Kind::Run),
            (1 + 4 * ring, Kind::Peek),
            (14 * ring, Kind::Harvest),
            (ring, Kind::RingRead),
            (5 * wild, Kind::RingWrite),
            (1 + 9 * ring, Kind::Reset),
            (4 * log, Kind::Get),
            (3 * log, Kind::Clear),
            (8, Kind::Region),
            (2, Kind::Capability),
            (1, Kind::Check),
            (1, Kind::LateVcpu),
            (1, Kind::Map),
            (3, Kind::UserWrite),
            (4, Kind::Copy),
            (3, Kind::Compare),
            (3, Kind::Discard),
            (
                if self.target.arch == Arch::X86_64 {
                    3
                } else {
                    1
                },
                Kind::PreFault,
            ),
            (14 * its, Kind::Its),
        ]);
        self.draw_kind(kind).unwrap_or_else(|| self.draw_get())
    }

    /// A call of a kind, if the VM has what it needs.
    fn draw_kind(&mut self, kind: Kind) -> Option<Call> {
        match kind {
            Kind::Run => self.draw_run(),
            Kind::Peek => self.mapped_vcpu().map(|vcpu| Call::RingPeek {
                vcpu: vcpu.id,
                fetch_index: vcpu.fetch,
            }),
            Kind::Harvest => self.draw_harvest(),
            Kind::RingRead => {
                let vcpu = self.mapped_vcpu()?;
                let back = self.random.below(8) as u32;
                Some(Call::RingRead {
                    vcpu: vcpu.id,
                    index: vcpu.fetch.wrapping_sub(back),
                    count: self.random.between(1, 16),
                })
            }
            Kind::RingWrite => self.draw_ring_write(),
            Kind::Reset => Some(Call::ResetDirtyRings {}),
            Kind::Get => Some(self.draw_get()),
            Kind::Clear => self.draw_clear(),
            Kind::Region => self.draw_region(),
            Kind::Capability => Some(self.odd_capability()),
            Kind::Check => Some(Call::CheckExtension {
                cap: self.random.one(&[
                    Cap::DirtyLogRing,
                    Cap::DirtyLogRingAcqRel,
                    Cap::DirtyLogRingWithBitmap,
                    Cap::ManualDirtyLogProtect2,
                ]),
            }),
            Kind::LateVcpu => self.draw_vcpu(),
            Kind::Map => {
                let vcpu = self.vcpu()?;
                (self.ring_expected > 0).then(|| self.odd_mapping(vcpu.id))
            }
            Kind::UserWrite => {
                let (slot, pages) = self.slot()?;
                let pages = self.some_pages(pages);
                let value = self.fresh_value();
                Some(Call::UserWrite {
                    slot,
                    pages,
                    data: UserData::Bytes {
                        value,
                        bytes: 8,
                        at: 0,
                    },
                })
            }
            Kind::Copy => {
                let (slot, pages) = self.slot()?;
                Some(Call::Copy {
                    slot,
                    pages: self.some_pages(pages),
                })
            }
            Kind::Compare => self.slot().map(|(slot, _)| Call::Compare { slot }),
            Kind::Discard => self.draw_discard(),
            Kind::PreFault => self.draw_pre_fault(),
            Kind::Its => self.draw_its(),
        }
    }

    fn vcpu(&mut self) -> Option<VcpuView> {
        let count = self.world.vcpus.len() as u64;
        (count > 0).then(|| self.world.vcpus[self.random.below(count) as usize].clone())
    }

    fn mapped_vcpu(&mut self) -> Option<VcpuView> {
        self.vcpu().filter(|vcpu| vcpu.mapped)
    }

    /// A slot that stores go to, with its pages: not the guest's own, nor the ITS's.
    fn slot(&mut self) -> Option<(u16, u64)> {
        let slots: Vec<(u16, u64)> = self
            .world
            .slots
            .iter()
            .filter(|(id, _)| (1..=3).contains(*id))
            .map(|(id, view)| (*id, view.pages))
            .collect();
        (!slots.is_empty()).then(|| self.random.one(&slots))
    }

    /// A page: one of the few at the edges of words, or any.
    fn page(&mut self, pages: u64) -> u64 {
        if self.random.percent(70) {
            self.random
                .one(&[0, 1, 2, 3, 62, 63, 64, 65, 127, 128, 191])
                .min(pages - 1)
        } else {
            self.random.below(pages)
        }
    }

    fn some_pages(&mut self, pages: u64) -> PageRuns {
        let mut runs = PageRuns::default();
        for _ in 0..self.random.between(1, 3) {
            let first = self.page(pages);
            let count = if self.random.percent(20) {
                self.random.between(1, pages - first)
            } else {
                1
            };
            runs.push_run(first, count).expect("pages of a slot");
        }
        runs
    }

    fn draw_run(&mut self) -> Option<Call> {
        let vcpu = self.vcpu().filter(|vcpu| vcpu.ready)?;
        if let Some(program) = vcpu.unfinished
            && self.random.percent(80)
        {
            return Some(Call::Run {
                vcpu: vcpu.id,
                program,
                resume: true,
            });
        }
        // A copy takes two exits an element, so that it is of few pages.
        let elements = if self.copies() && self.random.percent(12) {
            Some(self.elements())
        } else {
            None
        };
        let mut store = StoreRuns::default();
        let long = elements.is_none() && self.random.percent(15);
        let at = match elements {
            None => self.place_in_page(),
            Some(_) if self.random.percent(70) => 0,
            Some(_) => PAGE_BYTES - 8 * self.random.between(1, 6) as u32,
        };
        let over = u64::from(at + 8 * elements.unwrap_or(1) > PAGE_BYTES);
        for _ in 0..self.random.between(1, 4) {
            let (slot, pages) = self.slot()?;
            // What goes over a page's end stays in its slot; on RISC-V it is not emulated either, so that it stays out of read-only ones.
            let readonly = self.world.slots[&slot].flags & READONLY != 0;
            if pages == over || (over > 0 && readonly && self.target.arch == Arch::Riscv64) {
                continue;
            }
            let pages = pages - over;
            let first = if long { 0 } else { self.page(pages) };
            let count = match self.random.below(100) {
                _ if long => pages,
                0..75 => 1,
                _ if elements.is_some() => self.random.between(1, (pages - first).min(3)),
                _ => self.random.between(1, (pages - first).min(70)),
            };
            store
                .push_run(slot.into(), first, count)
                .expect("pages of a slot");
        }
        if store.count() == 0 {
            return None;
        }
        let access = if elements.is_some() {
            Access::Copy
        } else if self.random.percent(15) {
            Access::Load
        } else {
            Access::Store
        };
        let bytes = if access == Access::Load && at == 0 {
            1
        } else {
            8
        };
        let value = if access == Access::Load {
            0
        } else {
            self.fresh_value()
        };
        Some(Call::Run {
            vcpu: vcpu.id,
            program: Program {
                store,
                bytes,
                value,
                access,
                elements: elements.unwrap_or(1),
                at,
            },
            resume: false,
        })
    }

    /// Whether the guest copies from where no memory is.
    fn copies(&self) -> bool {
        self.target.modes_that_copy.contains(&self.profile.mode)
    }

    /// Elements of a string instruction: few, or more than a ring has in reserve.
    fn elements(&mut self) -> u32 {
        let elements = match self.random.below(100) {
            0..60 => self.random.between(1, 6),
            60..95 => self.random.between(7, 100),
            _ => self.random.between(101, u64::from(PAGE_BYTES) / 8),
        };
        elements as u32
    }

    /// Where in its page an access of 8 bytes begins: mostly at the first byte; or elsewhere, over the page's end too where the guest's
    /// memory is not of a kind that wants aligned accesses, as arm64's is without translation.
    fn place_in_page(&mut self) -> u32 {
        match self.random.below(100) {
            0..88 => 0,
            88..94 if self.target.arch != Arch::Arm64 => {
                PAGE_BYTES - self.random.between(1, 7) as u32
            }
            _ => self.random.one(&[8, 2048, PAGE_BYTES - 8]),
        }
    }

    /// The memory of pages is given back to the host. Of what may be in huge pages nobody knows how much goes.
    fn draw_discard(&mut self) -> Option<Call> {
        let (slot, pages) = self.slot()?;
        if self.world.slots[&slot].mem.starts_with(HUGE_MEMORY) {
            return None;
        }
        let pages = self.some_pages(pages);
        // See the module's list: there, what was given back is stored to at once.
        if self.target.arch == Arch::Riscv64 && self.target.rings {
            let value = self.fresh_value();
            self.queued.push_back(Call::UserWrite {
                slot,
                pages: pages.clone(),
                data: UserData::Bytes {
                    value,
                    bytes: 8,
                    at: 0,
                },
            });
        }
        Some(Call::Discard { slot, pages })
    }

    fn draw_pre_fault(&mut self) -> Option<Call> {
        if !self.target.pre_faults {
            return None;
        }
        let vcpu = self.vcpu()?.id;
        let (slot, pages) = self.slot()?;
        let first = self.page(pages);
        let npages = match self.random.below(100) {
            0..50 => 1,
            50..90 => self.random.between(1, (pages - first).min(70)),
            // Beyond the slot's end, and nothing at all.
            90..97 => pages - first + 3,
            _ => 0,
        };
        let gpa = self.world.slots[&slot].gpa + first * u64::from(PAGE_BYTES);
        let gpa = match self.random.below(100) {
            0..3 => gpa + 8,
            3..6 => self.slot_gpa(9),
            _ => gpa,
        };
        Some(Call::PreFaultMemory { vcpu, gpa, npages })
    }

    fn draw_harvest(&mut self) -> Option<Call> {
        let vcpu = self.mapped_vcpu()?;
        let max = if self.random.percent(35) {
            Some(self.random.between(1, 20) as u32)
        } else {
            None
        };
        let write_flags = if self.profile.wild {
            self.random.weighted(&[(80, 2), (10, 3), (5, 0), (5, 1)])
        } else {
            self.random.weighted(&[(90, 2), (10, 3)])
        };
        Some(Call::Harvest {
            vcpu: vcpu.id,
            fetch_index: vcpu.fetch,
            max,
            write_flags,
        })
    }

    fn draw_ring_write(&mut self) -> Option<Call> {
        let vcpu = self.mapped_vcpu()?;
        let index = vcpu
            .fetch
            .wrapping_sub(3)
            .wrapping_add(self.random.below(8) as u32);
        let flags = self
            .random
            .percent(60)
            .then(|| self.random.one(&[0, 1, 2, 3]));
        let slot = self
            .random
            .percent(30)
            .then(|| self.random.one(&[1, 2, 9, 0x1_0001, 40_000]));
        let offset = self.random.percent(40).then(|| {
            self.random
                .one(&[0, 1, 63, 64, 70, 191, 192, 319, 320, 1 << 20])
        });
        Some(Call::RingWrite {
            vcpu: vcpu.id,
            index,
            flags,
            slot,
            offset,
        })
    }

    fn draw_get(&mut self) -> Call {
        let slot = self.logged_slot();
        if self.random.percent(10) {
            self.bad_get(slot)
        } else {
            Call::GetDirtyLog {
                slot,
                as_id: 0,
                bad_pointer: false,
            }
        }
    }

    /// A slot whose log is read: any but the guest's own; on arm64 often the ITS's.
    fn logged_slot(&mut self) -> u16 {
        if self.profile.its && self.random.percent(50) {
            return super::its::SLOT;
        }
        if self.profile.stolen && self.random.percent(25) {
            return RECORD_SLOT;
        }
        if self.profile.tables && self.random.percent(25) {
            return TABLES_SLOT;
        }
        self.slot().map_or(1, |(slot, _)| slot)
    }

    /// Bits: few, all, or any.
    pub(super) fn random_words(&mut self, count: u64) -> Words {
        let kind = self.random.below(3);
        let words: Vec<u64> = (0..count)
            .map(|_| match kind {
                0 => self.random.word() & self.random.word() & self.random.word(),
                1 => u64::MAX,
                _ => self.random.word(),
            })
            .collect();
        Words::from_bitmap(words).expect("the words of a slot")
    }

    fn draw_clear(&mut self) -> Option<Call> {
        let slot = self.logged_slot();
        let pages = self.world.slots.get(&slot)?.pages;
        if self.random.percent(15) {
            return Some(self.bad_clear(slot, pages));
        }
        let all = pages.div_ceil(64);
        let (first_word, words) = if self.random.percent(60) {
            (0, all)
        } else {
            let first = self.random.below(all);
            (first, self.random.between(1, all - first))
        };
        let first_page = first_word * 64;
        let num_pages = (words * 64).min(pages - first_page);
        let given = match self.world.last_get.get(&slot) {
            Some(seen) if self.random.percent(60) => {
                Words::from_bitmap((0..words).map(|index| seen.word(first_word + index)))
                    .expect("the words of a slot")
            }
            _ => self.random_words(words),
        };
        Some(Call::ClearDirtyLog {
            slot,
            as_id: 0,
            first_page,
            num_pages: num_pages as u32,
            words_given: words,
            words: given,
            bad_pointer: false,
        })
    }

    /// Creates, deletes, moves, or changes the log flag of a slot; or asks for what cannot be.
    fn draw_region(&mut self) -> Option<Call> {
        if self.profile.its && self.random.percent(15) {
            return self.toggle_its_log();
        }
        if self.profile.stolen && self.random.percent(15) {
            let log = self.world.slots.get(&RECORD_SLOT)?.flags ^ 1;
            return Some(self.record_slot(log));
        }
        if self.profile.tables && self.random.percent(20) {
            let log = self.world.slots.get(&TABLES_SLOT)?.flags ^ 1;
            return Some(self.tables_slot(log));
        }
        let slot = self.random.between(1, 3) as u16;
        let Some(view) = self.world.slots.get(&slot).cloned() else {
            let pages = self.random.one(&[64, 70, 200]);
            let flags = self.slot_flags();
            return Some(self.create_slot(slot, pages, flags));
        };
        if self.random.percent(25) {
            return Some(self.bad_region(slot, &view));
        }
        let (mut flags, mut gpa, mut npages) = (view.flags, view.gpa, view.pages);
        match self.random.weighted(&[(60, 0), (15, 1), (15, 2), (10, 3)]) {
            0 => flags ^= 1,
            1 => npages = 0,
            2 => {
                gpa = if gpa == self.slot_gpa(slot) {
                    self.other_gpa(slot)
                } else {
                    self.slot_gpa(slot)
                }
            }
            _ => {}
        }
        Some(Call::SetUserMemoryRegion {
            slot,
            as_id: 0,
            flags,
            gpa,
            npages,
            bytes: None,
            mem: view.mem,
            mem_offset: 0,
            populated: self.random.percent(20),
            huge: false,
        })
    }

    /// The log flag of the slot that holds the ITS's tables.
    fn toggle_its_log(&self) -> Option<Call> {
        let view = self.world.slots.get(&super::its::SLOT)?;
        Some(Call::SetUserMemoryRegion {
            slot: super::its::SLOT,
            as_id: 0,
            flags: view.flags ^ 1,
            gpa: view.gpa,
            npages: view.pages,
            bytes: None,
            mem: view.mem.clone(),
            mem_offset: 0,
            populated: false,
            huge: false,
        })
    }

    /// A vCPU that exists already, one whose id is too large, or one more.
    fn draw_vcpu(&mut self) -> Option<Call> {
        let next = self.world.vcpus.len() as u32;
        match self.random.below(3) {
            0 => Some(Call::CreateVcpu { vcpu: 0 }),
            1 => Some(Call::CreateVcpu { vcpu: 100_000 }),
            // Where the interrupt controller is there already, a new one is refused.
            _ if self.profile.its => Some(Call::CreateVcpu { vcpu: next }),
            _ if next < 4 => {
                self.queue_vcpu(next);
                self.queued.pop_front()
            }
            _ => None,
        }
    }
}
