//! The virtual machine as the code under test sees it: kvm-ioctls' names, the simulated kernel behind them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::errno::{Errno, Result};
use crate::machine::Page;
use crate::region::UserspaceMemoryRegion;
use crate::session::Session;
use crate::session::call::{Call, Reply, Site};

/// A simulated virtual machine: what kvm-ioctls' `VmFd` is, as far as dirty logging goes.
///
/// Every call on it is a point at which others may act, before it, in the middle of its ioctl and after it: the vCPUs, which run the
/// machine's guest by themselves, the devices, and the VMM's other threads. What the code does between two calls is done at once.
///
/// The calls answer what the kernel would, errors included. A memslot that the machine does not have, a buffer that is too small and
/// the like are no errno but mistakes: they end the run, and are told with their place.
#[derive(Clone)]
pub struct Vm {
    session: Arc<Session>,
    /// Where its calls are said to be made, if not where they are.
    site: Option<Site>,
}

/// A vCPU of the simulated machine, which runs by itself: what kvm-ioctls' `VcpuFd` is for who harvests its ring.
#[derive(Clone)]
pub struct Vcpu {
    vm: Vm,
    id: u8,
}

/// A device of the simulated machine, which transfers by itself: see [`Machine::device`](crate::Machine::device).
#[derive(Clone)]
pub struct Device {
    vm: Vm,
    number: u8,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = &self.number;
        f.debug_struct("Device").field("number", number).finish()
    }
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu").field("id", &self.id).finish()
    }
}

fn unit(reply: Reply) -> Result<()> {
    reply.answer.map(|_| ()).map_err(Errno::from)
}

