//! A VMM's own set-up on the simulated kernel: what it enables, creates and maps is the machine that its collection then runs on.

use std::cell::RefCell;

use dirtysim_check::alone::finish_op;
use dirtysim_check::scenario::Scenario;
use dirtysim_model::kernel::query::check_extension;
use dirtysim_model::machine::{Machine as Model, Op};
use dirtysim_model::op;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::Small;
use dirtysim_model::words::constants::{
    DIRTY_GFN_BYTES, INITIALLY_SET, MANUAL_PROTECT_ENABLE, MEM_READONLY,
};

pub use dirtysim_model::words::constants::{
    CAP_DIRTY_LOG_RING as KVM_CAP_DIRTY_LOG_RING,
    CAP_DIRTY_LOG_RING_ACQ_REL as KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
    CAP_DIRTY_LOG_RING_WITH_BITMAP as KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP,
    CAP_MANUAL_DIRTY_LOG_PROTECT2 as KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
};

use crate::errno::{Errno, Result};
use crate::machine::{Machine, MachineError};
use crate::region::{KVM_MEM_LOG_DIRTY_PAGES, UserspaceMemoryRegion};

/// The argument of KVM_ENABLE_CAP, with the names of the fields in kvm-bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EnableCap {
    /// The capability's number, as [`KVM_CAP_DIRTY_LOG_RING_ACQ_REL`].
    pub cap: u32,
    /// Flags; 0.
    pub flags: u32,
    /// Arguments: of a ring its size in bytes, of manual protect its bits.
    pub args: [u64; 4],
}

/// A virtual machine that is being set up: what kvm-ioctls' `VmFd` is before its guest runs. See [`Machine::set_up`].
///
/// The calls answer what the kernel would, in whatever order they come. Nobody else acts meanwhile, since no vCPU runs.
#[derive(Debug)]
pub struct SetUp {
    done: RefCell<Done>,
}

/// The machine so far, and the calls that made it.
#[derive(Debug, Clone)]
struct Done {
    machine: Machine,
    ops: Vec<Op>,
    vcpus: u8,
}

impl Machine {
    /// The machine that a VMM's own set-up makes: architecture, kernel and guest are as the builder said, capabilities, memslots and
    /// vCPUs are what the code enables and creates. What the builder said of those is dropped.
    ///
    /// The code is run once, at once. Sizes are scaled, as everywhere: it should be told to map a page or two, and to enable a ring of a
    /// few entries of 16 bytes, half of which are the reserve. Guest physical and host addresses are whatever it likes.
    ///
    /// # Errors
    /// What the code returns.
    ///
    /// # Panics
    /// Where the machine cannot be simulated: more than 4 vCPUs, vCPUs whose ids are not given in order, memslots that are deleted again.
    ///
    /// ```
    /// use dirtysim_kvm::{
    ///     Arch, EnableCap, Errno, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, Machine, SetUp, UserspaceMemoryRegion, Vm, check,
    /// };
    ///
    /// /// The code under test.
    /// fn create(kvm: &SetUp, ring_bytes: u64) -> Result<(), Errno> {
    ///     kvm.enable_cap(&EnableCap {
    ///         cap: KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
    ///         args: [ring_bytes, 0, 0, 0],
    ///         ..EnableCap::default()
    ///     })?;
    ///     kvm.set_user_memory_region(UserspaceMemoryRegion {
    ///         slot: 0,
    ///         memory_size: 2 * 4096,
    ///         userspace_addr: 0x7f00_0000_0000,
    ///         ..UserspaceMemoryRegion::default()
    ///     })?;
    ///     kvm.create_vcpu(0)
    /// }
    ///
    /// let machine = Machine::new(Arch::X86).stores(2).set_up(|kvm| create(kvm, 4 * 16))?;
    /// check(machine, |vm: Vm| {
    ///     let ram = vm.memory_region(0);
    ///     assert_eq!(ram.userspace_addr, 0x7f00_0000_0000);
    ///     vm.set_user_memory_region(ram.log_dirty_pages()).unwrap();
    ///     vm.send_all_pages();
    ///     vm.pause_vcpus();
    ///     for (slot, offset) in vm.vcpu(0).dirty_log_ring_iter().unwrap() {
    ///         vm.send_page(slot, offset);
    ///     }
    ///     vm.assert_copy_is_whole();
    /// });
    ///
    /// // The ring comes before the vCPUs.
    /// let refused = Machine::new(Arch::X86).set_up(|kvm: &SetUp| {
    ///     kvm.create_vcpu(0)?;
    ///     create(kvm, 4 * 16)
    /// });
    /// assert_eq!(refused, Err(Errno::new(22)));
    /// # Ok::<(), Errno>(())
    /// ```
    pub fn set_up<E>(
        self,
        code: impl FnOnce(&SetUp) -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let set_up = SetUp {
            done: RefCell::new(Done {
                machine: self.bare(),
                ops: Vec::new(),
                vcpus: 0,
            }),
        };
        code(&set_up)?;
        let done = set_up.done.into_inner();
        if let Err(error) = done.is_as_simulated() {
            panic!("{error}");
        }
        Ok(done.machine)
    }
}

