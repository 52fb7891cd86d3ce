//! The C face of `dirtysim-kvm`: what `include/dirtysim.h` declares, where it is described.
//!
//! A run of the code is given up within one of its calls. No frame of C is unwound for that: what unwinds the Rust code is caught here, the call
//! returns, and the header's wrapper leaves the code by `longjmp` to where it was entered. From there what was caught goes on.

use std::any::Any;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dirtysim_evidence::trace::observed::KvmIoctl;
use dirtysim_kvm::{
    Checker, Failure, Machine, Report, Result, UserspaceMemoryRegion, Vm, by_number,
};

/// The simulated machine, as one thread of the code has it.
pub struct DirtysimVm {
    vm: Vm,
    /// Where the header's wrapper goes when the run is given up.
    exit: *mut c_void,
    /// What unwinds the thread once the code was left.
    given_up: Option<Box<dyn Any + Send>>,
}

/// What a test came to.
pub struct DirtysimResult {
    text: CString,
    failure: Option<Box<Failure>>,
    failed: bool,
}

/// `dirtysim_code`.
pub type Code = extern "C" fn(*mut DirtysimVm, *mut c_void);
/// `dirtysim_enter_fn`.
pub type Enter = extern "C" fn(*mut DirtysimVm, Code, *mut c_void);

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
pub struct KvmUserspaceMemoryRegion {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}

/// `struct kvm_dirty_log`.
#[repr(C)]
struct KvmDirtyLog {
    slot: u32,
    padding: u32,
    dirty_bitmap: *mut u64,
}

/// `struct kvm_clear_dirty_log`.
#[repr(C)]
struct KvmClearDirtyLog {
    slot: u32,
    num_pages: u32,
    first_page: u64,
    dirty_bitmap: *const u64,
}

/// `struct kvm_dirty_gfn`.
#[repr(C)]
pub struct KvmDirtyGfn {
    flags: u32,
    slot: u32,
    offset: u64,
}

/// What is the code's own, and goes with it to its threads.
struct Opaque(*mut c_void);

// SAFETY: it is never looked at here; what it points to is the code's, whose threads go on one at a time.
unsafe impl Send for Opaque {}
// SAFETY: as above.
unsafe impl Sync for Opaque {}

impl Opaque {
    /// Has a thread of the code enter it.
    fn enter(&self, vm: Vm, enter: Enter, code: Code) {
        let mut vm = DirtysimVm {
            vm,
            exit: std::ptr::null_mut(),
            given_up: None,
        };
        enter(&raw mut vm, code, self.0);
        if let Some(unwinds) = vm.given_up.take() {
            resume_unwind(unwinds);
        }
    }
}

/// The name of a file, for as long as the program runs.
fn kept(file: *const c_char) -> &'static str {
    static NAMES: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let name = match file.is_null() {
        true => "".into(),
        // SAFETY: the header passes __FILE__.
        false => unsafe { CStr::from_ptr(file) }.to_string_lossy(),
    };
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(&*name) {
        return known;
    }
    let name: &str = Box::leak(name.into_owned().into_boxed_str());
    names.insert(name);
    name
}

/// Makes a call for the code. Where the run is given up meanwhile, or was before, `none` is what it answers.
///
/// # Safety
/// `vm` is what the code was given.
unsafe fn call<R>(
    vm: *mut DirtysimVm,
    file: *const c_char,
    line: u32,
    none: R,
    call: impl FnOnce(&Vm) -> R,
) -> R {
    // SAFETY: each thread of the code has its own, which lives as long as the code is in work.
    let vm = unsafe { &mut *vm };
    if vm.given_up.is_some() {
        return none;
    }
    let at = vm.vm.at(kept(file), line);
    match catch_unwind(AssertUnwindSafe(|| call(&at))) {
        Ok(answer) => answer,
        Err(unwinds) => {
            vm.given_up = Some(unwinds);
            none
        }
    }
}

/// As an ioctl of KVM in the kernel: the errno below zero.
fn answer(result: Result<i32>) -> c_int {
    result.unwrap_or_else(|errno| -errno.errno())
}

fn unit(result: Result<()>) -> c_int {
    answer(result.map(|()| 0))
}

