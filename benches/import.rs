//! Import of other tools' logs, in bytes of log a second, on one core: from text in memory to the trace's rows, with
//! the checks of the interface's contract, into nothing.
//!
//! The target is 100 MB/s for ftrace text.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dirtysim::import::{LogOptions, ftrace, import_logs, perf, qemu, tracepoint};
use dirtysim::trace::observed::Observed;

/// Bytes of log that are imported at once.
const BYTES: usize = 16 << 20;

/// The events of four vCPUs whose rings of 4096 entries fill, exit, and are reset, over and over.
fn events(mut each: impl FnMut(u32, u64, &Observed) -> bool) {
    const LIMIT: u32 = 4096 - 64;
    let mut rings = [(0_u32, 0_u32); 4];
    let mut page = 0x9e37_79b9_u64;
    let mut t_ns = 1_000_000_000;
    loop {
        for (ring, (dirty, reset)) in (0_u32..).zip(&mut rings) {
            t_ns += 2_000;
            if *dirty - *reset < LIMIT {
                *dirty += 1;
                page = page.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let push = Observed::RingPush {
                    ring,
                    dirty_index: *dirty,
                    reset_index: *reset,
                    slot: 1,
                    offset: page >> 44,
                    used: *dirty - *reset,
                };
                if !each(ring, t_ns, &push) {
                    return;
                }
                continue;
            }
            let exit = Observed::UserspaceExit {
                reason: Some(31),
                errno: None,
            };
            *reset = *dirty;
            let done = Observed::RingReset {
                ring,
                dirty_index: *dirty,
                reset_index: *reset,
                used: 0,
            };
            let all = [Observed::RingExit { vcpu: ring }, exit, done];
            if !all.iter().all(|event| each(ring, t_ns, event)) {
                return;
            }
        }
    }
}

fn text(mut print: impl FnMut(u32, u64, &Observed, &mut String)) -> String {
    let mut text = String::with_capacity(BYTES + 256);
    events(|vcpu, t_ns, event| {
        print(vcpu, t_ns, event, &mut text);
        text.push('\n');
        text.len() < BYTES
    });
    text
}

fn import(criterion: &mut Criterion) {
    let who = |vcpu: u32| (4242 + vcpu, 4240);
    let comm = |vcpu: u32| format!("CPU {vcpu}/KVM");
    let logs = [
        (
            "ftrace",
            text(|vcpu, t_ns, event, out| {
                ftrace::print(
                    ftrace::Form::Ftrace,
                    &comm(vcpu),
                    who(vcpu),
                    vcpu,
                    t_ns,
                    event.name(),
                    out,
                );
                tracepoint::print(event, out);
            }),
        ),
        (
            "perf",
            text(|vcpu, t_ns, event, out| {
                perf::print(
                    perf::Form::Plain,
                    &comm(vcpu),
                    who(vcpu),
                    vcpu,
                    t_ns,
                    event.name(),
                    out,
                );
                tracepoint::print(event, out);
            }),
        ),
        (
            "qemu",
            text(|vcpu, t_ns, event, out| {
                if let Observed::RingPush {
                    dirty_index,
                    offset,
                    ..
                } = event
                {
                    let page = Observed::QemuPage {
                        cpu_index: vcpu,
                        fetch: dirty_index - 1,
                        offset: *offset,
                    };
                    qemu::print_front(qemu::Form::TidTime, 4242, t_ns, out);
                    qemu::print(&page, out);
                }
            }),
        ),
        (
            "ftrace-other-events",
            text(|vcpu, t_ns, _, out| {
                ftrace::print(
                    ftrace::Form::Ftrace,
                    &comm(vcpu),
                    who(vcpu),
                    vcpu,
                    t_ns,
                    "kvm_exit",
                    out,
                );
                out.push_str("reason EPT_VIOLATION rip 0xffffffff8112ab10 info 182 0");
            }) + "  CPU 0/KVM-4242 [000] ..... 1.000000: kvm_dirty_ring_exit: vcpu 0\n",
        ),
    ];
    let mut group = criterion.benchmark_group("import");
    group.sample_size(10);
    for (name, log) in &logs {
        group.throughput(Throughput::Bytes(log.len() as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                let logs = vec![((*name).to_owned(), log.as_bytes())];
                import_logs(logs, std::io::sink(), &LogOptions::default())
                    .expect("a log of this bench is a log")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, import);
criterion_main!(benches);
