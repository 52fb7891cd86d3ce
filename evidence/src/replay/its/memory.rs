//! Guest memory as the interrupt controller reads and writes it, by guest physical address in address space 0.

use dirtysim_model::machine::{Kernel, Machine};
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Large;
use dirtysim_model::words::Frame;

use crate::replay::frames::frame_at;
use crate::replay::memory::Memories;
use crate::trace::Errno;

/// A VM's memory, and what is written to it.
pub(in crate::replay) struct GuestMemory<'a> {
    machine: &'a Machine,
    state: &'a State<Large>,
    memories: &'a mut Memories,
    vcpus: &'a [u32],
    written: Vec<Frame>,
}

impl<'a> GuestMemory<'a> {
    pub(in crate::replay) fn new(
        machine: &'a Machine,
        state: &'a State<Large>,
        memories: &'a mut Memories,
        vcpus: &'a [u32],
    ) -> Self {
        Self {
            machine,
            state,
            memories,
            vcpus,
            written: Vec::new(),
        }
    }

    /// The frames that were written, in order, one an access.
    pub(in crate::replay) fn into_written(self) -> Vec<Frame> {
        self.written
    }

    /// The slot and the frame of an address.
    fn frame(&self, gpa: u64) -> Option<(usize, Frame)> {
        frame_at(
            self.machine,
            self.state,
            0,
            gpa / self.machine.constants.page_bytes,
        )
    }

    /// The kernel's version, where that decides.
    pub(super) fn kernel(&self) -> Kernel {
        self.machine.kernel
    }

    /// Whether there is a vCPU of that id.
    pub(super) fn has_vcpu(&self, id: u32) -> bool {
        self.vcpus.contains(&id)
    }

    /// Whether a slot is there. Source: kvm_is_visible_gfn().
    pub(super) fn is_visible(&self, gpa: u64) -> bool {
        self.frame(gpa).is_some()
    }

    /// The eight bytes at an address that is a multiple of eight; none where there is no memory.
    pub(super) fn read_u64(&self, gpa: u64) -> Option<u64> {
        let (_, frame) = self.frame(gpa)?;
        let offset = gpa % self.machine.constants.page_bytes;
        Some(
            self.memories
                .word(self.machine.host_page(frame), offset / 8),
        )
    }

    /// The byte at an address.
    pub(super) fn read_u8(&self, gpa: u64) -> Option<u8> {
        let word = self.read_u64(gpa & !7)?;
        Some((word >> (gpa % 8 * 8)) as u8)
    }

    /// Writes eight bytes. Source: kvm_write_guest(); a read-only slot refuses.
    pub(super) fn write_u64(&mut self, gpa: u64, value: u64) -> Result<(), Errno> {
        let (slot, frame) = self.frame(gpa).ok_or(Errno::EFAULT)?;
        if self.state.slots[slot].readonly {
            return Err(Errno::EFAULT);
        }
        let word = gpa % self.machine.constants.page_bytes / 8;
        let host = self.machine.host_page(frame);
        self.memories.set_word(host, word, value);
        self.written.push(frame);
        Ok(())
    }

    /// Writes one byte.
    pub(super) fn write_u8(&mut self, gpa: u64, value: u8) -> Result<(), Errno> {
        let shift = gpa % 8 * 8;
        let word = self.read_u64(gpa & !7).ok_or(Errno::EFAULT)?;
        self.write_u64(
            gpa & !7,
            word & !(0xff << shift) | u64::from(value) << shift,
        )
    }
}
