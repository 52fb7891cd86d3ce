//! Threads and locks by number: for faces of this library in other languages, whose code cannot hold a guard or a closure.

use std::panic::resume_unwind;

use crate::session::CodePanic;
use crate::session::call::Call;
use crate::vm::Vm;

/// Starts a thread of the code, as [`Vm::spawn`]; its number.
#[track_caller]
pub fn spawn(vm: &Vm, run: impl FnOnce() + Send + 'static) -> u8 {
    let place = vm.site();
    vm.session().spawn(place, || {
        run();
        Ok(())
    })
}

/// Waits until a thread is at its end.
#[track_caller]
pub fn join(vm: &Vm, thread: u8) {
    vm.call(Call::Join(thread), vm.site());
}

/// A lock; its number.
#[track_caller]
pub fn new_lock(vm: &Vm) -> u8 {
    vm.session().new_lock(vm.site())
}

/// Takes a lock, once nobody else has it.
#[track_caller]
pub fn lock(vm: &Vm, lock: u8) {
    vm.call(Call::Lock(lock), vm.site());
}

/// Gives it back.
#[track_caller]
pub fn unlock(vm: &Vm, lock: u8) {
    vm.call(Call::Unlock(lock), vm.site());
}

/// The code fails, as by a panic, with these words.
#[track_caller]
pub fn fail(vm: &Vm, why: &str) -> ! {
    resume_unwind(Box::new(CodePanic(why.to_owned(), vm.site().to_string())))
}