fn concluded(done: std::result::Result<Report, Box<Failure>>) -> *mut DirtysimResult {
    let (text, failure) = match done {
        Ok(report) => (report.to_string(), None),
        Err(failure) => (failure.to_string(), Some(failure)),
    };
    result(text, failure.is_some(), failure)
}

fn result(text: String, failed: bool, failure: Option<Box<Failure>>) -> *mut DirtysimResult {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    Box::into_raw(Box::new(DirtysimResult {
        text,
        failure,
        failed,
    }))
}

/// Tests code by one of the ways.
///
/// # Safety
/// `machine` is a string.
unsafe fn test(
    machine: *const c_char,
    enter: Enter,
    code: Code,
    opaque: *mut c_void,
    way: impl FnOnce(
        &Checker,
        Box<dyn Fn(Vm) + Send + Sync>,
    ) -> std::result::Result<Report, Box<Failure>>,
) -> *mut DirtysimResult {
    if machine.is_null() {
        return result("no machine: NULL".to_owned(), true, None);
    }
    // SAFETY: the caller's.
    let text = unsafe { CStr::from_ptr(machine) }.to_string_lossy();
    let machine = match Machine::from_toml(&text) {
        Ok(machine) => machine,
        Err(error) => return result(error.to_string(), true, None),
    };
    let checker = match Checker::from_environment(machine) {
        Ok(checker) => checker
            .run_again_by("dirtysim_result_write_trace() keeps it, dirtysim_replay() runs it"),
        Err(wrong) => return result(wrong.to_string(), true, None),
    };
    let opaque = Opaque(opaque);
    let run = move |vm: Vm| opaque.enter(vm, enter, code);
    let done = catch_unwind(AssertUnwindSafe(|| way(&checker, Box::new(run))));
    match done {
        Ok(done) => concluded(done),
        Err(_) => result(
            "dirtysim itself has failed: what it said is on standard error".to_owned(),
            true,
            None,
        ),
    }
}

/// `dirtysim_check_by`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_check_by(
    machine: *const c_char,
    enter: Enter,
    code: Code,
    opaque: *mut c_void,
) -> *mut DirtysimResult {
    // SAFETY: the caller's.
    unsafe {
        test(machine, enter, code, opaque, |checker, run| {
            checker.check(run)
        })
    }
}

/// `dirtysim_run_by`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_run_by(
    machine: *const c_char,
    first_seed: u64,
    last_seed: u64,
    enter: Enter,
    code: Code,
    opaque: *mut c_void,
) -> *mut DirtysimResult {
    let seeds = first_seed..last_seed;
    // SAFETY: the caller's.
    unsafe {
        test(machine, enter, code, opaque, |checker, run| {
            checker.clone().seeds(seeds).run(run)
        })
    }
}

/// `dirtysim_replay_by`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_replay_by(
    machine: *const c_char,
    trace: *const c_char,
    enter: Enter,
    code: Code,
    opaque: *mut c_void,
) -> *mut DirtysimResult {
    if trace.is_null() {
        return result("no trace: NULL".to_owned(), true, None);
    }
    // SAFETY: the caller's.
    let trace = unsafe { CStr::from_ptr(trace) }.to_string_lossy();
    // SAFETY: the caller's.
    unsafe {
        test(machine, enter, code, opaque, |checker, run| {
            checker.replay(&*trace, run)
        })
    }
}

/// `dirtysim_result_failed`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_result_failed(result: *const DirtysimResult) -> c_int {
    // SAFETY: the caller's.
    c_int::from(unsafe { &*result }.failed)
}

/// `dirtysim_result_text`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_result_text(result: *const DirtysimResult) -> *const c_char {
    // SAFETY: the caller's.
    unsafe { &*result }.text.as_ptr()
}

/// `dirtysim_result_write_trace`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_result_write_trace(
    result: *const DirtysimResult,
    path: *const c_char,
) -> c_int {
    // SAFETY: the caller's.
    let (result, path) = unsafe { (&*result, CStr::from_ptr(path)) };
    let path = path.to_string_lossy();
    let failure = result.failure.as_ref();
    match failure.map(|failure| failure.write_trace(Path::new(&*path))) {
        Some(Ok(())) => 0,
        Some(Err(_)) | None => -1,
    }
}