impl SetUp {
    /// KVM_CHECK_EXTENSION: 0 for what this is not about.
    #[must_use]
    pub fn check_extension(&self, cap: u32) -> i32 {
        let model = self.done.borrow().model(&self.done.borrow().machine);
        let answer = model.ok().and_then(|model| check_extension(&model, cap));
        answer.unwrap_or(0) as i32
    }

    /// KVM_ENABLE_CAP.
    ///
    /// # Errors
    /// What KVM answers: EINVAL, E2BIG.
    pub fn enable_cap(&self, cap: &EnableCap) -> Result<()> {
        let args0 = cap.args[0];
        let op = Op::EnableCap(op::EnableCap {
            cap: cap.cap,
            flags: cap.flags,
            args0,
        });
        let machine = self.done.borrow().machine.clone();
        let machine = match cap.cap {
            KVM_CAP_DIRTY_LOG_RING | KVM_CAP_DIRTY_LOG_RING_ACQ_REL => {
                machine.ring((args0 / u64::from(DIRTY_GFN_BYTES)) as u32)
            }
            KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP => machine.ring_with_bitmap(),
            KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 if args0 & INITIALLY_SET != 0 => {
                machine.initially_set()
            }
            KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 if args0 & MANUAL_PROTECT_ENABLE != 0 => {
                machine.manual_protect()
            }
            KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 => machine.no_manual_protect(),
            _ => machine,
        };
        self.call(machine, |_| op)
    }

    /// KVM_CREATE_VCPU, with ids from 0 on.
    ///
    /// # Errors
    /// What KVM answers.
    #[track_caller]
    pub fn create_vcpu(&self, id: u64) -> Result<()> {
        let vcpus = self.done.borrow().vcpus;
        assert_eq!(
            id,
            u64::from(vcpus),
            "create_vcpu({id}): give vCPUs the ids from 0 on, in order"
        );
        let machine = self
            .done
            .borrow()
            .machine
            .clone()
            .vcpus(u32::from(vcpus) + 1);
        if let Err(error) = self.done.borrow().model(&machine) {
            panic!("{error}");
        }
        self.call(machine, |_| Op::CreateVcpu)?;
        self.done.borrow_mut().vcpus += 1;
        Ok(())
    }

    /// KVM_SET_USER_MEMORY_REGION: creates a memslot, or switches its log on.
    ///
    /// # Errors
    /// What KVM answers: EINVAL, EEXIST.
    #[track_caller]
    pub fn set_user_memory_region(&self, region: UserspaceMemoryRegion) -> Result<()> {
        let machine = self.done.borrow().machine.clone();
        let is_there = machine.has_slot(region.slot);
        assert!(
            !is_there || region.memory_size > 0,
            "memslot {} is deleted in the set-up again: that is not simulated",
            region.slot
        );
        let then = machine.with_region(&region);
        self.call(then.clone(), |model| {
            let mut slots = model.slots.iter().enumerate();
            let template = slots.find(|(_, slot)| slot.number() == region.slot);
            Op::SetMemoryRegion(op::SetMemoryRegion {
                slot: region.slot,
                flags: region.flags,
                gpa: region.guest_phys_addr,
                bytes: region.memory_size,
                // The VMM has it elsewhere than the model.
                hva: template.map_or(region.userspace_addr, |(_, slot)| {
                    let address = then.addresses.get(&region.slot);
                    let address = address.copied().unwrap_or(slot.hva);
                    region
                        .userspace_addr
                        .wrapping_sub(address)
                        .wrapping_add(slot.hva)
                }),
                template: template.map_or(0, |(index, _)| index as u16),
            })
        })
    }

