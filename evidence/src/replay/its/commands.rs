//! Commands: taken from the queue in guest memory, one by one. One that is wrong is passed over.

use super::{Collection, Device, Event, GuestMemory, ID_BITS, Its};
use crate::trace::call::ItsCommand;

/// A command's four words, with its fields.
struct Words([u64; 4]);

impl Words {
    fn number(&self) -> u8 {
        self.0[0] as u8
    }

    fn dev(&self) -> u32 {
        (self.0[0] >> 32) as u32
    }

    fn event(&self) -> u32 {
        self.0[1] as u32
    }

    fn lpi(&self) -> u32 {
        (self.0[1] >> 32) as u32
    }

    fn event_bits(&self) -> u32 {
        (self.0[1] & 0x1f) as u32 + 1
    }

    fn collection(&self) -> u32 {
        (self.0[2] & 0xffff) as u32
    }

    fn vcpu(&self) -> u32 {
        (self.0[2] >> 16) as u32
    }

    fn table_gpa(&self) -> u64 {
        self.0[2] & 0x000f_ffff_ffff_ff00
    }

    fn valid(&self) -> bool {
        self.0[2] & ItsCommand::VALID != 0
    }
}

impl Its {
    /// Source: vgic_its_process_commands().
    pub(super) fn process(&mut self, memory: &mut GuestMemory<'_>) {
        if !self.enabled {
            return;
        }
        let queue = self.cbaser & 0x000f_ffff_ffff_0000;
        // A queue that is smaller than where CWRITER was left is gone round at most once.
        let most = self.queue_bytes() / ItsCommand::BYTES;
        for _ in 0..most {
            if self.creadr == self.cwriter {
                break;
            }
            let word = |at: u64| memory.read_u64(queue + self.creadr + at * 8);
            if let (Some(a), Some(b), Some(c), Some(d)) = (word(0), word(1), word(2), word(3)) {
                // A command's own outcome is told to nobody.
                let _ = self.execute(&Words([a, b, c, d]), memory);
            }
            self.creadr = (self.creadr + ItsCommand::BYTES) % self.queue_bytes();
        }
    }

    /// A command; none where it is wrong. What it wrote before it failed stays written.
    fn execute(&mut self, words: &Words, memory: &mut GuestMemory<'_>) -> Option<()> {
        match words.number() {
            ItsCommand::MAPC => self.mapc(words, memory),
            ItsCommand::MAPD => self.mapd(words, memory),
            ItsCommand::MAPTI => self.mapti(words, memory),
            ItsCommand::MOVI => self.movi(words),
            ItsCommand::DISCARD => self.discard(words, memory),
            ItsCommand::INT => self.trigger(words.dev(), words.event()).ok().map(|_| ()),
            ItsCommand::CLEAR => {
                let lpi = self.event(words.dev(), words.event())?.lpi;
                self.lpis.set_pending(lpi, false);
                Some(())
            }
            _ => None,
        }
    }

    /// Source: vgic_its_cmd_handle_mapc().
    fn mapc(&mut self, words: &Words, memory: &GuestMemory<'_>) -> Option<()> {
        let id = words.collection();
        if !words.valid() {
            self.free_collection(id);
            self.lpis.forget_translations();
            return Some(());
        }
        let vcpu = words.vcpu();
        if !memory.has_vcpu(vcpu) {
            return None;
        }
        if let Some(index) = self.collection(id) {
            self.collections[index].vcpu = Some(vcpu);
            for device in &self.devices {
                for event in &device.events {
                    if event.collection == Some(id) {
                        self.lpis.set_vcpu(event.lpi, vcpu);
                    }
                }
            }
        } else {
            self.entry_gpa(1, id, memory)?;
            self.collections.push(Collection {
                id,
                vcpu: Some(vcpu),
            });
        }
        Some(())
    }

    /// Source: vgic_its_cmd_handle_mapd().
    fn mapd(&mut self, words: &Words, memory: &mut GuestMemory<'_>) -> Option<()> {
        let gpa = self.entry_gpa(0, words.dev(), memory)?;
        if words.valid() && words.event_bits() > ID_BITS {
            return None;
        }
        if let Some(index) = self.device(words.dev()) {
            self.free_device(index);
        }
        if !words.valid() {
            return memory.write_u64(gpa, 0).ok();
        }
        self.devices.push(Device {
            id: words.dev(),
            event_bits: words.event_bits(),
            table_gpa: words.table_gpa(),
            events: Vec::new(),
        });
        Some(())
    }

    /// Source: vgic_its_cmd_handle_mapi().
    fn mapti(&mut self, words: &Words, memory: &mut GuestMemory<'_>) -> Option<()> {
        let device = self.device(words.dev())?;
        let (event, lpi, id) = (words.event(), words.lpi(), words.collection());
        if !Self::has_room(&self.devices[device], event, memory)
            || !self.lpis.may_be(lpi)
            || self.event(words.dev(), event).is_some()
        {
            return None;
        }
        let made = self.collection(id).is_none();
        if made {
            self.entry_gpa(1, id, memory)?;
            self.collections.push(Collection { id, vcpu: None });
        }
        if self.lpis.map(lpi, self.vcpu_of(id), memory).is_err() {
            if made {
                self.free_collection(id);
            }
            return None;
        }
        self.devices[device].events.push(Event {
            id: event,
            lpi,
            collection: Some(id),
        });
        Some(())
    }

    /// Source: vgic_its_cmd_handle_movi().
    fn movi(&mut self, words: &Words) -> Option<()> {
        let (dev, event, id) = (words.dev(), words.event(), words.collection());
        let found = self.event(dev, event)?;
        let lpi = found.lpi;
        self.vcpu_of(found.collection?)?;
        let vcpu = self.vcpu_of(id)?;
        let device = self.device(dev)?;
        for found in &mut self.devices[device].events {
            if found.id == event {
                found.collection = Some(id);
            }
        }
        self.lpis.forget_translations();
        self.lpis.set_vcpu(lpi, vcpu);
        Some(())
    }

    /// Source: vgic_its_cmd_handle_discard().
    fn discard(&mut self, words: &Words, memory: &mut GuestMemory<'_>) -> Option<()> {
        let found = self.event(words.dev(), words.event())?;
        let lpi = found.lpi;
        self.vcpu_of(found.collection?)?;
        let device = self.device(words.dev())?;
        let device = &mut self.devices[device];
        let gpa = device.table_gpa + u64::from(words.event()) * super::ENTRY_BYTES;
        device.events.retain(|found| found.id != words.event());
        self.lpis.forget_translations();
        self.lpis.unmap(lpi);
        memory.write_u64(gpa, 0).ok()
    }
}