/// `dirtysim_result_free`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_result_free(result: *mut DirtysimResult) {
    if !result.is_null() {
        // SAFETY: it was made by `result`, and the caller has done with it.
        drop(unsafe { Box::from_raw(result) });
    }
}

/// `dirtysim_set_exit`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_set_exit(vm: *mut DirtysimVm, exit: *mut c_void) {
    // SAFETY: the caller's.
    unsafe { &mut *vm }.exit = exit;
}

/// `dirtysim_exit`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_exit(vm: *const DirtysimVm) -> *mut c_void {
    // SAFETY: the caller's.
    let vm = unsafe { &*vm };
    match vm.given_up {
        Some(_) => vm.exit,
        None => std::ptr::null_mut(),
    }
}

/// `dirtysim_ioctl_at`.
///
/// # Safety
/// `argument` points to the structure of the request, and that to what the kernel would read and write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_ioctl_at(
    vm: *mut DirtysimVm,
    request: c_ulong,
    argument: *mut c_void,
    file: *const c_char,
    line: u32,
) -> c_int {
    let known = u32::try_from(request).ok().and_then(KvmIoctl::from_number);
    // SAFETY: the caller's.
    unsafe {
        call(vm, file, line, -1, |vm| match known {
            Some(KvmIoctl::SetUserMemoryRegion) => {
                let region = &*argument.cast::<KvmUserspaceMemoryRegion>();
                unit(vm.set_user_memory_region(region.into()))
            }
            Some(KvmIoctl::GetDirtyLog) => {
                let log = &*argument.cast::<KvmDirtyLog>();
                let bytes = vm.memory_region(log.slot).memory_size as usize;
                let got = vm.get_dirty_log(log.slot, bytes);
                answer(got.map(|words| {
                    log.dirty_bitmap.copy_from(words.as_ptr(), words.len());
                    0
                }))
            }
            Some(KvmIoctl::ClearDirtyLog) => {
                let log = &*argument.cast::<KvmClearDirtyLog>();
                let words = log.num_pages.div_ceil(64) as usize;
                let bitmap = match words {
                    0 => &[],
                    words => std::slice::from_raw_parts(log.dirty_bitmap, words),
                };
                unit(vm.clear_dirty_log(log.slot, log.first_page, log.num_pages, bitmap))
            }
            Some(KvmIoctl::ResetDirtyRings) => answer(vm.reset_dirty_rings()),
            _ => by_number::fail(
                vm,
                &format!(
                    "ioctl {request:#x}: it is none of KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG and KVM_RESET_DIRTY_RINGS"
                ),
            ),
        })
    }
}

impl From<&KvmUserspaceMemoryRegion> for UserspaceMemoryRegion {
    fn from(region: &KvmUserspaceMemoryRegion) -> Self {
        Self {
            slot: region.slot,
            flags: region.flags,
            guest_phys_addr: region.guest_phys_addr,
            memory_size: region.memory_size,
            userspace_addr: region.userspace_addr,
        }
    }
}

/// `dirtysim_ring_next_at`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_ring_next_at(
    vm: *mut DirtysimVm,
    vcpu: u8,
    gfn: *mut KvmDirtyGfn,
    file: *const c_char,
    line: u32,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        call(vm, file, line, 0, |vm| {
            let next = vm
                .vcpu(vcpu)
                .dirty_log_ring_iter()
                .and_then(|mut ring| ring.next());
            let Some((slot, offset)) = next else { return 0 };
            gfn.write(KvmDirtyGfn {
                flags: 1,
                slot,
                offset,
            });
            1
        })
    }
}

/// `dirtysim_send_page_at`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_send_page_at(
    vm: *mut DirtysimVm,
    slot: u32,
    offset: u64,
    file: *const c_char,
    line: u32,
) {
    // SAFETY: the caller's.
    unsafe { call(vm, file, line, (), |vm| vm.send_page(slot, offset)) }
}

/// `dirtysim_store_page_at`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_store_page_at(
    vm: *mut DirtysimVm,
    slot: u32,
    offset: u64,
    file: *const c_char,
    line: u32,
) {
    // SAFETY: the caller's.
    unsafe { call(vm, file, line, (), |vm| vm.store_page(slot, offset)) }
}

