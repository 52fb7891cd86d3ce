//! Any header, any row of kind `call`.

use dirtysim::trace::call::{
    Access, Call, CallRow, GuestLayout, ItsCommand, Program, Prot, RecordedCall, Section, Sharing,
    Unknown, UserData,
};
use dirtysim::trace::call_result::{CallResult, Returned, Touch};
use dirtysim::trace::{
    Arch, Cap, Errno, Exit, Expect, Header, Kind, Machine, PageRuns, RING_ENTRIES_MAX, RingEntries,
    RingEntry, SLOT_PAGES_MAX, SLOT_WORDS_MAX, StoreRuns, WordRun, Words,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Numbers of every magnitude, not only large ones.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
}

/// Text with quotes, controls and characters of every length.
fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(|characters| characters.into_iter().collect())
}

fn cap() -> impl Strategy<Value = Cap> {
    prop_oneof![select(Cap::NAMED), any::<u32>().prop_map(Cap::from_number)]
}

fn exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        select(Exit::NAMED),
        any::<u32>().prop_map(Exit::from_number)
    ]
}

fn returned() -> impl Strategy<Value = Returned> {
    prop_oneof![
        any::<u32>().prop_map(Returned::Value),
        select(Errno::ALL).prop_map(Returned::Error)
    ]
}

fn page_run() -> impl Strategy<Value = (u64, u64)> {
    (0..SLOT_PAGES_MAX).prop_flat_map(|first| (Just(first), 1..=SLOT_PAGES_MAX - first))
}

fn pages() -> impl Strategy<Value = PageRuns> {
    vec(page_run(), 0..4).prop_map(|runs| {
        let mut pages = PageRuns::default();
        for (first, count) in runs {
            pages.push_run(first, count).unwrap();
        }
        pages
    })
}

fn stores() -> impl Strategy<Value = StoreRuns> {
    vec((any::<u32>(), page_run()), 0..4).prop_map(|runs| {
        let mut stores = StoreRuns::default();
        for (slot, (first, count)) in runs {
            stores.push_run(slot, first, count).unwrap();
        }
        stores
    })
}

/// Entries whose slots and offsets are close together, so that runs join, and any others.
fn entries() -> impl Strategy<Value = RingEntries> {
    let near = (0u32..3, 0u32..2, 0u64..6).prop_map(|(flags, slot, offset)| RingEntry {
        flags,
        slot,
        offset,
    });
    let far = (any::<u32>(), any::<u32>(), number()).prop_map(|(flags, slot, offset)| RingEntry {
        flags,
        slot,
        offset,
    });
    vec((prop_oneof![near, far], 1..=RING_ENTRIES_MAX / 6), 0..6).prop_map(|runs| {
        let mut entries = RingEntries::default();
        for (first, count) in runs {
            // Near 2^64 there is room for one entry only.
            entries
                .push_run(first, count)
                .or_else(|_| entries.push_run(first, 1))
                .unwrap();
        }
        entries
    })
}

pub(crate) fn words() -> impl Strategy<Value = Words> {
    let word = prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>()];
    vec((0u64..4, 1u64..4, word), 0..6).prop_flat_map(|runs| {
        (Just(runs), prop_oneof![Just(0), 0..SLOT_WORDS_MAX - 64]).prop_map(|(runs, mut next)| {
            let mut words = Words::default();
            for (gap, count, word) in runs {
                let first = next + gap;
                next = first + count;
                words
                    .push_run(WordRun {
                        first,
                        last: next - 1,
                        word,
                    })
                    .unwrap();
            }
            words
        })
    })
}

fn program() -> impl Strategy<Value = Program> {
    (
        stores(),
        number(),
        prop_oneof![
            (
                select(&[Access::Store, Access::Load][..]),
                select(&[1, 2, 4, 8][..]),
                select(&[0, 8, 4093][..]),
                Just(1),
            ),
            (
                Just(Access::Copy),
                Just(8),
                select(&[0, 4088][..]),
                1..=512_u32,
            ),
        ],
    )
        .prop_map(|(store, value, (access, bytes, at, elements))| Program {
            store,
            bytes,
            value,
            access,
            elements,
            at,
        })
}