impl Vm {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self {
            session,
            site: None,
        }
    }

    /// The same machine, whose calls are told with this place and not with that of their callers: for faces of this library in other languages.
    #[must_use]
    pub fn at(&self, file: &'static str, line: u32) -> Self {
        Self {
            session: self.session.clone(),
            site: Some(Site::line(file, line)),
        }
    }

    /// Where a call is said to be made.
    #[track_caller]
    pub(crate) fn site(&self) -> Site {
        match self.site {
            Some(site) => site,
            None => Site::caller(),
        }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn call(&self, call: Call, place: Site) -> Reply {
        self.session.call(call, place)
    }

    /// KVM_SET_USER_MEMORY_REGION: turns a memslot's log on or off, moves it, deletes it or makes it again.
    ///
    /// # Errors
    /// What KVM answers: EINVAL, EEXIST.
    #[track_caller]
    pub fn set_user_memory_region(&self, region: UserspaceMemoryRegion) -> Result<()> {
        let place = self.site();
        self.check_slot(region.slot, place);
        unit(self.call(Call::SetUserMemoryRegion(region), place))
    }

    /// KVM_GET_DIRTY_LOG: a bit for each page of the memslot, page 0 in the lowest bit of the first word.
    ///
    /// `memory_size` is the memslot's, in bytes.
    ///
    /// # Errors
    /// What KVM answers: ENOENT for a memslot that does not log, ENXIO with rings that no bitmap stands beside.
    #[track_caller]
    pub fn get_dirty_log(&self, slot: u32, memory_size: usize) -> Result<Vec<u64>> {
        let place = self.site();
        self.check_slot(slot, place);
        let world = &self.session.world;
        let npages = world.slot(slot).map_or(0, |slot| slot.npages);
        let words = (memory_size as u64).div_ceil(world.page_bytes).div_ceil(64) as usize;
        if words < npages.div_ceil(64) as usize {
            let bytes = u64::from(npages) * world.page_bytes;
            self.session.mistake(
                format!("get_dirty_log(slot {slot}, {memory_size:#x} bytes): the memslot has {bytes:#x}, and the kernel would write behind the buffer"),
                place,
            );
        }
        let reply = self.call(Call::GetDirtyLog(slot), place);
        reply.answer?;
        let mut bitmap = vec![0; words];
        for host in reply.pages {
            if let Some(page) = world.page(host).filter(|page| page.slot == slot) {
                bitmap[page.offset as usize / 64] |= 1 << (page.offset % 64);
            }
        }
        Ok(bitmap)
    }

    /// KVM_CLEAR_DIRTY_LOG: takes the bits that are set in `bitmap` out of the memslot's, and re-arms their pages. Bit 0 of `bitmap`
    /// is `first_page`.
    ///
    /// # Errors
    /// What KVM answers: ENOENT for a memslot that does not log, EINVAL for a range that does not begin at a word of the bitmap, or
    /// ends neither at one nor with the memslot. A word has as many bits as the machine's memslots need, at most 64.
    #[track_caller]
    pub fn clear_dirty_log(
        &self,
        slot: u32,
        first_page: u64,
        num_pages: u32,
        bitmap: &[u64],
    ) -> Result<()> {
        let place = self.site();
        self.check_slot(slot, place);
        if bitmap.len() < num_pages.div_ceil(64) as usize {
            self.session.mistake(
                format!("clear_dirty_log(slot {slot}, {num_pages} pages) with {} words: the kernel would read behind them", bitmap.len()),
                place,
            );
        }
        let npages = self.session.world.slot(slot).map_or(0, |slot| slot.npages);
        let is_set = |bit: &u32| bitmap[*bit as usize / 64] >> (bit % 64) & 1 != 0;
        let offsets = (0..num_pages)
            .filter(is_set)
            .map(|bit| first_page + u64::from(bit));
        let call = Call::ClearDirtyLog {
            slot,
            first_page,
            num_pages,
            pages: offsets
                .filter(|offset| *offset < u64::from(npages))
                .collect(),
        };
        unit(self.call(call, place))
    }

    /// KVM_RESET_DIRTY_RINGS: takes the entries back that were harvested, and re-arms their pages; how many they were.
    ///
    /// # Errors
    /// What KVM answers: EINVAL where there are no rings.
    #[track_caller]
    pub fn reset_dirty_rings(&self) -> Result<i32> {
        let reply = self.call(Call::ResetDirtyRings, self.site());
        Ok(reply.answer? as i32)
    }

    /// A vCPU, by its id. The machine has created it.
    #[track_caller]
    #[must_use]
    pub fn vcpu(&self, id: u8) -> Vcpu {
        let vcpus = self.session.world.vcpus;
        if id >= vcpus {
            self.session
                .mistake(format!("vcpu({id}): the machine has {vcpus}"), self.site());
        }
        Vcpu {
            vm: self.clone(),
            id,
        }
    }

    /// Every vCPU, by id.
    #[must_use]
    pub fn vcpus(&self) -> Vec<Vcpu> {
        let ids = 0..self.session.world.vcpus;
        ids.map(|id| Vcpu {
            vm: self.clone(),
            id,
        })
        .collect()
    }

    /// Every memslot as the machine begins with it, log off: what [`Vm::set_user_memory_region`] takes.
    #[must_use]
    pub fn memory_regions(&self) -> Vec<UserspaceMemoryRegion> {
        let slots = self.session.world.slots.iter();
        slots.map(|slot| slot.region).collect()
    }

    /// One of them, by its number.
    #[track_caller]
    #[must_use]
    pub fn memory_region(&self, slot: u32) -> UserspaceMemoryRegion {
        self.check_slot(slot, self.site());
        let slot = self.session.world.slot(slot);
        slot.map(|slot| slot.region).unwrap_or_default()
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.session.world.page_bytes as usize
    }

    /// Signals every vCPU and waits until each has left KVM_RUN once; they go on by themselves.
    #[track_caller]
    pub fn kick_vcpus(&self) {
        self.call(Call::KickVcpus, self.site());
    }

    /// Stops the guest: `immediate_exit` and a signal for every vCPU, one after the other, then the wait until all are outside.
    #[track_caller]
    pub fn pause_vcpus(&self) {
        self.call(Call::PauseVcpus, self.site());
    }

    /// Lets the guest run again.
    #[track_caller]
    pub fn resume_vcpus(&self) {
        self.call(Call::ResumeVcpus, self.site());
    }

    /// Waits until a vCPU has left with KVM_EXIT_DIRTY_RING_FULL.
    #[track_caller]
    pub fn wait_ring_full(&self) {
        self.call(Call::WaitRingFull, self.site());
    }

    /// Lets the vCPUs that left with KVM_EXIT_DIRTY_RING_FULL run again, where the machine lets them wait for that.
    #[track_caller]
    pub fn ack_ring_full(&self) {
        self.call(Call::AckRingFull, self.site());
    }

    /// KVM_DEV_ARM_ITS_SAVE_TABLES, which writes the pages of [`Machine::its_tables`](crate::Machine::its_tables).
    ///
    /// # Errors
    /// EBUSY while a vCPU is in an ioctl.
    #[track_caller]
    pub fn its_save_tables(&self) -> Result<()> {
        unit(self.call(Call::ItsSaveTables, self.site()))
    }

    /// KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, which writes the pages of
    /// [`Machine::pending_tables`](crate::Machine::pending_tables).
    ///
    /// # Errors
    /// EBUSY while a vCPU is in an ioctl.
    #[track_caller]
    pub fn save_pending_tables(&self) -> Result<()> {
        unit(self.call(Call::SavePendingTables, self.site()))
    }

    /// The VMM reads a page and sends it: from this instant on the destination has what the page held.
    #[track_caller]
    pub fn send_page(&self, slot: u32, offset: u64) {
        let place = self.site();
        let page = self.check_page(slot, offset, place);
        self.call(Call::SendPage(page), place);
    }

    /// The same of every page of every memslot, in order: the first copy.
    #[track_caller]
    pub fn send_all_pages(&self) {
        let place = self.site();
        for slot in &self.session.world.slots {
            for offset in 0..u64::from(slot.npages) {
                let page = Page::new(slot.region.slot, offset);
                self.call(Call::SendPage(page), place);
            }
        }
    }

    /// The VMM stores to a page of guest memory by itself, as its device models do. KVM knows nothing of it: whoever migrates has to.
    #[track_caller]
    pub fn store_page(&self, slot: u32, offset: u64) {
        self.store_page_at(slot, offset, self.site());
    }

    pub(crate) fn store_page_at(&self, slot: u32, offset: u64, place: Site) {
        let page = self.check_page(slot, offset, place);
        self.call(Call::StorePage(page), place);
    }

    /// Says that what the code does from here on depends on `state` alone, beside what it asks from now on. A search then takes two ways that
    /// lead here with the same state for one, whatever the code was answered on them; without it, each history of answers is
    /// searched by itself. What does not say all is searched as if it did: name every variable that lives on.
    ///
    /// It is worth most at the head of a loop over rounds. With several threads it changes nothing.
    ///
    /// ```
    /// use dirtysim_kvm::{Arch, Machine, Vm, check};
    ///
    /// check(Machine::new(Arch::X86).slot(0, 2).stores(2), |vm: Vm| {
    ///     let ram = vm.memory_region(0);
    ///     vm.set_user_memory_region(ram.log_dirty_pages()).unwrap();
    ///     vm.send_all_pages();
    ///     for round in 0..3 {
    ///         vm.depends_only_on(&round);
    ///         if round == 2 {
    ///             vm.pause_vcpus();
    ///         }
    ///         let bitmap = vm.get_dirty_log(0, ram.memory_size as usize).unwrap();
    ///         (0..2)
    ///             .filter(|page| bitmap[0] >> page & 1 != 0)
    ///             .for_each(|page| vm.send_page(0, page));
    ///     }
    ///     vm.assert_copy_is_whole();
    /// });
    /// ```
    #[track_caller]
    pub fn depends_only_on(&self, state: &impl Hash) {
        self.depends_only_on_at(state, self.site());
    }

    pub(crate) fn depends_only_on_at(&self, state: &impl Hash, place: Site) {
        // Of fixed keys: the same on every run.
        let mut hasher = std::hash::DefaultHasher::new();
        state.hash(&mut hasher);
        self.call(Call::DependsOnlyOn(hasher.finish()), place);
    }

    /// The claim: the destination equals memory. Where a page differs, the run has lost it.
    #[track_caller]
    pub fn assert_copy_is_whole(&self) {
        self.call(Call::AssertCopyIsWhole, self.site());
    }

    /// A device of the machine with a log of its own, as vhost and VFIO have one, by its name.
    #[track_caller]
    #[must_use]
    pub fn device(&self, name: &str) -> Device {
        let known = &self.session.world.devices;
        let Some(number) = known.iter().position(|known| known == name) else {
            self.session.mistake(
                format!("device({name:?}): the machine has {known:?}"),
                self.site(),
            );
        };
        Device {
            vm: self.clone(),
            number: number as u8,
        }
    }

    fn check_slot(&self, slot: u32, place: Site) {
        let world = &self.session.world;
        if world.slot(slot).is_none() {
            let known: Vec<u32> = world.slots.iter().map(|slot| slot.region.slot).collect();
            self.session.mistake(
                format!("memslot {slot}: the machine has no such one; it has {known:?}"),
                place,
            );
        }
    }

    fn check_page(&self, slot: u32, offset: u64, place: Site) -> Page {
        self.check_slot(slot, place);
        let npages = self.session.world.slot(slot).map_or(0, |slot| slot.npages);
        if offset >= u64::from(npages) {
            self.session.mistake(
                format!("page {offset} of memslot {slot}: it has {npages}"),
                place,
            );
        }
        Page::new(slot, offset)
    }
}