/// Calls without arguments or answer.
macro_rules! plain {
    ($($name:ident: $call:ident;)+) => {$(
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As the header says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(vm: *mut DirtysimVm, file: *const c_char, line: u32) {
            // SAFETY: the caller's.
            unsafe { call(vm, file, line, (), |vm| vm.$call()) }
        }
    )+};
}

plain! {
    dirtysim_kick_vcpus_at: kick_vcpus;
    dirtysim_pause_vcpus_at: pause_vcpus;
    dirtysim_resume_vcpus_at: resume_vcpus;
    dirtysim_wait_ring_full_at: wait_ring_full;
    dirtysim_ack_ring_full_at: ack_ring_full;
    dirtysim_assert_copy_is_whole_at: assert_copy_is_whole;
}

/// `dirtysim_its_save_tables_at`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_its_save_tables_at(
    vm: *mut DirtysimVm,
    file: *const c_char,
    line: u32,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { call(vm, file, line, -1, |vm| unit(vm.its_save_tables())) }
}

/// `dirtysim_fail_at`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_fail_at(
    vm: *mut DirtysimVm,
    why: *const c_char,
    file: *const c_char,
    line: u32,
) {
    // SAFETY: the caller's.
    unsafe {
        let why = CStr::from_ptr(why).to_string_lossy();
        call(vm, file, line, (), |vm| by_number::fail(vm, &why));
    }
}

/// `dirtysim_spawn_at`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_spawn_at(
    vm: *mut DirtysimVm,
    enter: Enter,
    code: Code,
    opaque: *mut c_void,
    file: *const c_char,
    line: u32,
) -> u32 {
    let opaque = Opaque(opaque);
    // SAFETY: the caller's.
    unsafe {
        call(vm, file, line, 0, |vm| {
            let theirs = vm.clone();
            by_number::spawn(vm, move || opaque.enter(theirs, enter, code)).into()
        })
    }
}

/// Calls about a thread or a lock, by its number.
macro_rules! numbered {
    ($($name:ident: $call:ident;)+) => {$(
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As the header says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(vm: *mut DirtysimVm, number: u32, file: *const c_char, line: u32) {
            // SAFETY: the caller's.
            unsafe { call(vm, file, line, (), |vm| by_number::$call(vm, number as u8)) }
        }
    )+};
}

numbered! {
    dirtysim_join_at: join;
    dirtysim_lock_at: lock;
    dirtysim_unlock_at: unlock;
}

/// `dirtysim_new_lock_at`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_new_lock_at(
    vm: *mut DirtysimVm,
    file: *const c_char,
    line: u32,
) -> u32 {
    // SAFETY: the caller's.
    unsafe { call(vm, file, line, 0, |vm| by_number::new_lock(vm).into()) }
}

/// `dirtysim_slots`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_slots(vm: *const DirtysimVm) -> u32 {
    // SAFETY: the caller's.
    unsafe { &*vm }.vm.memory_regions().len() as u32
}

/// `dirtysim_memory_region`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_memory_region(
    vm: *const DirtysimVm,
    index: u32,
    region: *mut KvmUserspaceMemoryRegion,
) -> c_int {
    // SAFETY: the caller's.
    let known = unsafe { &*vm }
        .vm
        .memory_regions()
        .get(index as usize)
        .copied();
    let Some(known) = known else { return -1 };
    let known = KvmUserspaceMemoryRegion {
        slot: known.slot,
        flags: known.flags,
        guest_phys_addr: known.guest_phys_addr,
        memory_size: known.memory_size,
        userspace_addr: known.userspace_addr,
    };
    // SAFETY: the caller's.
    unsafe { region.write(known) };
    0
}

/// `dirtysim_vcpus`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_vcpus(vm: *const DirtysimVm) -> u8 {
    // SAFETY: the caller's.
    unsafe { &*vm }.vm.vcpus().len() as u8
}

/// `dirtysim_page_size`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirtysim_page_size(vm: *const DirtysimVm) -> u32 {
    // SAFETY: the caller's.
    unsafe { &*vm }.vm.page_size() as u32
}