fn its_command() -> impl Strategy<Value = ItsCommand> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(collection, vcpu)| ItsCommand::Mapc { collection, vcpu }),
        any::<(u32, u32, u64)>().prop_map(|(dev, event_bits, itt_page)| ItsCommand::Mapd {
            dev,
            event_bits,
            itt_page
        }),
        any::<(u32, u32, u32, u32)>().prop_map(|(dev, event, lpi, collection)| ItsCommand::Mapti {
            dev,
            event,
            lpi,
            collection
        }),
        any::<(u32, u32, u32)>().prop_map(|(dev, event, collection)| ItsCommand::Movi {
            dev,
            event,
            collection
        }),
        any::<(u32, u32)>().prop_map(|(dev, event)| ItsCommand::Int { dev, event }),
        any::<(u32, u32)>().prop_map(|(dev, event)| ItsCommand::Clear { dev, event }),
        any::<(u32, u32)>().prop_map(|(dev, event)| ItsCommand::Discard { dev, event }),
        any::<u32>().prop_map(|dev| ItsCommand::Unmapd { dev }),
        any::<u32>().prop_map(|collection| ItsCommand::Unmapc { collection }),
    ]
}

fn user_data() -> impl Strategy<Value = UserData> {
    prop_oneof![
        (number(), any::<u32>(), 0u32..65_536).prop_map(|(value, bytes, at)| UserData::Bytes {
            value,
            bytes,
            at
        }),
        (number(), vec(its_command(), 0..3)).prop_map(|(queue_offset, commands)| {
            UserData::ItsCommands {
                queue_offset,
                commands,
            }
        }),
    ]
}

fn guest_layout() -> impl Strategy<Value = GuestLayout> {
    (
        (any::<u16>(), pages(), pages()),
        (
            option::of(pages()),
            option::of(pages()),
            option::of(pages()),
            option::of(pages()),
            option::of(pages()),
        ),
        (
            any::<Option<bool>>(),
            any::<Option<u64>>(),
            any::<Option<bool>>(),
        ),
    )
        .prop_map(
            |(
                (slot, code_pages, touched),
                (mailbox, gdt, stack, tables, list),
                (other, bits, before),
            )| {
                GuestLayout {
                    slot,
                    code_pages,
                    mailbox_pages: mailbox,
                    gdt_pages: gdt,
                    stack_pages: stack,
                    page_table_pages: tables,
                    list_pages: list,
                    other_guest_tables: other,
                    page_table_accessed_dirty_bits_at_start: bits,
                    written_before_slot_creation: before,
                    logged_slot_pages_touched_by_setup: touched,
                }
            },
        )
}

