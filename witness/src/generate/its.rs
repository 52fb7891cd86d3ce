//! The ITS in a sequence: a slot for its tables, its registers, commands, MSIs, and the three calls that write guest memory without a vCPU.

use dirtysim::trace::PageRuns;
use dirtysim::trace::call::{Call, ItsCommand, UserData};

use super::Generator;

/// The slot of the tables.
pub(super) const SLOT: u16 = 4;

/// Its pages, and where in it everything is. An ITS's own tables begin at multiples of 64 KiB, pending tables too.
const PAGES: u64 = 160;
const QUEUE: u64 = 0;
const DEVICE_TABLE: u64 = 16;
const COLLECTION_TABLE: u64 = 32;
const ITT: [u64; 2] = [48, 52];
const PROPERTIES: u64 = 64;
const PENDING: [u64; 3] = [80, 96, 112];

/// Bytes of the command queue, one page, and of one command.
const QUEUE_BYTES: u64 = 4096;
const COMMAND_BYTES: u64 = 32;

/// The two devices that commands map, with the width of their event ids: their table entries lie in different pages.
const DEVICES: [(u32, u32); 2] = [(1, 11), (600, 5)];

/// Interrupts that events are mapped to: their pending bits lie in three bytes of two pages.
const LPIS: [u32; 4] = [8192, 8193, 8200, 40_000];

/// Base addresses of the devices, as on the machine type that everybody emulates.
const DISTRIBUTOR: u64 = 0x0800_0000;
const ITS_BASE: u64 = 0x0808_0000;
const REDISTRIBUTORS: u64 = 0x080a_0000;

/// `GITS_CWRITER`, bytes into the control frame.
const GITS_CWRITER: u64 = 0x88;

/// What the sequence knows of the command queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ItsView {
    cwriter: u64,
}

fn pages(first: u64, count: u64) -> PageRuns {
    let mut runs = PageRuns::default();
    runs.push_run(first, count).expect("a run of a few pages");
    runs
}

impl Generator {
    fn its_gpa(&self) -> u64 {
        self.slot_gpa(SLOT)
    }

    pub(super) fn queue_its_slot(&mut self) {
        let log = u32::from(self.random.percent(90));
        let mut call = self.create_slot(SLOT, PAGES, log);
        if let Call::SetUserMemoryRegion {
            mem, npages, huge, ..
        } = &mut call
        {
            "its".clone_into(mem);
            (*npages, *huge) = (PAGES, false);
        }
        self.queued.push_back(call);
    }

    pub(super) fn queue_its(&mut self) {
        let attr = |device: &str, what: &str, group, attr, value| Call::SetDeviceAttr {
            device: device.to_owned(),
            what: what.to_owned(),
            group,
            attr,
            value,
        };
        let gpa = self.its_gpa();
        let vcpus = self.profile.vcpus;
        let mut pending = PageRuns::default();
        for first in PENDING.iter().take(vcpus as usize) {
            pending.push_run(*first, 16).expect("a run of a few pages");
        }
        self.queued.extend([
            Call::CreateDevice {
                device: "VGIC_V3".to_owned(),
            },
            attr("VGIC_V3", "ADDR DIST", 0, 2, DISTRIBUTOR),
            attr(
                "VGIC_V3",
                "ADDR REDIST_REGION",
                0,
                5,
                REDISTRIBUTORS | u64::from(vcpus) << 52,
            ),
            attr("VGIC_V3", "NR_IRQS", 3, 0, 64),
            attr("VGIC_V3", "CTRL INIT", 4, 0, 0),
            Call::CreateDevice {
                device: "VGIC_ITS".to_owned(),
            },
            attr("VGIC_ITS", "ADDR ITS", 0, 4, ITS_BASE),
            attr("VGIC_ITS", "CTRL INIT", 4, 0, 0),
            Call::ItsSetup {
                slot: SLOT,
                command_queue_pages: pages(QUEUE, 1),
                device_table_pages: pages(DEVICE_TABLE, 4),
                collection_table_pages: pages(COLLECTION_TABLE, 1),
                property_table_pages: pages(PROPERTIES, 15),
                pending_table_pages: pending,
            },
        ]);
        let redist = |vcpu, reg: &str, offset, value| Call::RedistRegWrite {
            vcpu,
            reg: reg.to_owned(),
            offset,
            value,
        };
        for vcpu in 0..vcpus {
            self.queued.extend([
                redist(
                    vcpu,
                    "GICR_PROPBASER",
                    0x70,
                    (gpa + PROPERTIES * 4096) | 0x78f,
                ),
                redist(vcpu, "GICR_PROPBASER+4", 0x74, 0),
                redist(
                    vcpu,
                    "GICR_PENDBASER",
                    0x78,
                    (gpa + PENDING[vcpu as usize] * 4096) | 0x780,
                ),
                redist(vcpu, "GICR_PENDBASER+4", 0x7c, 0),
                redist(vcpu, "GICR_CTLR", 0, 1),
            ]);
        }
        self.queue_its_registers();
        let mut commands: Vec<ItsCommand> = (0..vcpus)
            .map(|vcpu| ItsCommand::Mapc {
                collection: vcpu,
                vcpu,
            })
            .collect();
        for ((dev, event_bits), itt_page) in DEVICES.into_iter().zip(ITT) {
            commands.push(ItsCommand::Mapd {
                dev,
                event_bits,
                itt_page,
            });
        }
        self.queue_commands(commands, false);
        let more = self.random.between(1, 3);
        for _ in 0..more {
            let command = self.map_event();
            self.queue_commands(vec![command], false);
        }
    }