impl Device {
    /// It may begin transfers from now on, and logs what it writes.
    #[track_caller]
    pub fn start(&self) {
        self.vm.call(Call::StartDevice(self.number), self.vm.site());
    }

    /// It begins no transfer any more; what is in flight still lands.
    #[track_caller]
    pub fn stop(&self) {
        self.vm.call(Call::StopDevice(self.number), self.vm.site());
    }

    /// It is stopped, and what was in flight has landed and is logged.
    #[track_caller]
    pub fn drain(&self) {
        let place = self.vm.site();
        self.vm.call(Call::StopDevice(self.number), place);
        self.vm.call(Call::DrainDevice(self.number), place);
    }

    /// Its log, which is emptied: the pages that it wrote since the last time, in ascending order.
    #[track_caller]
    #[must_use]
    pub fn dirty_pages(&self) -> Vec<Page> {
        let reply = self.vm.call(Call::DeviceLog(self.number), self.vm.site());
        let world = &self.vm.session.world;
        reply
            .pages
            .iter()
            .filter_map(|host| world.page(*host))
            .collect()
    }
}

impl Vcpu {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.id
    }

    /// The dirty entries of its ring, from where the last harvest ended: slot and offset of each, which is given back as harvested when
    /// it is taken. Each `next` reads the ring anew. None where the machine has no rings.
    ///
    /// An entry of a memslot that is gone by now is passed over.
    #[track_caller]
    #[must_use]
    pub fn dirty_log_ring_iter(&self) -> Option<DirtyLogRing> {
        let place = self.vm.site();
        self.vm.session.world.has_ring.then(|| DirtyLogRing {
            vcpu: self.clone(),
            place,
        })
    }
}

/// What [`Vcpu::dirty_log_ring_iter`] goes through.
#[derive(Debug)]
pub struct DirtyLogRing {
    vcpu: Vcpu,
    place: Site,
}

impl Iterator for DirtyLogRing {
    type Item = (u32, u64);

    fn next(&mut self) -> Option<(u32, u64)> {
        let session = &self.vcpu.vm.session;
        loop {
            let reply = session.call(Call::RingNext(self.vcpu.id), self.place);
            if let Some(page) = reply
                .pages
                .first()
                .and_then(|host| session.world.page(*host))
            {
                return Some((page.slot, page.offset));
            }
            // An entry that names no page of a memslot.
            if reply.answer != Ok(1) {
                return None;
            }
        }
    }
}