/// Any call; every variant is as likely as every other.
pub(crate) fn call() -> impl Strategy<Value = Call> {
    let prot = select(&[Prot::None, Prot::R, Prot::W, Prot::Rw, Prot::Rx, Prot::Rwx][..]);
    let sharing = select(&[Sharing::Shared, Sharing::Private][..]);
    let system = prop_oneof![
        cap().prop_map(|cap| Call::CheckExtension { cap }),
        Just(Call::CreateVm {}),
        Just(Call::CloseVm {}),
        Just(Call::End {}),
        (cap(), any::<u32>(), number()).prop_map(|(cap, flags, args0)| Call::EnableCap {
            cap,
            flags,
            args0
        }),
        any::<u32>().prop_map(|vcpu| Call::CreateVcpu { vcpu }),
        (any::<u32>(), text()).prop_map(|(vcpu, mode)| Call::VcpuInit { vcpu, mode }),
        guest_layout().prop_map(Call::GuestLayout),
        (
            any::<(u16, u16, u32)>(),
            number(),
            number(),
            any::<Option<u64>>(),
            text(),
            number(),
            any::<(bool, bool)>()
        )
            .prop_map(
                |((slot, as_id, flags), gpa, npages, bytes, mem, mem_offset, (populated, huge))| {
                    Call::SetUserMemoryRegion {
                        slot,
                        as_id,
                        flags,
                        gpa,
                        npages,
                        bytes,
                        mem,
                        mem_offset,
                        populated,
                        huge,
                    }
                }
            ),
        (
            any::<u32>(),
            number(),
            number(),
            prot,
            sharing,
            any::<Option<u64>>()
        )
            .prop_map(|(vcpu, offset_pages, bytes, prot, sharing, touch_byte)| {
                Call::MmapRing {
                    vcpu,
                    offset_pages,
                    bytes,
                    prot,
                    sharing,
                    touch_byte,
                }
            }),
    ];
    let ring_and_log = prop_oneof![
        (any::<u32>(), number(), select(&[4, 8][..]), number()).prop_map(
            |(vcpu, gpa, bytes, value)| Call::GuestMmio {
                vcpu,
                gpa,
                bytes,
                value,
            }
        ),
        (any::<u32>(), program(), any::<bool>()).prop_map(|(vcpu, program, resume)| Call::Run {
            vcpu,
            program,
            resume
        }),
        any::<(u32, u32)>().prop_map(|(vcpu, fetch_index)| Call::RingPeek { vcpu, fetch_index }),
        any::<(u32, u32, Option<u32>, u32)>().prop_map(|(vcpu, fetch_index, max, write_flags)| {
            Call::Harvest {
                vcpu,
                fetch_index,
                max,
                write_flags,
            }
        }),
        any::<(u32, u32)>().prop_map(|(vcpu, index)| Call::RingRead {
            vcpu,
            index,
            count: 0
        }),
        any::<(u32, u32, Option<u32>, Option<u32>, Option<u64>)>().prop_map(
            |(vcpu, index, flags, slot, offset)| Call::RingWrite {
                vcpu,
                index,
                flags,
                slot,
                offset
            }
        ),
        Just(Call::ResetDirtyRings {}),
        any::<(u16, u16, bool)>().prop_map(|(slot, as_id, bad_pointer)| Call::GetDirtyLog {
            slot,
            as_id,
            bad_pointer
        }),
        (
            any::<(u16, u16)>(),
            number(),
            any::<u32>(),
            0u64..9,
            words(),
            any::<bool>()
        )
            .prop_map(
                |((slot, as_id), first_page, num_pages, more, words, bad_pointer)| {
                    let words_given = words.last_index().map_or(0, |last| last + 1) + more;
                    Call::ClearDirtyLog {
                        slot,
                        as_id,
                        first_page,
                        num_pages,
                        words_given,
                        words,
                        bad_pointer,
                    }
                }
            ),
        (any::<u16>(), pages(), user_data()).prop_map(|(slot, pages, data)| Call::UserWrite {
            slot,
            pages,
            data
        }),
        (any::<u32>(), number(), number()).prop_map(|(vcpu, gpa, npages)| Call::PreFaultMemory {
            vcpu,
            gpa,
            npages
        }),
        (any::<u16>(), pages()).prop_map(|(slot, pages)| Call::Discard { slot, pages }),
        (any::<u32>(), number()).prop_map(|(vcpu, gpa)| Call::StolenTime { vcpu, gpa }),
        (any::<u16>(), number(), 0u32..65_529, 1u32..9).prop_map(|(slot, page, at, bytes)| {
            Call::ReadPage {
                slot,
                page,
                at,
                bytes,
            }
        }),
        (any::<u16>(), pages()).prop_map(|(slot, pages)| Call::Copy { slot, pages }),
        any::<u16>().prop_map(|slot| Call::Compare { slot }),
    ];
    let devices = prop_oneof![
        text().prop_map(|device| Call::CreateDevice { device }),
        (text(), text(), any::<u32>(), number(), number()).prop_map(
            |(device, what, group, attr, value)| Call::SetDeviceAttr {
                device,
                what,
                group,
                attr,
                value
            }
        ),
        (any::<u16>(), pages(), pages(), pages(), pages(), pages()).prop_map(
            |(slot, queue, devices, collections, properties, pending)| Call::ItsSetup {
                slot,
                command_queue_pages: queue,
                device_table_pages: devices,
                collection_table_pages: collections,
                property_table_pages: properties,
                pending_table_pages: pending,
            }
        ),
        (any::<u32>(), text(), number(), number()).prop_map(|(vcpu, reg, offset, value)| {
            Call::RedistRegWrite {
                vcpu,
                reg,
                offset,
                value,
            }
        }),
        (text(), number(), number()).prop_map(|(reg, offset, value)| Call::ItsRegWrite {
            reg,
            offset,
            value
        }),
        (text(), number()).prop_map(|(reg, offset)| Call::ItsRegRead { reg, offset }),
        Just(Call::ItsReset {}),
        Just(Call::ItsSaveTables {}),
        Just(Call::ItsRestoreTables {}),
        Just(Call::VgicSavePendingTables {}),
        any::<(u32, u32)>().prop_map(|(dev, event)| Call::SignalMsi { dev, event }),
    ];
    prop_oneof![10 => system, 12 => ring_and_log, 10 => devices]
}

