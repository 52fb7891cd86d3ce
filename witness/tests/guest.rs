//! The witness's guests run on this machine's kernel, or the test says why they cannot.
#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::time::Duration;

use dirtysim_witness::kvm::guest::{self, Access, Program};
use dirtysim_witness::kvm::ring::MapHow;
use dirtysim_witness::kvm::vm::Region;
use dirtysim_witness::kvm::{self, Alarm, HostMemory, PAGE_BYTES, RunEnd, Vm};

#[test]
fn t() {
    let kvm = kvm::open().unwrap();
    let mut vm = Vm::new(&kvm).unwrap();
    println!("{:?}", vm.enable_cap(223, 0, 4096));
    let own = Arc::new(HostMemory::new(16).unwrap());
    let data = Arc::new(HostMemory::new(1024).unwrap());
    guest::install(&own, 0).unwrap();
    vm.set_memory(Region { slot: 0, flags: 0, gpa: 0, bytes: 16 * PAGE_BYTES, offset: 0 }, &own).unwrap().unwrap();
    vm.set_memory(Region { slot: 1, flags: 1, gpa: 0x1000_0000, bytes: 1024 * PAGE_BYTES, offset: 0 }, &data).unwrap().unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    vcpu.map_ring(MapHow::usual(4096)).unwrap();
    guest::init_vcpu(&kvm, &vcpu).unwrap();
    let alarm = Alarm::new().unwrap();
    let program = Program { access: Access::Store8(7), runs: vec![(0x1000_0000, 400), (0x1000_2000, 1)] };
    guest::begin(&vcpu, &own, 0, &program).unwrap();
    let end = vcpu.run(&alarm, Duration::from_secs(1));
    println!("{end:?} {:?} {:?}", guest::retired(&vcpu), vcpu.ring().unwrap().read(191));
    let mut v = 0;
    while vcpu.ring().unwrap().read(v).flags == 1 {
        vcpu.ring().unwrap().write_flags(v, 2);
        v += 1;
    }
    println!("{v} {:?}", vm.reset_dirty_rings());
    let mut n = 0;
    loop {
    let end = vcpu.run(&alarm, Duration::from_secs(1));
    println!("{end:?} {:?}", guest::retired(&vcpu));
    if end != RunEnd::Exit(31) || n > 5 { break; }
    n += 1;
    while vcpu.ring().unwrap().read(v).flags == 1 {
        vcpu.ring().unwrap().write_flags(v, 2);
        v += 1;
    }
    println!("{v} {:?}", vm.reset_dirty_rings());
    }
    println!("{:?}", vcpu.complete_exit());
}