    /// The ITS's own registers, and the enable bit last.
    fn queue_its_registers(&mut self) {
        let gpa = self.its_gpa();
        let register = |reg: &str, offset, value| Call::ItsRegWrite {
            reg: reg.to_owned(),
            offset,
            value,
        };
        const VALID_CACHEABLE: u64 = 0xb800_0000_0000_0000;
        self.queued.extend([
            register(
                "GITS_CBASER",
                0x80,
                VALID_CACHEABLE | (gpa + QUEUE * 4096) | 0x400,
            ),
            register(
                "GITS_BASER0",
                0x100,
                VALID_CACHEABLE | (gpa + DEVICE_TABLE * 4096) | 0x600,
            ),
            register(
                "GITS_BASER1",
                0x108,
                VALID_CACHEABLE | (gpa + COLLECTION_TABLE * 4096) | 0x600,
            ),
            register("GITS_CTLR", 0, 1),
        ]);
        self.its.cwriter = 0;
    }

    /// Commands into the queue, then the write that makes the ITS take them: by userspace, or by the guest.
    fn queue_commands(&mut self, commands: Vec<ItsCommand>, by_guest: bool) {
        let at = self.its.cwriter;
        let bytes = commands.len() as u64 * COMMAND_BYTES;
        if at + bytes > QUEUE_BYTES {
            return;
        }
        self.its.cwriter = (at + bytes) % QUEUE_BYTES;
        let value = self.its.cwriter;
        self.queued.push_back(Call::UserWrite {
            slot: SLOT,
            pages: pages(QUEUE, 1),
            data: UserData::ItsCommands {
                queue_offset: at,
                commands,
            },
        });
        self.queued.push_back(if by_guest {
            Call::GuestMmio {
                vcpu: 0,
                gpa: ITS_BASE + GITS_CWRITER,
                bytes: 8,
                value,
            }
        } else {
            Call::ItsRegWrite {
                reg: "GITS_CWRITER".to_owned(),
                offset: GITS_CWRITER,
                value,
            }
        });
    }

    fn event(&mut self) -> (u32, u32) {
        let (dev, _) = self.random.one(&DEVICES);
        (dev, self.random.one(&[0, 1, 3, 9]))
    }

    fn map_event(&mut self) -> ItsCommand {
        let (dev, event) = self.event();
        let collection = self.random.below(u64::from(self.profile.vcpus)) as u32;
        ItsCommand::Mapti {
            dev,
            event,
            lpi: self.random.one(&LPIS),
            collection,
        }
    }

    /// Any command: some write memory themselves, some decide what a later save or MSI does.
    fn some_command(&mut self) -> ItsCommand {
        let (dev, event) = self.event();
        let vcpus = u64::from(self.profile.vcpus);
        // One more than there are: a collection that nobody mapped, a vCPU that is not there.
        let collection = self.random.below(vcpus + 1) as u32;
        let vcpu = self.random.below(vcpus + 1) as u32;
        match self.random.below(100) {
            0..45 => self.map_event(),
            45..57 => ItsCommand::Discard { dev, event },
            57..67 => ItsCommand::Int { dev, event },
            67..73 => ItsCommand::Clear { dev, event },
            73..82 => ItsCommand::Movi {
                dev,
                event,
                collection,
            },
            82..86 => ItsCommand::Unmapd { dev },
            86..90 => ItsCommand::Unmapc { collection },
            90..95 => ItsCommand::Mapc { collection, vcpu },
            _ => {
                let index = self.random.below(DEVICES.len() as u64) as usize;
                let (dev, event_bits) = DEVICES[index];
                ItsCommand::Mapd {
                    dev,
                    event_bits,
                    itt_page: ITT[index],
                }
            }
        }
    }

    pub(super) fn draw_its(&mut self) -> Option<Call> {
        match self
            .random
            .weighted(&[(26, 0), (20, 1), (8, 2), (20, 3), (20, 4), (4, 5), (3, 6)])
        {
            0 => Some(Call::ItsSaveTables {}),
            1 => Some(Call::VgicSavePendingTables {}),
            2 => Some(Call::ItsRestoreTables {}),
            3 => {
                let (dev, event) = self.event();
                Some(Call::SignalMsi { dev, event })
            }
            4 => {
                let commands = (0..self.random.between(1, 3))
                    .map(|_| self.some_command())
                    .collect();
                let by_guest = self.random.percent(50)
                    && self.world.vcpus.first().is_some_and(|vcpu| vcpu.ready);
                self.queue_commands(commands, by_guest);
                self.queued.pop_front()
            }
            5 => {
                // Save, forget, set up again, restore: what a migration does, on one machine.
                self.queued.push_back(Call::ItsSaveTables {});
                self.queued.push_back(Call::ItsReset {});
                self.queue_its_registers();
                let enable = self.queued.pop_back();
                self.queued.push_back(Call::ItsRestoreTables {});
                self.queued.extend(enable);
                self.queued.pop_front()
            }
            _ => Some(Call::ItsRegRead {
                reg: "GITS_CREADR".to_owned(),
                offset: 0x90,
            }),
        }
    }
}