/// A result with every field.
fn full_result() -> impl Strategy<Value = CallResult> {
    let touch = select(&[Touch::Ok, Touch::Sigbus, Touch::Sigsegv][..]);
    (
        (returned(), exit(), any::<bool>(), number(), number()),
        (entries(), any::<u32>(), words(), 0u64..9),
        (number(), touch, number(), number(), pages()),
    )
        .prop_map(
            |(
                (returned, exit, done, retired, total),
                (entries, stop_flags, words, more),
                (mapped, touch, creadr, value, differs),
            )| CallResult {
                returned: Some(returned),
                exit: Some(exit),
                program_done: Some(done),
                stores_retired: Some(retired),
                stores_retired_total: Some(total),
                count: Some(entries.count()),
                entries: Some(entries),
                stop_flags: Some(stop_flags),
                words_written: Some(words.last_index().map_or(0, |last| last + 1) + more),
                words: Some(words),
                mapped_entries: Some(mapped),
                touch: Some(touch),
                creadr_after: Some(creadr),
                value: Some(value),
                differs: Some(differs),
            },
        )
}

/// A call with a result that it can have.
pub(crate) fn recorded_call() -> impl Strategy<Value = RecordedCall> {
    (call(), full_result(), any::<u32>(), any::<bool>()).prop_map(
        |(mut call, full, vm, with_optional)| {
            let shape = call.shape();
            let has = |field: &str| {
                shape.required.contains(&field)
                    || (with_optional && shape.optional.contains(&field))
            };
            let result = CallResult {
                returned: full.returned.filter(|_| has("ret")),
                exit: full.exit.filter(|_| has("exit")),
                program_done: full.program_done.filter(|_| has("program_done")),
                stores_retired: full.stores_retired.filter(|_| has("stores_retired")),
                stores_retired_total: full
                    .stores_retired_total
                    .filter(|_| has("stores_retired_total")),
                count: full.count.filter(|_| has("count")),
                entries: full.entries.filter(|_| has("entries")),
                stop_flags: full.stop_flags.filter(|_| has("stop_flags")),
                words_written: full.words_written.filter(|_| has("words_written")),
                words: full.words.filter(|_| has("words")),
                mapped_entries: full.mapped_entries.filter(|_| has("mapped_entries")),
                touch: full.touch.filter(|_| has("touch")),
                creadr_after: full.creadr_after.filter(|_| has("creadr_after")),
                value: full.value.filter(|_| has("value")),
                differs: full.differs.filter(|_| has("differs")),
            };
            if let Call::RingRead { count, .. } = &mut call {
                *count = full.count.unwrap_or_default();
            }
            RecordedCall {
                vm: call.has_vm().then_some(vm),
                call,
                result,
            }
        },
    )
}

pub(crate) fn call_row() -> impl Strategy<Value = CallRow> {
    let section = ("[^\\s]{1,8}", text())
        .prop_map(|(section, title)| CallRow::Section(Section { section, title }));
    let unknown = (option::of(any::<u32>()), text())
        .prop_map(|(vm, unknown)| CallRow::Unknown(Unknown { vm, unknown }));
    prop_oneof![1 => section, 1 => unknown, 20 => recorded_call().prop_map(CallRow::Call)]
}

pub(crate) fn header() -> impl Strategy<Value = Header> {
    let arch = select(&[Arch::X86_64, Arch::Arm64, Arch::Riscv64, Arch::Loongarch64][..]);
    let machine =
        (arch, text(), 12u32..=16, number()).prop_map(|(arch, kernel, shift, offset)| Machine {
            arch,
            kernel: Some(kernel),
            page_size: Some(1 << shift),
            ring_page_offset: Some(offset),
            address_spaces: (shift % 2 == 0).then_some(1 + shift / 16),
            pml: (shift % 3 == 0).then_some(shift == 12),
            two_dimensional: (shift % 2 == 0).then_some(shift == 4),
        });
    let expect = prop_oneof![Just(Expect::Holds), text().prop_map(Expect::Violated)];
    (
        option::of(text()),
        option::of(text()),
        machine,
        vec(text(), 0..3),
        option::of(expect),
    )
        .prop_map(
            |(title, imported_from, machine, mutations, expect)| Header {
                title,
                imported_from,
                machine: Some(machine),
                mutations,
                expect,
                ..Header::new(Kind::Call)
            },
        )
}