    /// Makes a call on the machine as it would be then; where there is no such machine, on the one that there is, which says why not.
    fn call(&self, then: Machine, op: impl Fn(&Model) -> Op) -> Result<()> {
        let mut done = self.done.borrow_mut();
        let model = match done.model(&then) {
            Ok(model) => model,
            Err(error) => {
                let model = done
                    .model(&done.machine)
                    .unwrap_or_else(|_| panic!("{error}"));
                let answer = done.answer(&model, op(&model));
                // The kernel takes it, and the simulator cannot.
                let Err(errno) = answer else {
                    panic!("{error}")
                };
                return Err(errno);
            }
        };
        let op = op(&model);
        done.answer(&model, op)?;
        done.machine = then;
        done.ops.push(op);
        Ok(())
    }
}

impl Done {
    /// The machine for the model; one that has no memslot yet borrows one.
    fn model(&self, machine: &Machine) -> std::result::Result<Model, MachineError> {
        Ok(scenario(machine)?.machine)
    }

    /// What a call is answered after those that were made.
    fn answer(&self, model: &Model, op: Op) -> Result<()> {
        let mut model = model.clone();
        model.programs = vec![self.ops.iter().copied().chain([op]).collect()];
        run(&model).1
    }

    /// Whether the simulated machine is the one that the calls made, whatever their order was.
    fn is_as_simulated(&self) -> std::result::Result<(), MachineError> {
        self.machine.try_build()?;
        let scenario = scenario(&self.machine)?;
        let mut model = scenario.machine.clone();
        model.programs = vec![self.ops.clone()];
        let (mut made, _) = run(&model);
        let start = scenario.start::<Small>();
        let mut start = start.map_err(|error| MachineError::new(error.to_string()))?;
        (made.threads, start.threads) = Default::default();
        if made != start {
            let what = "the set-up leads to a state that cannot be simulated: create a vCPU at least, and each memslot once";
            return Err(MachineError::new(what.to_owned()));
        }
        Ok(())
    }
}

fn scenario(machine: &Machine) -> std::result::Result<Scenario, MachineError> {
    let machine = match machine.has_slots() {
        true => machine.clone(),
        false => machine.clone().slot(0, 1),
    };
    machine.scenario("set-up", &[], &[vec!["finish".into()]])
}

/// The state after the only program of a machine, and what the last call was answered.
fn run(model: &Model) -> (State<Small>, Result<()>) {
    let mut state = State::<Small>::new(model);
    let mut last = Ok(());
    while usize::from(state.threads[0].op) < model.programs[0].len() {
        let answer = finish_op(model, &mut state, 0, |_| ());
        last = answer
            .expect("in set-up nobody holds what a step could wait for")
            .map(|_| ())
            .map_err(Errno::from);
    }
    (state, last)
}

impl Machine {
    /// Without what a set-up makes.
    fn bare(mut self) -> Self {
        for key in [
            "ring",
            "ring_with_bitmap",
            "manual_protect",
            "vcpus",
            "pages",
        ] {
            self.machine.remove(key);
        }
        self.slots.clear();
        self.addresses.clear();
        self
    }

    fn no_manual_protect(mut self) -> Self {
        self.machine.remove("manual_protect");
        self
    }

    fn has_slots(&self) -> bool {
        !self.slots.is_empty()
    }

    fn has_slot(&self, number: u32) -> bool {
        self.place_of(number).is_some()
    }

    fn place_of(&self, number: u32) -> Option<usize> {
        let (id, as_id) = (number & 0xffff, number >> 16);
        self.slots
            .iter()
            .position(|slot| slot["id"] == id && slot["as_id"] == as_id)
    }

    /// With a memslot, or with what its flags say now.
    fn with_region(mut self, region: &UserspaceMemoryRegion) -> Self {
        let number = region.slot;
        let at = self.place_of(number).unwrap_or_else(|| {
            let page = 4096;
            self.slots.push(serde_json::json!({
                "name": format!("slot{number}"),
                "id": number & 0xffff,
                "as_id": number >> 16,
                "pages": region.memory_size / page,
                "gfn": region.guest_phys_addr / page,
            }));
            self.addresses.insert(number, region.userspace_addr);
            self.slots.len() - 1
        });
        let slot = &mut self.slots[at];
        slot["logging"] = (region.flags & KVM_MEM_LOG_DIRTY_PAGES != 0).into();
        slot["readonly"] = (region.flags & MEM_READONLY != 0).into();
        self
    }
}
