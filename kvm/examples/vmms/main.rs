//! How three VMMs collect dirty pages, each as code of a real size, right and with a bug planted: `cargo run --example vmms`.
//!
//! `docs/vmm-protocols.md` says what of the orders was read where. `kvm/tests/migration.rs` finds the bugs.

mod cloud_hypervisor;
mod firecracker;
mod qemu;

use dirtysim_kvm::{Failure, Report};

fn tell(what: &str, done: Result<Report, Box<Failure>>) {
    println!("== {what}");
    match done {
        Ok(report) => println!("{report}\n"),
        Err(failure) => println!("{failure}"),
    }
}

fn main() {
    let qemu = |publishes_late| qemu::checker().check(qemu::code(publishes_late));
    tell("QEMU's ring mode, with a reaper", qemu(false));
    tell("the same, published too late", qemu(true));
    tell(
        "cloud-hypervisor's rounds",
        cloud_hypervisor::checker().check(cloud_hypervisor::code(false)),
    );
    tell(
        "the same, marked too early",
        cloud_hypervisor::checker().check(cloud_hypervisor::code(true)),
    );
    tell("Firecracker's diff snapshots", firecracker::check(false));
    tell("the same, forgetting on failure", firecracker::check(true));
}
